package tarlayer

import (
	"hash/crc32"
	"strings"

	"github.com/plyfs/plyfs/overlay"
	"golang.org/x/sys/unix"
)

// Verify reads the whole index and makes sure that its checksum is right and that it is one that [Build] could have
// written: every name in its place and order, every link count true, every offset inside the index or the tar. It
// needs 4 bytes of memory for each inode. The error wraps [overlay.ErrCorrupt].
func (l *Layer) Verify() error {
	if crc32.Checksum(l.m[headerSize:], castagnoli) != l.head.bodyCRC {
		return corrupt("the index has a wrong checksum")
	}
	v := verifier{Layer: l, refs: make([]uint32, l.head.inodes)}
	v.refs[0] = 1
	for i := range l.head.inodes {
		if err := v.inodeRecord(overlay.Entry(i)); err != nil {
			return err
		}
	}
	switch {
	case v.live != l.head.live:
		return corrupt("the index counts %d inodes, its header says %d", v.live, l.head.live)
	case v.children != l.head.children:
		return corrupt("the index lists %d names, its header says %d", v.children, l.head.children)
	case v.filesSize != l.head.filesSize:
		return corrupt("the index counts %d bytes of files, its header says %d", v.filesSize, l.head.filesSize)
	}
	return v.linkCounts()
}

type verifier struct {
	*Layer
	refs           []uint32 // how many names an inode has
	live, children uint32
	filesSize      uint64
}

// inodeRecord checks one inode, and if it is a directory its listing.
func (v *verifier) inodeRecord(e overlay.Entry) error {
	slot, err := v.bytes(uint64(v.head.chunkTable)+uint64(e>>chunkShift)*4, 4)
	if err != nil {
		return err
	}
	b, err := v.bytes(uint64(le.Uint32(slot))+uint64(e&(chunkLen-1))*inodeSize, inodeSize)
	if err != nil {
		return err
	}
	if [inodeSize]byte(b) == [inodeSize]byte{} {
		return nil // replaced by a later entry
	}
	v.live++
	var n inode
	n.decode(b)
	if n.mode == 0 {
		return corrupt("dead inode %d is not empty", e)
	}
	var a overlay.Attr
	if err := v.Attr(e, &a); err != nil {
		return err
	}
	if err := v.xattrs(e); err != nil {
		return err
	}
	switch n.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return v.directory(e, &n)
	case unix.S_IFLNK:
		target, err := v.Readlink(e)
		if err == nil && (target == "" || strings.IndexByte(target, 0) >= 0) {
			err = corrupt("symlink %d has no target", e)
		}
		return err
	case unix.S_IFREG:
		v.filesSize += n.a
		return v.data(e, &n)
	}
	return nil
}

// data checks that all of a file's data lies in the tar.
func (v *verifier) data(e overlay.Entry, n *inode) error {
	if n.flags&inodeSparse == 0 {
		_, err := v.Data(e, 0)
		return err
	}
	recs, stored, err := v.extents(n.b)
	if err != nil {
		return err
	}
	end, sum := int64(0), uint64(0)
	for i := range len(recs) / extentSize {
		x, err := v.extentAt(recs, i, int64(n.a)) //nolint:gosec // Attr has bounded it
		if err != nil {
			return err
		}
		if x.off < end {
			return corrupt("file %d has extents out of order", e)
		}
		end = x.off + x.len
		sum += uint64(x.len) //nolint:gosec // positive
	}
	if sum != stored {
		return corrupt("file %d has %d bytes of data, not %d", e, sum, stored)
	}
	return nil
}

// xattrs checks that an entry's xattrs are in order and have names that can be.
func (v *verifier) xattrs(e overlay.Entry) error {
	last, bad := "", false
	err := v.xattrBlock(e, func(name, value []byte) bool {
		s := alias(name)
		bad = bad || s <= last || strings.IndexByte(s, 0) >= 0 || reservedXattr(name) || len(value) > maxXattrLen
		last = s
		return bad
	})
	if err == nil && bad {
		err = corrupt("entry %d has xattrs out of order", e)
	}
	return err
}

// directory checks a listing: it follows the one before it, it is sorted, and its names stand for what they say.
func (v *verifier) directory(e overlay.Entry, n *inode) error {
	at, _ := n.children()
	if at != v.children {
		return corrupt("directory %d does not list the names that are next", e)
	}
	s, err := v.listing(e)
	if err != nil {
		return err
	}
	var last child
	var lastName string
	subdirs := uint32(0)
	for i := range s.len() {
		var c child
		c.decode(s.recs[i*childSize:])
		name, err := s.name(&c)
		if err != nil {
			return err
		}
		if c.cookie != overlay.Cookie(name) || c.cookie < last.cookie || (c.cookie == last.cookie && name <= lastName) {
			return corrupt("directory %d has %q out of order", e, name)
		}
		last, lastName = c, name
		dir, err := v.child(&s, &c, name)
		if err != nil {
			return err
		}
		subdirs += dir
	}
	v.children += uint32(s.len()) //nolint:gosec // at most head.children, since each listing follows the last
	if n.nlink != 2+subdirs {
		return corrupt("directory %d has %d links, not %d", e, n.nlink, 2+subdirs)
	}
	return nil
}

// child checks that a name says of its inode what the inode's record says. It returns 1 for a directory.
func (v *verifier) child(s *listing, c *child, name string) (dir uint32, err error) {
	if c.entry == noEntry {
		if c.typ != 0 || c.flags != 0 {
			return 0, corrupt("the whiteout of %q has a type", name)
		}
		return 0, nil
	}
	it, err := s.item(c, name)
	if err != nil {
		return 0, err
	}
	var n inode
	if err := v.inode(it.Entry, &n); err != nil {
		return 0, corrupt("%q stands for no entry", name)
	}
	v.refs[c.entry]++
	want := overlay.ItemFlags(0)
	switch isDir := it.Mode == unix.S_IFDIR; {
	case isDir && n.flags&inodeOpaque != 0:
		want = overlay.FlagOpaque
	case !isDir && n.nlink > 1:
		want = overlay.FlagLinked
	}
	if uint32(n.mode)&unix.S_IFMT != it.Mode || overlay.ItemFlags(c.flags) != want {
		return 0, corrupt("%q says something else than its inode", name)
	}
	if it.Mode == unix.S_IFDIR {
		dir = 1
	}
	return dir, nil
}

// linkCounts checks that every inode has as many names as it says.
func (v *verifier) linkCounts() error {
	for i, refs := range v.refs {
		var n inode
		if v.inode(overlay.Entry(i), &n) != nil {
			if refs != 0 {
				return corrupt("%d names stand for the dead inode %d", refs, i)
			}
			continue
		}
		if want := n.nlink; n.mode&unix.S_IFMT == unix.S_IFDIR && refs != 1 || n.mode&unix.S_IFMT != unix.S_IFDIR && refs != want {
			return corrupt("inode %d has %d names, not %d", i, refs, want)
		}
	}
	return nil
}
