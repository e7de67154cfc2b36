package container

import (
	"errors"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layerstore"
	"github.com/plyfs/plyfs/layerstore/tarwrite"
	"github.com/plyfs/plyfs/overlay"
)

// unionTree is a container's tree merged without a mount.
type unionTree struct {
	u    *overlay.Union
	lock *layerstore.Lock // keeps it from being mounted or removed meanwhile; nil of a container that nobody can change
}

func (t *unionTree) close() error {
	err := t.u.Close()
	if t.lock != nil {
		err = errors.Join(err, t.lock.Release())
	}
	return err
}

func (t *unionTree) list(dir node, emit func(name string)) error {
	return t.u.ReadDir(overlay.ID(dir), overlay.CookieDotDot, func(e *overlay.ListEntry) bool {
		emit(e.Name)
		return true
	})
}

func (t *unionTree) find(dir node, name string, a *overlay.Attr) (node, error) {
	if name == "" {
		return node(overlay.RootID), t.u.GetAttr(overlay.RootID, a)
	}
	id, err := t.u.Lookup(overlay.ID(dir), name, a)
	return node(id), err
}

func (t *unionTree) release(n node) {
	if overlay.ID(n) != overlay.RootID {
		t.u.Forget(overlay.ID(n), 1)
	}
}

func (t *unionTree) readlink(n node) (string, error) { return t.u.Readlink(overlay.ID(n)) }

func (t *unionTree) xattrs(n node) ([]tarwrite.Xattr, error) {
	id := overlay.ID(n)
	return readXattrs(
		func(buf []byte) (int, error) { return t.u.ListXattr(id, buf) },
		func(name string, buf []byte) (int, error) { return t.u.GetXattr(id, name, buf) },
	)
}

func (t *unionTree) open(n node) (file, error) { return unionFile{t.u, overlay.ID(n)}, nil }

// unionFile is a regular file of a union.
type unionFile struct {
	u  *overlay.Union
	id overlay.ID
}

// Close implements [io.Closer]: there is nothing to give back.
func (f unionFile) Close() error { return nil }

func (f unionFile) seek(off int64, whence int) (int64, error) { return f.u.Seek(f.id, off, whence) }

// ReadAt implements [io.ReaderAt].
func (f unionFile) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		k, err := f.readRun(p[n:], off+int64(n))
		if err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// readRun reads from the stretch of data that begins at off.
func (f unionFile) readRun(p []byte, off int64) (int, error) {
	run, err := f.u.Data(f.id, off)
	if err != nil {
		return 0, err
	}
	if run.Ref != nil {
		defer run.Ref.Release()
	}
	if run.Len == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), run.Len)]
	if run.FD < 0 {
		clear(p)
		return len(p), nil
	}
	n, err := unix.Pread(run.FD, p, run.Pos)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Pread(run.FD, p, run.Pos)
	}
	if err == nil && n == 0 {
		if err = f.u.CheckEnd(f.id, off); err == nil {
			err = io.EOF
		}
	}
	return max(n, 0), err
}

const (
	maxXattrList  = 1 << 20 // bytes of the names of an inode's xattrs; Linux itself takes 64 KiB (XATTR_LIST_MAX)
	maxXattrValue = 64 << 10
)

// readXattrs reads all xattrs that go into an archive. A security label belongs to the host.
func readXattrs(list func(buf []byte) (int, error), get func(name string, buf []byte) (int, error)) ([]tarwrite.Xattr, error) {
	names, err := readGrowing(maxXattrList, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var xattrs []tarwrite.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if name == "security.selinux" || name == "" {
			continue
		}
		v, err := readGrowing(maxXattrValue, func(buf []byte) (int, error) { return get(name, buf) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, err
		}
		xattrs = append(xattrs, tarwrite.Xattr{Name: name, Value: v})
	}
	return xattrs, nil
}

// readGrowing reads what tells its length when it is given no room.
func readGrowing(limit int, read func(buf []byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		if n > limit {
			return nil, unix.E2BIG
		}
		buf := make([]byte, n)
		if n, err = read(buf); !errors.Is(err, unix.ERANGE) {
			return buf[:max(n, 0)], err
		}
	}
}
