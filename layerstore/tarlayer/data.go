package tarlayer

import (
	"sort"
	"syscall"

	"github.com/plyfs/plyfs/overlay"
	"golang.org/x/sys/unix"
)

// Readlink implements [overlay.Layer].
func (l *Layer) Readlink(e overlay.Entry) (string, error) {
	var n inode
	if err := l.inode(e, &n); err != nil {
		return "", err
	}
	if n.mode&unix.S_IFMT != unix.S_IFLNK {
		return "", syscall.EINVAL
	}
	b, err := l.bytes(n.b, n.a)
	return alias(b), err
}

// Data implements [overlay.Layer]. The runs of a file with holes are data and holes in turn.
func (l *Layer) Data(e overlay.Entry, off int64) (overlay.Run, error) {
	var n inode
	if err := l.inode(e, &n); err != nil {
		return overlay.Run{}, err
	}
	switch n.mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return overlay.Run{}, syscall.EISDIR
	default:
		return overlay.Run{}, syscall.EINVAL
	}
	if off < 0 {
		return overlay.Run{}, syscall.EINVAL
	}
	if n.a > maxFileSize {
		return overlay.Run{}, corrupt("a file has %d bytes", n.a)
	}
	size := int64(n.a)
	if off >= size {
		return overlay.Run{FD: -1}, nil
	}
	if n.flags&inodeSparse != 0 {
		return l.sparseRun(n.b, size, off)
	}
	if n.b > l.head.tarSize || n.a > l.head.tarSize-n.b {
		return overlay.Run{}, corrupt("a file's data lies outside of the layer")
	}
	return overlay.Run{FD: l.fd, Pos: int64(n.b) + off, Len: size - off}, nil //nolint:gosec // bounded by the tar
}

// extents returns the table of a sparse file's extents, and how many bytes of data it says there are.
func (l *Layer) extents(at uint64) (recs []byte, data uint64, err error) {
	b, err := l.bytes(at, 16)
	if err != nil {
		return nil, 0, err
	}
	k := le.Uint64(b[8:])
	if k > maxIndexSize/extentSize {
		return nil, 0, corrupt("a file has %d extents", k)
	}
	recs, err = l.bytes(at+16, k*extentSize)
	return recs, le.Uint64(b), err
}

// extentAt reads an extent and makes sure that it lies inside the file and inside the tar.
func (l *Layer) extentAt(recs []byte, i int, size int64) (extent, error) {
	b := recs[i*extentSize : (i+1)*extentSize]
	off, n, pos := le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:])
	if off > uint64(size) || n == 0 || n > uint64(size)-off || pos > l.head.tarSize || n > l.head.tarSize-pos { //nolint:gosec // size >= 0
		return extent{}, corrupt("a sparse file's data lies outside of it")
	}
	return extent{off: int64(off), len: int64(n), pos: int64(pos)}, nil //nolint:gosec // bounded
}

func (l *Layer) sparseRun(at uint64, size, off int64) (overlay.Run, error) {
	recs, _, err := l.extents(at)
	if err != nil {
		return overlay.Run{}, err
	}
	k := len(recs) / extentSize
	i := sort.Search(k, func(i int) bool { return le.Uint64(recs[i*extentSize:]) > uint64(off) }) //nolint:gosec // off >= 0
	if i > 0 {
		x, err := l.extentAt(recs, i-1, size)
		if err != nil {
			return overlay.Run{}, err
		}
		if d := off - x.off; d >= 0 && d < x.len {
			return overlay.Run{FD: l.fd, Pos: x.pos + d, Len: x.len - d}, nil
		}
	}
	end := size
	if i < k {
		x, err := l.extentAt(recs, i, size)
		if err != nil {
			return overlay.Run{}, err
		}
		end = x.off
	}
	if end <= off {
		return overlay.Run{}, corrupt("a sparse file's extents are out of order")
	}
	return overlay.Run{FD: -1, Len: end - off}, nil
}

// xattrBlock walks over an entry's xattrs until f says stop.
func (l *Layer) xattrBlock(e overlay.Entry, f func(name, value []byte) (stop bool)) error {
	var n inode
	if err := l.inode(e, &n); err != nil || n.extra == 0 {
		return err
	}
	b, err := l.bytes(uint64(n.extra), extraSize)
	if err != nil {
		return err
	}
	at := uint64(n.extra) + extraSize
	for range le.Uint16(b[extraSize-2:]) {
		head, err := l.bytes(at, 5)
		if err != nil {
			return err
		}
		nameLen, valueLen := uint64(head[0]), uint64(le.Uint32(head[1:]))
		name, err := l.bytes(at+5, nameLen)
		if err != nil {
			return err
		}
		value, err := l.bytes(at+5+nameLen, valueLen)
		if err != nil {
			return err
		}
		if f(name, value) {
			return nil
		}
		at += 5 + nameLen + valueLen
	}
	return nil
}

// Xattr implements [overlay.Layer].
func (l *Layer) Xattr(e overlay.Entry, name string) ([]byte, error) {
	var found []byte
	ok := false
	err := l.xattrBlock(e, func(n, v []byte) bool {
		if ok = string(n) == name; ok {
			found = v
		}
		return ok
	})
	if err == nil && !ok {
		err = syscall.ENODATA
	}
	return found, err
}

// Xattrs implements [overlay.Layer].
func (l *Layer) Xattrs(e overlay.Entry) ([]string, error) {
	var names []string
	err := l.xattrBlock(e, func(n, _ []byte) bool {
		names = append(names, alias(n))
		return false
	})
	return names, err
}
