// Package changes tells what each layer of an image does to the tree of those below it, and how the trees of two images
// differ. It reads the indexes of layers alone, no data, and holds no more of a tree than a window of one directory for each
// level and a few bytes for each hard link.
package changes

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// Kind says what was done to a path.
type Kind byte

// The kinds of a Change, by docker's letters.
const (
	Added   Kind = 'A' // there was none
	Changed Kind = 'C' // something else stands there, or a directory has other attributes
	Deleted Kind = 'D' // it is hidden by a whiteout, or in the other image there is none
)

// Change is one difference. A directory that is new or gone is one change with all that is below it, unless all is asked for.
type Change struct {
	Kind   Kind
	Path   string // absolute, as the layer spells it: untrusted bytes
	Mode   uint32 // as in stat(2): of what is there now or, of what is deleted, was
	Size   int64  // bytes of data, holes not counted, each hard link counted once: what is there now or, of what is deleted, was
	Wasted int64  // bytes of lower layers that no name shows any more because of this change
	Count  int    // entries that the change stands for, at least 1
}

// Totals are sums over the changes of a layer.
type Totals struct {
	Added, Changed, Deleted int   // entries, directories included
	Size                    int64 // bytes of data of the layer's files
	Wasted                  int64
}

// ref is a directory of one layer.
type ref struct {
	layer overlay.Layer
	entry overlay.Entry
}

// found is what a name shows in a stack of layers.
type found struct {
	ref          // the topmost inode
	mode  uint32 // S_IFMT
	flags overlay.ItemFlags
	dirs  []ref // of a directory: those that show through, top first
}

func (f *found) isDir() bool { return f.mode == unix.S_IFDIR }

// roots are the root directories of layers, bottom first, that show through.
func roots(layers []overlay.Layer) []ref {
	var dirs []ref
	for _, l := range slices.Backward(layers) {
		dirs = append(dirs, ref{l, overlay.RootEntry})
		if x, ok := l.(interface{ RootOpaque() bool }); ok && x.RootOpaque() {
			break
		}
	}
	return dirs
}

// lookup finds a name in directories that are merged; nil if there is none.
func lookup(dirs []ref, name string) (*found, error) {
	var f *found
	for _, d := range dirs {
		it, err := d.layer.Lookup(d.entry, name)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		isDir := it.Mode == unix.S_IFDIR
		if it.IsWhiteout() || f != nil && !isDir {
			break
		}
		if f == nil {
			f = &found{ref: ref{d.layer, it.Entry}, mode: it.Mode, flags: it.Flags}
			if !isDir {
				break
			}
		}
		f.dirs = append(f.dirs, ref{d.layer, it.Entry})
		if it.Flags&overlay.FlagOpaque != 0 {
			break
		}
	}
	return f, nil
}

// list calls emit for the names in one directory, whiteouts included.
func list(ctx context.Context, d ref, emit func(e *overlay.DirEntry) error) error {
	var buf [128]overlay.DirEntry
	after := uint64(0)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := d.layer.ReadDir(d.entry, after, buf[:])
		if err != nil {
			return err
		}
		for i := range buf[:n] {
			if err := emit(&buf[i]); err != nil {
				return err
			}
		}
		if n < len(buf) {
			return nil
		}
		after = buf[n-1].Cookie
	}
}

// visible calls emit for the names that merged directories show, each once, in no order that means something.
func visible(ctx context.Context, dirs []ref, emit func(name string) error) error {
	for i, d := range dirs {
		err := list(ctx, d, func(e *overlay.DirEntry) error {
			if e.IsWhiteout() {
				return nil
			}
			for _, above := range dirs[:i] {
				if _, err := above.layer.Lookup(above.entry, e.Name); !errors.Is(err, syscall.ENOENT) {
					return err
				}
			}
			return emit(e.Name)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// attr fills in what shows of an inode: of a directory that its topmost layer does not list itself, what a lower one says.
// implied is true if none says anything.
func (f *found) attr(a *overlay.Attr) (implied bool, err error) {
	at := f.ref
	if f.isDir() {
		implied = true
		for _, d := range f.dirs {
			if x, ok := d.layer.(interface{ Implied(e overlay.Entry) bool }); !ok || !x.Implied(d.entry) {
				at, implied = d, false
				break
			}
		}
	}
	return implied, at.layer.Attr(at.entry, a)
}

// shown is the inode whose attributes show.
func (f *found) shown() ref {
	for _, d := range f.dirs {
		if x, ok := d.layer.(interface{ Implied(e overlay.Entry) bool }); !ok || !x.Implied(d.entry) {
			return d
		}
	}
	return f.ref
}

// stored is how much data of a file a layer holds.
func stored(a *overlay.Attr) int64 {
	if a.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	return int64(min(a.Size, a.Blocks*512, 1<<60))
}

// same reports whether two inodes look alike: all that stat and the index tell but, of directories, the time and size. Data
// are not read: two files of one size and time are taken for the same.
func same(a, b *found) (bool, error) {
	if a.ref == b.ref && !a.isDir() {
		return true, nil
	}
	x, y := a.shown(), b.shown()
	if x == y {
		return true, nil
	}
	var s, t overlay.Attr
	if err := errors.Join(x.layer.Attr(x.entry, &s), y.layer.Attr(y.entry, &t)); err != nil {
		return false, err
	}
	if s.Mode != t.Mode || s.UID != t.UID || s.GID != t.GID || s.Rdev != t.Rdev {
		return false, nil
	}
	if !a.isDir() && (s.Size != t.Size || s.Mtime != t.Mtime) {
		return false, nil
	}
	if a.mode == unix.S_IFLNK {
		to, err1 := x.layer.Readlink(x.entry)
		too, err2 := y.layer.Readlink(y.entry)
		if err := errors.Join(err1, err2); err != nil || to != too {
			return false, err
		}
	}
	return sameXattrs(x, y)
}

func sameXattrs(x, y ref) (bool, error) {
	names, err1 := x.layer.Xattrs(x.entry)
	other, err2 := y.layer.Xattrs(y.entry)
	if err := errors.Join(err1, err2); err != nil || len(names) != len(other) {
		return false, err
	}
	for _, n := range names {
		v, err := x.layer.Xattr(x.entry, n)
		if err != nil {
			return false, err
		}
		w, err := y.layer.Xattr(y.entry, n)
		if errors.Is(err, syscall.ENODATA) {
			return false, nil
		}
		if err != nil || !bytes.Equal(v, w) {
			return false, err
		}
	}
	return true, nil
}

// join is a path below an absolute one. Names are those of an index, which has no "." and no slash in them.
func join(dir, name string) string {
	if dir == "/" {
		return dir + name
	}
	return dir + "/" + name
}
