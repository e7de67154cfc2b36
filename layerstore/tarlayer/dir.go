package tarlayer

import (
	"bytes"
	"sort"
	"syscall"

	"github.com/plyfs/plyfs/overlay"
	"golang.org/x/sys/unix"
)

// listing is the stretch of the table of names that is one directory.
type listing struct {
	l    *Layer
	dir  uint32
	recs []byte
}

func (l *Layer) listing(e overlay.Entry) (listing, error) {
	var n inode
	if err := l.inode(e, &n); err != nil {
		return listing{}, err
	}
	if n.mode&unix.S_IFMT != unix.S_IFDIR {
		return listing{}, syscall.ENOTDIR
	}
	at, k := n.children()
	if uint64(at)+uint64(k) > uint64(l.head.children) {
		return listing{}, corrupt("directory %d has names outside of the table", e)
	}
	b, err := l.bytes(uint64(l.head.childTable)+uint64(at)*childSize, uint64(k)*childSize)
	return listing{l, uint32(e), b}, err //nolint:gosec // below inodes, see Layer.inode
}

func (s *listing) len() int { return len(s.recs) / childSize }

func (s *listing) cookie(i int) uint64 { return le.Uint64(s.recs[i*childSize:]) }

// search returns the first name whose cookie is at least c.
func (s *listing) search(c uint64) int {
	return sort.Search(s.len(), func(i int) bool { return s.cookie(i) >= c })
}

func (s *listing) name(c *child) (string, error) {
	b, err := s.l.bytes(uint64(c.name), uint64(c.nameLen))
	if err == nil && !validName(b) {
		return "", corrupt("directory %d has the name %s", s.dir, quote(b))
	}
	return alias(b), err
}

// validName tells whether a directory can hold a name.
func validName(b []byte) bool {
	return len(b) > 0 && string(b) != "." && string(b) != ".." && bytes.IndexByte(b, '/') < 0 && bytes.IndexByte(b, 0) < 0
}

// item tells what a name stands for. It makes sure that following directories can neither run in a circle nor come to
// one directory twice: each one's record tells the one place that it has, and nothing leads back to the root.
func (s *listing) item(c *child, text string) (overlay.Item, error) {
	if c.entry == noEntry {
		return overlay.Item{}, nil
	}
	if c.entry == 0 || c.entry >= s.l.head.inodes {
		return overlay.Item{}, corrupt("a name of directory %d stands for no entry", s.dir)
	}
	it := overlay.Item{
		Entry: overlay.Entry(c.entry), Ino: uint64(c.entry) + 1, Mode: uint32(c.typ&stateType) << 12,
		Flags: overlay.ItemFlags(c.flags) & (overlay.FlagOpaque | overlay.FlagLinked),
	}
	switch it.Mode {
	case unix.S_IFREG, unix.S_IFLNK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO:
	case unix.S_IFDIR:
		var n inode
		if err := s.l.inode(it.Entry, &n); err != nil {
			return overlay.Item{}, corrupt("a name of directory %d stands for no entry", s.dir)
		}
		parent, name := unpair(n.b)
		if n.mode&unix.S_IFMT != unix.S_IFDIR || parent != s.dir || name != c.name ||
			n.nameLen != c.nameLen || c.cookie != overlay.Cookie(text) {
			return overlay.Item{}, corrupt("directory %d is not where it says it is", c.entry)
		}
	default:
		return overlay.Item{}, corrupt("a name of directory %d has no type", s.dir)
	}
	return it, nil
}

// Lookup implements [overlay.Layer].
func (l *Layer) Lookup(dir overlay.Entry, name string) (overlay.Item, error) {
	s, err := l.listing(dir)
	if err != nil {
		return overlay.Item{}, err
	}
	cookie := overlay.Cookie(name)
	for i := s.search(cookie); i < s.len() && s.cookie(i) == cookie; i++ {
		var c child
		c.decode(s.recs[i*childSize:])
		got, err := s.name(&c)
		if err != nil {
			return overlay.Item{}, err
		}
		if got == name {
			return s.item(&c, got)
		}
	}
	return overlay.Item{}, syscall.ENOENT
}

// ReadDir implements [overlay.Layer].
func (l *Layer) ReadDir(dir overlay.Entry, after uint64, buf []overlay.DirEntry) (int, error) {
	s, err := l.listing(dir)
	if err != nil || after == ^uint64(0) {
		return 0, err
	}
	i := s.search(after + 1)
	k := 0
	for ; k < len(buf) && i < s.len(); i, k = i+1, k+1 {
		var c child
		c.decode(s.recs[i*childSize:])
		name, err := s.name(&c)
		if err != nil {
			return 0, err
		}
		if c.cookie < after || (c.cookie == after && (k == 0 || name <= buf[k-1].Name)) {
			return 0, corrupt("the names of directory %d are out of order", dir)
		}
		it, err := s.item(&c, name)
		if err != nil {
			return 0, err
		}
		buf[k] = overlay.DirEntry{Item: it, Name: name, Cookie: c.cookie}
		after = c.cookie
	}
	return k, nil
}
