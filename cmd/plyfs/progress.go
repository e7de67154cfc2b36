package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/go-units"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

// newProgress shows how a pull goes on: a bar for each layer on a terminal, else lines. finish must be called before
// anything else is written to out.
func newProgress(out io.Writer, quiet bool) (progress image.Progress, finish func()) {
	if quiet {
		return nil, func() {}
	}
	if file, ok := out.(*os.File); ok && canDraw(file) {
		bars := &bars{out: file, box: mpb.New(mpb.WithOutput(file), mpb.WithWidth(40))}
		return bars, bars.finish
	}
	return &lines{out: out}, func() {}
}

// canDraw reports whether a file is a terminal that says how large it is: bars that do not fit are not drawn.
func canDraw(file *os.File) bool {
	width, height, err := term.GetSize(int(file.Fd()))
	return err == nil && width > 0 && height > 0
}

// shortDigest is a digest as docker shows it: 12 hexadecimal digits.
func shortDigest(d layerstore.Digest) string {
	hex := d.Encoded()
	return hex[:min(12, len(hex))]
}

func size(n int64) string {
	return units.HumanSizeWithPrecision(float64(n), 3)
}

// lines tells of each layer in lines of text.
type lines struct {
	mu  sync.Mutex
	out io.Writer
}

func (l *lines) Message(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(l.out, text)
}

func (l *lines) Layer(d layerstore.Digest, total int64) image.LayerProgress {
	return &layerLines{lines: l, name: shortDigest(d), total: total}
}

// layerLines tells of one layer.
type layerLines struct {
	*lines
	name  string
	total int64
	last  string // the last status
}

func (l *layerLines) Start(offset int64) {
	if offset > 0 {
		l.Message(fmt.Sprintf("%s: Downloading %s, %s are there already", l.name, size(l.total), size(offset)))
		return
	}
	l.Message(fmt.Sprintf("%s: Downloading %s", l.name, size(l.total)))
}

func (l *layerLines) Add(int64) {}

func (l *layerLines) Status(text string) {
	if text != l.last {
		l.Message(l.name + ": " + text)
	}
	l.last = text
}

func (l *layerLines) Done(err error) {
	if err != nil {
		l.Message(l.name + ": Failed")
	}
}

// bars shows a bar for each layer.
type bars struct {
	out    io.Writer
	box    *mpb.Progress
	mu     sync.Mutex
	all    []*mpb.Bar
	active int      // layers that have not ended
	after  []string // messages to print below the bars
}

// Message prints a line above the bars, which needs bars that are still drawn, or below them at the end.
func (b *bars) Message(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.all) > 0 && b.active == 0 {
		b.after = append(b.after, text)
		return
	}
	_, _ = io.WriteString(b.box, text+"\n") // an error means that the bars are gone, and with them the time to say it
}

func (b *bars) Layer(d layerstore.Digest, total int64) image.LayerProgress {
	l := &layerBar{bars: b}
	l.status.Store("Waiting")
	// Without a total from the start a bar is not complete with its last byte: the layer is verified after that.
	l.bar = b.box.AddBar(0,
		mpb.PrependDecorators(
			decor.Name(shortDigest(d), decor.WC{W: 13, C: decor.DindentRight}),
			decor.Any(l.label, decor.WC{W: 15, C: decor.DindentRight}),
		),
		mpb.AppendDecorators(decor.Any(l.figures)),
		mpb.BarFillerClearOnComplete(),
		mpb.BarFillerClearOnAbort(),
	)
	l.bar.SetTotal(max(total, 1), false)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, l.bar)
	b.active++
	return l
}

// finish draws what there is for the last time. Bars whose layers never ended, since the pull failed, stay as they are.
func (b *bars) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bar := range b.all {
		bar.Abort(false)
	}
	b.box.Wait()
	for _, text := range b.after {
		fmt.Fprintln(b.out, text)
	}
}

// layerBar is the bar of one layer.
type layerBar struct {
	bars   *bars
	bar    *mpb.Bar
	status atomic.Value // string
	start  atomic.Pointer[downloadStart]
}

// downloadStart is when a download began and how many bytes were there then, which do not count towards its speed.
type downloadStart struct {
	at     time.Time
	offset int64
}

func (l *layerBar) label(decor.Statistics) string {
	text, _ := l.status.Load().(string)
	return text
}

// figures are the bytes, the speed and the time left.
func (l *layerBar) figures(s decor.Statistics) string {
	start := l.start.Load()
	if start == nil || s.Completed || s.Aborted {
		return ""
	}
	counters := size(s.Current) + "/" + size(s.Total)
	elapsed := time.Since(start.at).Seconds()
	if got := s.Current - start.offset; got > 0 && elapsed > 0 {
		speed := float64(got) / elapsed
		left := time.Duration(float64(s.Total-s.Current) / speed * float64(time.Second)).Round(time.Second)
		return fmt.Sprintf("%s  %s/s  %s left", counters, size(int64(speed)), left)
	}
	return counters
}

func (l *layerBar) Start(offset int64) {
	l.start.Store(&downloadStart{at: time.Now(), offset: offset})
	l.status.Store("Downloading")
	l.bar.SetCurrent(offset)
}

func (l *layerBar) Add(n int64) { l.bar.IncrInt64(n) }

func (l *layerBar) Status(text string) { l.status.Store(strings.TrimSpace(text)) }

func (l *layerBar) Done(err error) {
	if err != nil {
		l.status.Store("Failed")
		l.bar.Abort(false)
	} else {
		l.bar.SetTotal(-1, true)
	}
	l.bars.mu.Lock()
	defer l.bars.mu.Unlock()
	l.bars.active--
}
