package changes

import (
	"context"
	"slices"

	"github.com/plyfs/plyfs/overlay"
)

// Diff calls emit for what differs between the trees of two images, given by their layers, bottom first, in the order of the
// paths: Added is what only b has, Deleted what only a has. A layer that both have must be the same value in both; what
// comes from it in both is not looked at. Files are compared by what the indexes tell: type, mode, owner, size, time, device,
// target and xattrs. The totals' Wasted is 0. Errors: those of Stack.Next.
func Diff(ctx context.Context, a, b []overlay.Layer, o Options, emit func(c *Change) error) (Totals, error) {
	w := &walk{ctx: ctx, s: NewStack(nil), o: o, emit: emit}
	err := w.compare(roots(a), roots(b), "/")
	return w.Totals, err
}

// compare tells how two merged directories differ.
func (w *walk) compare(a, b []ref, p string) error {
	if slices.Equal(a, b) {
		return nil
	}
	return w.each(func(emit func(string) error) error {
		if err := visible(w.ctx, a, emit); err != nil {
			return err
		}
		return visible(w.ctx, b, func(name string) error {
			if f, err := lookup(a, name); err != nil || f != nil {
				return err
			}
			return emit(name)
		})
	}, func(name string) error {
		return at(w.compareName(a, b, name, join(p, name)), join(p, name))
	})
}

func (w *walk) compareName(a, b []ref, name, p string) error {
	x, err := lookup(a, name)
	if err != nil {
		return err
	}
	y, err := lookup(b, name)
	if err != nil {
		return err
	}
	switch {
	case x == nil && y == nil:
		return nil
	case x == nil:
		return w.added(y, p)
	case y == nil:
		return w.removed(x, p)
	case x.mode == y.mode:
		alike, err := same(x, y)
		if err == nil && !alike {
			var c *Change
			if c, err = w.change(Changed, y, p); err == nil {
				err = w.tell(c)
			}
		}
		if err != nil || !x.isDir() {
			return err
		}
		return w.compare(x.dirs, y.dirs, p)
	}
	c, err := w.change(Changed, y, p)
	if err == nil {
		err = w.tell(c)
	}
	if err != nil || !y.isDir() {
		return err
	}
	return w.compare(nil, y.dirs, p) // a directory that stands where a file was
}

// removed tells of something that the second image does not have. Nothing is wasted by that.
func (w *walk) removed(f *found, p string) error {
	return w.whole(Deleted, f, p, func(f *found, p string) (*Change, error) { return w.change(Deleted, f, p) })
}
