package overlay

import (
	"cmp"
	"errors"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// snapshot is the listing of an upper directory, ordered by cookie. A listing that has begun may go on with an old
// snapshot, since a cookie means the same in all of them; one that begins takes a snapshot of the present.
type snapshot struct {
	version uint64 // of the directory when it was read
	entries []snapEntry
	names   []byte
}

type snapEntry struct {
	cookie uint64
	ino    uint64
	off    uint32 // of the name in names
	nlen   uint8
	typ    uint8 // DT_…, dtWhiteout
}

const dtWhiteout = 14 // DT_WHT of dirent.h

func (s *snapshot) name(e *snapEntry) string {
	return unsafe.String(&s.names[e.off], int(e.nlen))
}

func compareNames(cookieA uint64, a string, cookieB uint64, b string) int {
	return cmp.Or(cmp.Compare(cookieA, cookieB), cmp.Compare(a, b))
}

// listUpper returns the names in the upper directory of d, of which h is the descriptor; dots says that files may be
// whiteouts, over what files may stand for. The caller holds d.mu.
func listUpper(d *dir, h *openFile, fresh, dots bool, over overrides) (*snapshot, error) {
	v := d.version.Load()
	if s := d.snapshot.Load(); s != nil && (s.version == v || !fresh) {
		return s, nil
	}
	s := &snapshot{version: v}
	fd, err := openDir(h.fd, ".")
	if err != nil {
		return nil, err
	}
	err = readNames(fd, func(name string, ino uint64, typ uint8) error {
		if typ == unix.DT_CHR || typ == unix.DT_UNKNOWN || typ == unix.DT_REG && over.user() {
			if typ, err = over.typeOf(h.fd, name); err != nil {
				return ignoreMissing(err)
			}
		}
		s.entries = append(s.entries, snapEntry{
			Cookie(name), ino, uint32(len(s.names)), uint8(len(name)), typ, // #nosec G115 -- names are at most 255
		})
		s.names = append(s.names, name...)
		return nil
	})
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	if dots {
		s.readDots()
	}
	slices.SortFunc(s.entries, func(a, b snapEntry) int {
		return compareNames(a.cookie, s.name(&a), b.cookie, s.name(&b))
	})
	d.snapshot.Store(s)
	return s, nil
}

// typeOf tells a whiteout from a character device, and a file from what it stands for.
func (o overrides) typeOf(dirfd int, name string) (uint8, error) {
	var st unix.Stat_t
	p := place{dirfd, name}
	if err := p.stat(&st); err != nil {
		return 0, err
	}
	if hides, err := isWhiteout(p, &st); hides || err != nil {
		return dtWhiteout, err
	}
	if err := o.show(p, &st); err != nil && !errors.Is(err, ErrCorrupt) { // which a lookup tells of
		return 0, err
	}
	return uint8(st.Mode & unix.S_IFMT >> 12), nil // #nosec G115 -- four bits
}

// read is Layer.ReadDir for the snapshot.
func (s *snapshot) read(after uint64, buf []DirEntry) int {
	i, _ := slices.BinarySearchFunc(s.entries, after, func(e snapEntry, c uint64) int {
		if e.cookie <= c {
			return -1
		}
		return 1
	})
	n := 0
	for ; i < len(s.entries) && n < len(buf); i++ {
		e := &s.entries[i]
		buf[n] = DirEntry{Item: Item{Ino: e.ino}, Name: s.name(e), Cookie: e.cookie}
		if e.typ != dtWhiteout {
			buf[n].Mode = uint32(e.typ) << 12
		}
		n++
	}
	return n
}
