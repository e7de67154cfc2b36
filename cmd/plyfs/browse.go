package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/plyfs/plyfs/container"
	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore/changes"
)

// maxRows is how many entries of a directory are shown.
const maxRows = 100_000

// row is a line to choose from.
type row struct {
	name string // as in the layer
	text string
	down bool // there is something to enter
}

// listPage is a list to choose from: the layers, or what a layer changes in a directory.
type listPage struct {
	title  string
	head   string
	layer  int    // 0 is the list of layers, else a layer's number
	dir    string // of a layer
	rows   []row
	more   int // rows that are not shown
	chosen int // of shown
	top    int // first line on the screen, of shown
}

// browser lets somebody look at what the layers of an image do.
type browser struct {
	ctx    context.Context //nolint:containedctx // one command's
	img    container.ImageLayers
	title  string
	pages  []listPage // the one that shows is the last
	filter string
	typing bool // the filter is being typed
	busy   bool
	quit   bool
}

// canBrowse returns the terminals by which somebody can browse, if there are any.
func canBrowse(in, out any) (tty [2]*os.File, ok bool) {
	r, ok1 := in.(*os.File)
	w, ok2 := out.(*os.File)
	if !ok1 || !ok2 || !term.IsTerminal(int(r.Fd())) || !canDraw(w) || os.Getenv("TERM") == "dumb" {
		return tty, false
	}
	return [2]*os.File{r, w}, true
}

// browse shows an image on a terminal until q or Ctrl-C is pressed, or ctx ends. The terminal is as it was after, also when it
// panics.
func browse(ctx context.Context, tty [2]*os.File, title string, img container.ImageLayers) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &browser{ctx: ctx, img: img, title: title}
	first, err := b.layers()
	if err != nil {
		return err
	}
	b.pages = []listPage{first}
	s, err := openScreen(tty[0], tty[1])
	if err != nil {
		return err
	}
	defer func() {
		if cerr := s.close(); err == nil {
			err = cerr
		}
	}()
	go s.read(ctx)
	return b.run(s)
}

// run draws and answers keys. What takes long goes on beside it, so that it can be broken off.
func (b *browser) run(s *screen) error {
	type loaded struct {
		page listPage
		err  error
	}
	var loading chan loaded
	stop := func() {}
	defer func() { // whoever reads the layers must end before they are closed
		stop()
		if loading != nil {
			<-loading
		}
	}()
	for !b.quit {
		width, height := s.size()
		if err := s.draw(b.frame(width, height)); err != nil {
			return err
		}
		select {
		case <-b.ctx.Done():
			return context.Cause(b.ctx)
		case <-s.resized:
		case got := <-loading:
			loading, b.busy = nil, false
			if got.err != nil {
				return got.err
			}
			b.pages, b.filter = append(b.pages, got.page), ""
		case k, ok := <-s.keys:
			if !ok {
				return nil
			}
			if b.busy {
				if k == "q" || k == keyInterrupt {
					return nil
				}
				continue
			}
			layer, dir, enter := b.press(k, height)
			if !enter {
				continue
			}
			ctx, cancel := context.WithCancel(b.ctx)
			stop, b.busy = cancel, true
			loading = make(chan loaded, 1)
			go func() {
				var got loaded
				defer func() {
					if r := recover(); r != nil { // which would end the process with the terminal as it is
						got.err = fmt.Errorf("internal error: %v", r)
					}
					cancel()
					loading <- got
				}()
				got.page, got.err = b.directory(ctx, layer, dir)
			}()
		}
	}
	return nil
}

// page is the one that shows.
func (b *browser) page() *listPage { return &b.pages[len(b.pages)-1] }

// shown lists the rows that the filter lets through.
func (b *browser) shown() []row {
	p := b.page()
	if b.filter == "" {
		return p.rows
	}
	var rows []row
	for _, r := range p.rows {
		if strings.Contains(strings.ToLower(r.name), strings.ToLower(b.filter)) {
			rows = append(rows, r)
		}
	}
	return rows
}

// press answers a key. enter says that a layer's directory is to be shown.
func (b *browser) press(k key, height int) (layer int, dir string, enter bool) {
	if b.typing && b.typed(k) {
		return 0, "", false
	}
	p, rows := b.page(), b.shown()
	lines := max(height-barLines, 1)
	switch k {
	case "q", keyInterrupt:
		b.quit = true
	case "/":
		b.typing, b.filter = true, ""
		p.chosen, p.top = 0, 0
	case keyEscape:
		b.filter = ""
	case keyUp, "k":
		p.chosen--
	case keyDown, "j":
		p.chosen++
	case keyPageUp:
		p.chosen -= lines
	case keyPageDown, " ":
		p.chosen += lines
	case keyHome, "g":
		p.chosen = 0
	case keyEnd, "G":
		p.chosen = len(rows) - 1
	case keyLeft, keyBackspace, "h":
		if len(b.pages) > 1 {
			b.pages, b.filter = b.pages[:len(b.pages)-1], ""
		}
	case keyEnter, keyRight, "l":
		if p.chosen < len(rows) && rows[p.chosen].down {
			return b.below(p, rows[p.chosen])
		}
	}
	p = b.page()
	p.chosen = max(min(p.chosen, len(b.shown())-1), 0)
	return 0, "", false
}

func (b *browser) below(p *listPage, r row) (layer int, dir string, enter bool) {
	if p.layer > 0 {
		return p.layer, path.Join(p.dir, r.name), true
	}
	for i := range p.rows {
		if p.rows[i].name == r.name {
			return i + 1, "/", true
		}
	}
	return 0, "", false
}

// typed changes the filter. It reports whether the key belongs to it.
func (b *browser) typed(k key) bool {
	switch k {
	case keyEnter:
		b.typing = false
	case keyEscape:
		b.typing, b.filter = false, ""
	case keyBackspace:
		if r := []rune(b.filter); len(r) > 0 {
			b.filter = string(r[:len(r)-1])
		}
	case keyInterrupt, keyUp, keyDown, keyLeft, keyRight, keyHome, keyEnd, keyPageUp, keyPageDown:
		b.typing = false
		return false
	default:
		b.filter += string(k)
	}
	b.page().chosen = 0
	return true
}

// barLines are the lines of the screen that are no rows: two above and one below.
const barLines = 3

// frame is what the screen shows.
func (b *browser) frame(width, height int) []string {
	p, rows := b.page(), b.shown()
	lines := max(height-barLines, 1)
	p.top = max(min(p.top, p.chosen), p.chosen-lines+1, 0)
	frame := []string{clip(p.title, width), clip(p.head, width)}
	for i := p.top; i < p.top+lines; i++ {
		switch {
		case i >= len(rows):
			frame = append(frame, "")
		case i == p.chosen:
			frame = append(frame, reverse+clip(rows[i].text, width))
		default:
			frame = append(frame, clip(rows[i].text, width))
		}
	}
	foot := "arrows move, enter opens, left goes back, / searches, q quits"
	switch {
	case b.busy:
		foot = "reading… (q breaks it off)"
	case b.typing:
		foot = "/" + printable(b.filter)
	case b.filter != "":
		foot = fmt.Sprintf("%d of %d contain %s; escape shows all", len(rows), len(p.rows), printable(b.filter))
	case p.more > 0:
		foot = fmt.Sprintf("%d more are not shown: plyfs image tree -a lists all", p.more)
	}
	frame = append(frame, reverse+clip(foot, width))
	return frame[:min(len(frame), max(height, 1))]
}

// clip cuts a line that holds no control characters to a number of columns.
func clip(s string, width int) string {
	if len(s) <= width {
		return s
	}
	r := []rune(s)
	return string(r[:min(len(r), width)])
}

// layers is the page of all layers.
func (b *browser) layers() (listPage, error) {
	p := listPage{
		title: printable(b.title),
		head:  fmt.Sprintf("%5s  %-12s %8s %8s %8s %8s %8s  %s", "LAYER", "DIFF ID", "SIZE", "ADDED", "CHANGED", "HIDDEN", "WASTED", "CREATED BY"),
	}
	by := image.CreatedBy(b.img.Image)
	s := changes.NewStack(b.img.Open)
	var sum, wasted int64
	for i, l := range b.img.Layers {
		t, err := s.Next(b.ctx, changes.Options{}, nil)
		if err != nil {
			return p, err
		}
		sum, wasted = sum+t.Size, wasted+t.Wasted
		p.rows = append(p.rows, row{
			name: fmt.Sprintf("%d %s %s", i+1, l.DiffID, by[i]), down: true,
			text: fmt.Sprintf("%5d  %-12s %8s %8d %8d %8d %8s  %s", i+1, shortDigest(l.DiffID), size(t.Size), t.Added, t.Changed, t.Deleted, size(t.Wasted), by[i]),
		})
	}
	p.title += fmt.Sprintf(": %s in files of %d layers, %s (%s) wasted", size(sum), len(p.rows), size(wasted), percent(wasted, sum))
	return p, nil
}

// sum adds up what a layer changes at one name of a directory and below it.
type sum struct {
	kind         changes.Kind // of the name itself, 0 when only something below it changes
	isDir        bool
	size, wasted int64
	count        int
}

// directory is the page of what a layer changes in a directory.
func (b *browser) directory(ctx context.Context, layer int, dir string) (listPage, error) {
	p := listPage{
		title: fmt.Sprintf("%s: layer %d: %s", printable(b.title), layer, printable(dir)),
		head:  fmt.Sprintf("  %9s %9s %9s  %s", "SIZE", "WASTED", "ENTRIES", "NAME"),
		layer: layer, dir: dir,
	}
	s := changes.NewStack(b.img.Open)
	for range layer - 1 {
		if _, err := s.Next(ctx, changes.Options{}, nil); err != nil {
			return p, err
		}
	}
	sums, order := map[string]*sum{}, []string{}
	prefix := strings.TrimSuffix(dir, "/") + "/"
	_, err := s.Next(ctx, changes.Options{Expand: dir}, func(c *changes.Change) error {
		rest, ok := strings.CutPrefix(c.Path, prefix)
		if !ok || rest == "" {
			return nil
		}
		name, _, deeper := strings.Cut(rest, "/")
		t := sums[name]
		if t == nil {
			if len(sums) == maxRows {
				p.more++
				return nil
			}
			t = &sum{}
			sums[name] = t
			order = append(order, strings.Clone(name))
		}
		t.add(c, deeper)
		return nil
	})
	for _, name := range order {
		p.rows = append(p.rows, sums[name].row(name))
	}
	return p, err
}

func (t *sum) add(c *changes.Change, deeper bool) {
	if !deeper {
		t.kind = c.Kind
	}
	t.isDir = t.isDir || deeper || c.Mode&unix.S_IFMT == unix.S_IFDIR
	t.size += c.Size
	t.wasted += c.Wasted
	t.count += c.Count
}

func (t *sum) row(name string) row {
	kind, shown := t.kind, printable(name)
	if kind == 0 {
		kind = ' '
	}
	if t.isDir {
		shown += "/"
	}
	wasted := ""
	if t.wasted > 0 {
		wasted = size(t.wasted)
	}
	return row{name: name, text: fmt.Sprintf("%c %9s %9s %9d  %s", kind, size(t.size), wasted, t.count, shown), down: t.isDir && t.count > 0}
}
