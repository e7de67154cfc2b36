package tarlayer

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// inodeOf makes the inode record of an entry, and writes out what does not fit into it: link target, extents, xattrs
// and times that differ from the mtime.
func (b *builder) inodeOf(h *header) (inode, error) {
	rec := inode{mode: uint16(h.mode), mtime: h.mtime, uid: h.uid, gid: h.gid} //nolint:gosec // 12 bits
	var err error
	switch h.typ {
	case typeRegOld, typeReg, typeCont, typeSparse:
		if h.typ == typeRegOld && bytes.HasSuffix(h.name, []byte{'/'}) {
			rec.mode |= unix.S_IFDIR // so V7 tar marked directories
			break
		}
		rec.mode |= unix.S_IFREG
		rec.a, rec.b = uint64(h.size), uint64(h.pos) //nolint:gosec // not negative
		if h.sparse {
			rec.flags |= inodeSparse
			rec.b, err = b.writeExtents(h)
		}
	case typeSymlink:
		rec.mode |= unix.S_IFLNK
		rec.a, rec.b, err = b.writeTarget(h)
	case typeChar, typeBlock:
		rec.mode |= unix.S_IFCHR
		if h.typ == typeBlock {
			rec.mode = rec.mode&^unix.S_IFMT | unix.S_IFBLK
		}
		rec.a = uint64(h.minor&0xff | h.major<<8 | h.minor&^0xff<<12) // new_encode_dev of linux/kdev_t.h
	case typeFifo:
		rec.mode |= unix.S_IFIFO
	case typeDir:
		rec.mode |= unix.S_IFDIR
	default:
		return rec, fmt.Errorf("its type %q is not one that a layer can hold", h.typ)
	}
	if err == nil {
		rec.extra, err = b.writeExtra(h)
	}
	return rec, err
}

func (b *builder) writeTarget(h *header) (size, at uint64, err error) {
	if len(h.link) == 0 {
		return 0, 0, errors.New("it is a symlink without a target")
	}
	if len(h.link) > b.lim.MaxLinkLen {
		return 0, 0, fmt.Errorf("%w: its symlink target has %d bytes, more than %d", ErrTooLarge, len(h.link), b.lim.MaxLinkLen)
	}
	off, err := b.out.append(h.link)
	return uint64(len(h.link)), uint64(off), err
}

// writeExtents writes how much data a sparse file has, how many extents, and the extents.
func (b *builder) writeExtents(h *header) (uint64, error) {
	buf := le.AppendUint64(b.blob[:0], uint64(h.stored)) //nolint:gosec // not negative
	buf = le.AppendUint64(buf, uint64(len(h.extents)))
	for _, x := range h.extents {
		buf = le.AppendUint64(buf, uint64(x.off)) //nolint:gosec // not negative
		buf = le.AppendUint64(buf, uint64(x.len)) //nolint:gosec // not negative
		buf = le.AppendUint64(buf, uint64(x.pos)) //nolint:gosec // not negative
	}
	b.blob = buf
	off, err := b.out.append(buf)
	return uint64(off), err
}

// writeExtra writes an entry's extra block, or returns 0 when it needs none.
func (b *builder) writeExtra(h *header) (uint32, error) {
	if len(h.xattrs) == 0 && h.atime == h.mtime && h.ctime == h.mtime {
		return 0, nil
	}
	slices.SortFunc(h.xattrs, func(x, y xattr) int { return bytes.Compare(x.name, y.name) })
	buf := le.AppendUint64(b.blob[:0], uint64(h.atime.Sec)) //nolint:gosec // two's complement is the format
	buf = le.AppendUint32(buf, h.atime.Nsec)
	buf = le.AppendUint64(buf, uint64(h.ctime.Sec)) //nolint:gosec // two's complement is the format
	buf = le.AppendUint32(buf, h.ctime.Nsec)
	buf = le.AppendUint16(buf, uint16(len(h.xattrs))) //nolint:gosec // at most maxXattrCount
	for _, x := range h.xattrs {
		buf = append(buf, uint8(len(x.name)))            //nolint:gosec // at most 255
		buf = le.AppendUint32(buf, uint32(len(x.value))) //nolint:gosec // at most 64 KiB
		buf = append(buf, x.name...)
		buf = append(buf, x.value...)
	}
	b.blob = buf
	return b.out.append(buf)
}
