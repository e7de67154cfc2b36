package changes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layerstore/inorder"
	"github.com/plyfs/plyfs/overlay"
)

// Options say what is told.
type Options struct {
	All bool // each file of a directory that is new or gone
	// Expand is the path of a directory that is told entry by entry, as are those above it, where it is new or gone.
	Expand string
}

// Stack is the layers of an image. Its methods are for one goroutine.
type Stack struct {
	layers []overlay.Layer // bottom first
	gone   map[ref]uint32  // names of hard links that were hidden so far
	seen   map[ref]bitset  // hard links whose data were counted, by the root of their layer
	next   int             // the layer whose turn it is
}

// NewStack takes the layers of an image, bottom first, which must be made of tars.
func NewStack(layers []overlay.Layer) *Stack {
	return &Stack{layers: layers, gone: map[ref]uint32{}, seen: map[ref]bitset{}}
}

// bitset is a set of entries.
type bitset []uint64

// add reports whether the entry was not in the set.
func (b *bitset) add(e overlay.Entry) bool {
	i := int(e / 64) //nolint:gosec // a layer has less than 2^32 entries
	for len(*b) <= i {
		*b = append(*b, make([]uint64, i+1-len(*b))...)
	}
	bit := uint64(1) << (e % 64)
	fresh := (*b)[i]&bit == 0
	(*b)[i] |= bit
	return fresh
}

// Next goes to the next layer, the lowest first, and calls emit for its changes, in the order of the paths except that what an
// opaque directory hides comes after what is in it. Without emit it only counts. It must not be called more often than
// there are layers. Errors: overlay.ErrCorrupt for a damaged index; emit's; ctx's.
func (s *Stack) Next(ctx context.Context, o Options, emit func(c *Change) error) (Totals, error) {
	w := &walk{ctx: ctx, s: s, o: o, emit: emit}
	top := s.layers[s.next]
	lowers := roots(s.layers[:s.next])
	s.next++
	opaque := false
	if x, ok := top.(interface{ RootOpaque() bool }); ok {
		opaque = x.RootOpaque()
	}
	err := w.directory(ref{top, overlay.RootEntry}, lowers, opaque, "/")
	return w.Totals, err
}

// walk is one pass over a layer, or over two images.
type walk struct {
	Totals
	ctx  context.Context //nolint:containedctx // one call's
	s    *Stack
	o    Options
	emit func(c *Change) error
}

// tell counts a change and passes it on.
func (w *walk) tell(c *Change) error {
	switch c.Kind {
	case Added:
		w.Added += c.Count
		w.Size += c.Size
	case Changed:
		w.Changed += c.Count
		w.Size += c.Size
	case Deleted:
		w.Deleted += c.Count
	}
	w.Wasted += c.Wasted
	if w.emit == nil {
		return nil
	}
	return w.emit(c)
}

// each visits the names that scan emits, in order if somebody sees it.
func (w *walk) each(scan func(emit func(name string) error) error, visit func(name string) error) error {
	if w.emit == nil {
		return scan(visit)
	}
	return inorder.Each(func(emit func(string, struct{})) error {
		return scan(func(name string) error { emit(name, struct{}{}); return nil })
	}, func(name string, _ struct{}) error { return visit(name) })
}

// directory tells what a layer's directory does to those below it; an opaque one hides them, however deep.
func (w *walk) directory(d ref, lowers []ref, opaque bool, p string) error {
	err := w.each(func(emit func(string) error) error {
		return list(w.ctx, d, func(e *overlay.DirEntry) error { return emit(e.Name) })
	}, func(name string) error {
		return at(w.name(d, lowers, opaque, name, join(p, name)), join(p, name))
	})
	if err != nil || !opaque || len(lowers) == 0 {
		return err
	}
	return w.each(func(emit func(string) error) error {
		return visible(w.ctx, lowers, func(name string) error {
			if _, err := d.layer.Lookup(d.entry, name); !errors.Is(err, syscall.ENOENT) {
				return err
			}
			return emit(name)
		})
	}, func(name string) error {
		low, err := lookup(lowers, name)
		if err != nil || low == nil {
			return err
		}
		return w.deleted(low, join(p, name))
	})
}

// pathError is an error at a path.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return fmt.Sprintf("%q: %v", e.path, e.err) }
func (e *pathError) Unwrap() error { return e.err }

// at names the path of an error that names none yet.
func at(err error, p string) error {
	var named *pathError
	if errors.Is(err, overlay.ErrCorrupt) && !errors.As(err, &named) {
		return &pathError{p, err}
	}
	return err
}

// name tells what a layer's name does.
func (w *walk) name(d ref, lowers []ref, opaque bool, name, p string) error {
	it, err := d.layer.Lookup(d.entry, name)
	if err != nil {
		return err
	}
	low, err := lookup(lowers, name)
	if err != nil {
		return err
	}
	if it.IsWhiteout() {
		if low == nil {
			return nil
		}
		return w.deleted(low, p)
	}
	f := &found{ref: ref{d.layer, it.Entry}, mode: it.Mode, flags: it.Flags}
	if f.isDir() {
		f.dirs = []ref{f.ref}
	}
	switch {
	case low == nil:
		return w.added(f, p)
	case f.isDir() && low.isDir():
		return w.merged(f, low, opaque || f.flags&overlay.FlagOpaque != 0, p)
	}
	c, err := w.change(Changed, f, p)
	if err != nil {
		return err
	}
	if c.Wasted, err = w.waste(low); err != nil {
		return err
	}
	if err := w.tell(c); err != nil || !f.isDir() {
		return err
	}
	return w.directory(f.ref, nil, false, p) // a directory that stands where a file was
}

// merged tells of a directory where there was one.
func (w *walk) merged(f, low *found, opaque bool, p string) error {
	var a overlay.Attr
	implied, err := f.attr(&a)
	if err != nil {
		return err
	}
	if !implied {
		alike, err := same(f, low)
		if err != nil {
			return err
		}
		if !alike {
			if err := w.tell(&Change{Kind: Changed, Path: p, Mode: a.Mode, Count: 1}); err != nil {
				return err
			}
		}
	}
	return w.directory(f.ref, low.dirs, opaque, p)
}

// change is one of an inode without what is below it.
func (w *walk) change(kind Kind, f *found, p string) (*Change, error) {
	var a overlay.Attr
	if _, err := f.attr(&a); err != nil {
		return nil, err
	}
	c := &Change{Kind: kind, Path: p, Mode: a.Mode, Size: stored(&a), Count: 1}
	if f.flags&overlay.FlagLinked != 0 && !w.first(f.ref) {
		c.Size = 0
	}
	return c, nil
}

// first reports whether a hard link is met for the first time.
func (w *walk) first(r ref) bool {
	key := ref{r.layer, overlay.RootEntry}
	set := w.s.seen[key]
	fresh := set.add(r.entry)
	w.s.seen[key] = set
	return fresh
}

// added tells of something new, with what is below it.
func (w *walk) added(f *found, p string) error {
	return w.whole(Added, f, p, func(f *found, p string) (*Change, error) { return w.change(Added, f, p) })
}

// deleted tells of something that is gone, with what was below it.
func (w *walk) deleted(f *found, p string) error {
	return w.whole(Deleted, f, p, func(f *found, p string) (*Change, error) {
		var a overlay.Attr
		if _, err := f.attr(&a); err != nil {
			return nil, err
		}
		return &Change{Kind: Deleted, Path: p, Mode: a.Mode, Size: stored(&a), Wasted: w.wasteOne(f, &a), Count: 1}, nil
	})
}

// whole tells of a tree, as one change or as many. one makes the change of an inode alone.
func (w *walk) whole(kind Kind, f *found, p string, one func(f *found, p string) (*Change, error)) error {
	c, err := one(f, p)
	if err != nil {
		return err
	}
	if w.o.All || !f.isDir() || leads(p, w.o.Expand) {
		if err := w.tell(c); err != nil || !f.isDir() {
			return err
		}
		return w.below(f, p, func(f *found, p string) error { return w.whole(kind, f, p, one) })
	}
	var sum func(f *found, p string) error
	sum = func(f *found, p string) error {
		x, err := one(f, p)
		if err != nil {
			return err
		}
		c.Size, c.Wasted, c.Count = c.Size+x.Size, c.Wasted+x.Wasted, c.Count+1
		return w.unordered(f, p, sum)
	}
	if err := w.unordered(f, p, sum); err != nil {
		return err
	}
	return w.tell(c)
}

// leads reports whether a directory is another one or is above it.
func leads(dir, to string) bool {
	return strings.HasPrefix(to, dir) && (len(to) == len(dir) || to[len(dir)] == '/')
}

// below calls visit for what is in a directory, in order.
func (w *walk) below(f *found, p string, visit func(f *found, p string) error) error {
	if !f.isDir() {
		return nil
	}
	return w.each(func(emit func(string) error) error { return visible(w.ctx, f.dirs, emit) }, func(name string) error {
		low, err := lookup(f.dirs, name)
		if err == nil && low != nil {
			err = visit(low, join(p, name))
		}
		return at(err, join(p, name))
	})
}

// unordered is below in any order.
func (w *walk) unordered(f *found, p string, visit func(f *found, p string) error) error {
	if !f.isDir() {
		return nil
	}
	return visible(w.ctx, f.dirs, func(name string) error {
		low, err := lookup(f.dirs, name)
		if err == nil && low != nil {
			err = visit(low, join(p, name))
		}
		return at(err, join(p, name))
	})
}

// waste is how many bytes no name shows any more once a tree is hidden.
func (w *walk) waste(f *found) (int64, error) {
	var a overlay.Attr
	if _, err := f.attr(&a); err != nil {
		return 0, err
	}
	sum := w.wasteOne(f, &a)
	err := w.unordered(f, "/", func(f *found, _ string) error {
		n, err := w.waste(f)
		sum += n
		return err
	})
	return sum, err
}

// wasteOne is waste of an inode without what is below it. A hard link is wasted with its last name.
func (w *walk) wasteOne(f *found, a *overlay.Attr) int64 {
	if f.mode != unix.S_IFREG || f.flags&overlay.FlagLinked == 0 {
		return stored(a)
	}
	if w.s.gone[f.ref]++; w.s.gone[f.ref] < a.Nlink {
		return 0
	}
	delete(w.s.gone, f.ref)
	return stored(a)
}
