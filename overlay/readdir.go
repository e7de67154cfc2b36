package overlay

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// ListEntry is one name of a directory as the union shows it.
type ListEntry struct {
	Name   string // valid while the Union is open
	Ino    uint64
	Mode   uint32 // S_IFMT
	Cookie uint64 // what a later ReadDir takes to go on after this entry
}

const batchLen = 64 // names fetched from a layer at a time

// cursor is the position in one layer's listing.
type cursor struct {
	layer int // index in Union.lowers, -1 for the upper layer
	entry Entry
	snap  *snapshot
	buf   [batchLen]DirEntry
	n     int    // entries in buf
	pos   int    // the next of them
	last  uint64 // cookie after which the next batch begins
	end   bool   // no batch follows
}

var cursors = sync.Pool{New: func() any { return new(cursor) }}

func newCursor(layer int, entry Entry, snap *snapshot, after uint64) *cursor {
	c, _ := cursors.Get().(*cursor)
	c.layer, c.entry, c.snap = layer, entry, snap
	c.n, c.pos, c.last, c.end = 0, 0, after, false
	return c
}

// head returns the entry at the cursor, nil at the end.
func (u *Union) head(c *cursor) (*DirEntry, error) {
	if c.pos < c.n {
		return &c.buf[c.pos], nil
	}
	if c.end {
		return nil, nil
	}
	n := 0
	if c.layer < 0 {
		n = c.snap.read(c.last, c.buf[:])
	} else {
		var err error
		if n, err = u.lowers[c.layer].ReadDir(c.entry, c.last, c.buf[:]); err != nil {
			return nil, err
		}
	}
	c.n, c.pos, c.end = n, 0, n < len(c.buf)
	if n == 0 {
		return nil, nil
	}
	c.last = c.buf[n-1].Cookie
	return &c.buf[0], nil
}

// merger lists a directory of the union. The caller holds d.mu while it is used.
type merger struct {
	u       *Union
	d       *dir
	h       *openFile
	parent  ID
	cursors []*cursor
}

// merge begins a listing after a cookie.
func (u *Union) merge(id ID, d *dir, h *openFile, after uint64, fresh bool) (*merger, error) {
	m := &merger{u: u, d: d, h: h, parent: id}
	if h != nil {
		s, err := listUpper(d, h, fresh, !u.up.plain, u.up.over)
		if err != nil {
			return nil, err
		}
		m.cursors = append(m.cursors, newCursor(-1, 0, s, after))
	}
	for _, r := range d.lowers {
		m.cursors = append(m.cursors, newCursor(r.layer, r.entry, nil, after))
	}
	return m, nil
}

func (m *merger) close() {
	for _, c := range m.cursors {
		c.snap = nil
		cursors.Put(c)
	}
}

// next returns the next name that shows; ok is false at the end.
func (m *merger) next(e *ListEntry) (ok bool, err error) {
	for {
		top, err := m.top()
		if top == nil || err != nil {
			return false, err
		}
		head := top.buf[top.pos]
		e.Name, e.Mode, e.Cookie = head.Name, head.Mode, head.Cookie
		if !head.IsWhiteout() {
			if e.Ino, err = m.ino(top, &head); err != nil {
				return false, err
			}
		}
		if err := m.skip(head.Cookie, head.Name); err != nil {
			return false, err
		}
		if !head.IsWhiteout() {
			return true, nil
		}
	}
}

// top returns the cursor of the topmost layer that has the smallest name, nil at the end.
func (m *merger) top() (*cursor, error) {
	var best *cursor
	for _, c := range m.cursors {
		h, err := m.u.head(c)
		if err != nil {
			return nil, err
		}
		if h == nil {
			continue
		}
		if best == nil || compareNames(h.Cookie, h.Name, best.buf[best.pos].Cookie, best.buf[best.pos].Name) < 0 {
			best = c
		}
	}
	return best, nil
}

// skip moves all cursors that stand at a name past it.
func (m *merger) skip(cookie uint64, name string) error {
	for _, c := range m.cursors {
		h, err := m.u.head(c)
		if err != nil {
			return err
		}
		if h != nil && h.Cookie == cookie && h.Name == name {
			c.pos++
		}
	}
	return nil
}

// ino is the inode number that stat shows for an entry.
func (m *merger) ino(c *cursor, e *DirEntry) (uint64, error) {
	switch {
	case c.layer < 0:
	case m.u.modes.NoIndex && e.Mode != unix.S_IFDIR: // it may be a name that came apart
		return m.resolved(e, m.u.lowerIno(c.layer, e.Ino))
	default:
		return m.u.lowerIno(c.layer, e.Ino), nil
	}
	if !m.d.impure.Load() && (e.Mode != unix.S_IFDIR || len(m.d.lowers) == 0) {
		return upperIno(e.Ino), nil
	}
	return m.resolved(e, upperIno(e.Ino))
}

// resolved is the inode number that a lookup finds.
func (m *merger) resolved(e *DirEntry, ino uint64) (uint64, error) {
	f, err := m.u.resolve(m.parent, m.d, m.h, e.Name)
	if err != nil {
		if errors.Is(err, unix.ENOENT) { // an old snapshot's name
			return ino, nil
		}
		return 0, err
	}
	m.u.dropFound(&f)
	return f.ino, nil
}

// ReadDir calls emit for the names of a directory that come after a cookie, "." and ".." first, until emit returns
// false. It holds no lock while emit runs.
func (u *Union) ReadDir(id ID, after uint64, emit func(e *ListEntry) bool) error {
	rec, ok := u.tab.get(id)
	if !ok {
		return unix.ESTALE
	}
	if rec.flags&flagDir == 0 {
		return unix.ENOTDIR
	}
	if after < CookieDotDot && !u.emitDots(&rec, after, emit) {
		return nil
	}
	if rec.flags&flagUnlinked != 0 {
		return nil
	}
	fresh := after < firstCookie
	batch := make([]ListEntry, 0, batchLen)
	for {
		var err error
		if batch, err = u.list(id, max(after, CookieDotDot), fresh, batch[:0]); err != nil {
			return err
		}
		for i := range batch {
			if !emit(&batch[i]) {
				return nil
			}
		}
		if len(batch) < cap(batch) {
			return nil
		}
		after, fresh = batch[len(batch)-1].Cookie, false
	}
}

func (u *Union) emitDots(rec *record, after uint64, emit func(e *ListEntry) bool) bool {
	if after < CookieDot && !emit(&ListEntry{".", rec.ino, unix.S_IFDIR, CookieDot}) {
		return false
	}
	up := *rec
	if rec.parent != 0 {
		up, _ = u.tab.get(rec.parent)
	}
	return emit(&ListEntry{"..", up.ino, unix.S_IFDIR, CookieDotDot})
}

// list fills batch up to its capacity. Entries that share a cookie are told apart by none: all of them but the last
// carry the cookie before, so that a listing that stops among them repeats some rather than losing any.
func (u *Union) list(id ID, after uint64, fresh bool, batch []ListEntry) ([]ListEntry, error) {
	d, h, err := u.rlockDir(id)
	if err != nil {
		return nil, err
	}
	defer h.Release()
	defer d.mu.RUnlock()
	m, err := u.merge(id, d, h, after, fresh)
	if err != nil {
		return nil, err
	}
	defer m.close()
	for len(batch) < cap(batch) {
		var e ListEntry
		ok, err := m.next(&e)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if n := len(batch); n > 0 && batch[n-1].Cookie == e.Cookie {
			batch[n-1].Cookie--
		}
		batch = append(batch, e)
	}
	return batch, nil
}

// countSubdirs counts the directories in a directory.
func (u *Union) countSubdirs(id ID) (int32, error) {
	d, h, err := u.rlockDir(id)
	if err != nil {
		return 0, err
	}
	defer h.Release()
	defer d.mu.RUnlock()
	m, err := u.merge(id, d, h, CookieDotDot, true)
	if err != nil {
		return 0, err
	}
	defer m.close()
	n := int32(0)
	for {
		var e ListEntry
		ok, err := m.next(&e)
		if !ok || err != nil {
			return n, err
		}
		if e.Mode == unix.S_IFDIR {
			n++
		}
	}
}

// isEmpty reports whether a directory shows no names. The caller holds d.mu.
func (u *Union) isEmpty(id ID, d *dir, h *openFile) (bool, error) {
	m, err := u.merge(id, d, h, CookieDotDot, true)
	if err != nil {
		return false, err
	}
	defer m.close()
	var e ListEntry
	some, err := m.next(&e)
	return !some, err
}
