package tarlayer

import (
	"fmt"
	"os"
	"syscall"

	"github.com/plyfs/plyfs/overlay"
	"golang.org/x/sys/unix"
)

// Layer is a layer whose tree is told by an index and whose data lies in a tar. It implements [overlay.Layer]; its
// entries cost no memory, and Lookup, Attr, ReadDir and Data allocate none. Every access to the index is checked
// against its bounds, so a damaged one gives [overlay.ErrCorrupt] where the damage is met.
//
// The index must not be cut short while it is mapped: reading past its end would be a SIGBUS, which ends the process.
// Whoever owns the store keeps to writing indexes anew and renaming them into place.
type Layer struct {
	id   uint64
	m    []byte // the mapped index
	head fileHeader
	tar  *os.File
	fd   int
}

var _ overlay.Layer = (*Layer)(nil)

// Open maps an index and pairs it with the tar it was made from. Once it succeeds the layer owns tar and closes it;
// idx stays the caller's and may be closed at once. id is what ID returns. The work does not grow with the layer: only
// the header's checksum and the bounds of the tables are looked at. The error is [ErrStale] for an index of another
// version or of a tar of another size, and [overlay.ErrCorrupt] for a damaged one; either can be built again.
func Open(idx, tar *os.File, id uint64) (*Layer, error) {
	st, err := idx.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening a layer index: %w", err)
	}
	tst, err := tar.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening a layer: %w", err)
	}
	if st.Size() < headerSize || st.Size() > maxIndexSize {
		return nil, corrupt("the index has %d bytes", st.Size())
	}
	m, err := unix.Mmap(int(idx.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping the layer index %s: %w", idx.Name(), err)
	}
	l := &Layer{id: id, m: m, tar: tar, fd: int(tar.Fd())}
	if err := l.readHeader(tst.Size()); err != nil {
		_ = unix.Munmap(m)
		return nil, err
	}
	return l, nil
}

func (l *Layer) readHeader(tarSize int64) error {
	if string(l.m[:8]) != magic {
		return corrupt("the index does not begin with %q", magic)
	}
	if v := le.Uint32(l.m[8:]); v != formatVersion {
		return fmt.Errorf("%w: it has format version %d, this plyfs writes %d", ErrStale, v, formatVersion)
	}
	h, ok := decodeHeader(l.m[:headerSize])
	if !ok {
		return corrupt("the index's header has a wrong checksum")
	}
	chunks := (uint64(h.inodes) + chunkLen - 1) / chunkLen
	switch {
	case h.indexSize != uint64(len(l.m)):
		return corrupt("the index has %d bytes, its header says %d", len(l.m), h.indexSize)
	case h.inodes == 0 || h.live == 0 || h.live > h.inodes:
		return corrupt("the index counts %d inodes of %d", h.live, h.inodes)
	case !inside(uint64(h.chunkTable), chunks*4, h.indexSize):
		return corrupt("the index's inode table lies outside of it")
	case !inside(uint64(h.childTable), uint64(h.children)*childSize, h.indexSize):
		return corrupt("the index's table of names lies outside of it")
	case tarSize < 0 || h.tarSize != uint64(tarSize):
		return fmt.Errorf("%w: the layer has %d bytes, the index is of one with %d", ErrStale, tarSize, h.tarSize)
	}
	l.head = h
	return nil
}

// inside tells whether n bytes at offset at lie after the header of a file of a size.
func inside(at, n, size uint64) bool { return at >= headerSize && at <= size && n <= size-at }

// corrupt makes an error that wraps overlay.ErrCorrupt.
func corrupt(format string, a ...any) error {
	return fmt.Errorf("%w: %s", overlay.ErrCorrupt, fmt.Sprintf(format, a...))
}

// bytes returns a piece of the index.
func (l *Layer) bytes(at, n uint64) ([]byte, error) {
	if !inside(at, n, uint64(len(l.m))) {
		return nil, corrupt("an offset leads out of the index")
	}
	return l.m[at : at+n : at+n], nil
}

// inode reads the record of an entry. A record that no entry can have is ESTALE, as it would be from a file handle.
func (l *Layer) inode(e overlay.Entry, n *inode) error {
	if uint64(e) >= uint64(l.head.inodes) {
		return syscall.ESTALE
	}
	slot, err := l.bytes(uint64(l.head.chunkTable)+uint64(e>>chunkShift)*4, 4)
	if err != nil {
		return err
	}
	b, err := l.bytes(uint64(le.Uint32(slot))+uint64(e&(chunkLen-1))*inodeSize, inodeSize)
	if err != nil {
		return err
	}
	n.decode(b)
	if n.mode == 0 {
		return syscall.ESTALE
	}
	return nil
}

// ID implements [overlay.Layer].
func (l *Layer) ID() uint64 { return l.id }

// Forget implements [overlay.Layer]: there is nothing to give back.
func (l *Layer) Forget(overlay.Entry) {}

// RootOpaque reports whether the layer hides all that lies below it: its root has an opaque marker.
func (l *Layer) RootOpaque() bool {
	var n inode
	return l.inode(overlay.RootEntry, &n) == nil && n.flags&inodeOpaque != 0
}

// Implied reports whether an entry is a directory that the archive does not list, but only has something below: what a
// lower layer says of the directory's owner, mode, times and xattrs stands, and Attr's answer only without one.
func (l *Layer) Implied(e overlay.Entry) bool {
	var n inode
	return l.inode(e, &n) == nil && n.mode&unix.S_IFMT == unix.S_IFDIR && n.flags&inodeImplied != 0
}

// Entries returns how many inodes the layer's tree has, its root included.
func (l *Layer) Entries() int { return int(l.head.live) }

// FilesSize returns how many bytes the layer's regular files have, holes included, hard links counted once.
func (l *Layer) FilesSize() int64 { return int64(l.head.filesSize) } //nolint:gosec // shown, not reckoned with

// Attr implements [overlay.Layer].
func (l *Layer) Attr(e overlay.Entry, a *overlay.Attr) error {
	var n inode
	if err := l.inode(e, &n); err != nil {
		return err
	}
	*a = overlay.Attr{
		Ino: uint64(e) + 1, Mode: uint32(n.mode), Nlink: n.nlink, UID: n.uid, GID: n.gid, Blksize: 4096,
		Mtime: n.mtime, Atime: n.mtime, Ctime: n.mtime,
	}
	switch n.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		a.Size, a.Blocks = 4096, 8
	case unix.S_IFREG:
		if n.a > maxFileSize {
			return corrupt("a file has %d bytes", n.a)
		}
		a.Size, a.Blocks = n.a, (n.a+511)/512
		if n.flags&inodeSparse != 0 {
			b, err := l.bytes(n.b, 16)
			if err != nil {
				return err
			}
			a.Blocks = min(a.Blocks, le.Uint64(b)/512+1)
		}
	case unix.S_IFLNK:
		a.Size = n.a
	case unix.S_IFCHR, unix.S_IFBLK:
		a.Rdev = uint32(n.a) //nolint:gosec // 32 bits are the format
	case unix.S_IFIFO:
	default:
		return corrupt("entry %d has mode %#o", e, n.mode)
	}
	if n.extra != 0 {
		b, err := l.bytes(uint64(n.extra), extraSize)
		if err != nil {
			return err
		}
		a.Atime = overlay.Timespec{Sec: int64(le.Uint64(b)), Nsec: le.Uint32(b[8:])}       //nolint:gosec // two's complement
		a.Ctime = overlay.Timespec{Sec: int64(le.Uint64(b[12:])), Nsec: le.Uint32(b[20:])} //nolint:gosec // two's complement
	}
	if max(a.Mtime.Nsec, a.Atime.Nsec, a.Ctime.Nsec) >= 1e9 {
		return corrupt("entry %d has a time that is none", e)
	}
	return nil
}

// Close implements [overlay.Layer].
func (l *Layer) Close() error {
	err := unix.Munmap(l.m)
	l.m = nil
	if cerr := l.tar.Close(); err == nil {
		err = cerr
	}
	return err
}
