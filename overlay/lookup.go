package overlay

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// MaxName is the longest name that a directory can hold, bytes.
const MaxName = 255

// found is what a name in a directory of the union stands for.
type found struct {
	mode   uint32 // S_IFMT
	ino    uint64
	upper  bool
	index  bool        // the upper inode is that in the index directory
	st     unix.Stat_t // of the upper inode, when upper
	marks  marks       // …its marks
	layer  int         // of the lower inode that has the data, -1 for none
	item   Item        // that inode
	face   lowerItem   // the lower inode that has the attributes, when it is another
	lowers []lowerRef  // the lower directories that show through, of a directory
	redir  string      // absolute path of lowers in their layers, when not the directory's own
	apart  uint64      // inode number of a name of a lower hard link that is a file of its own, 0 for none
}

func checkName(name string) error {
	switch {
	case len(name) > MaxName:
		return unix.ENAMETOOLONG
	case name == "" || name == "." || name == ".." || strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0:
		return unix.EINVAL
	}
	return nil
}

// Lookup finds a name in a directory and fills in its attributes. The inode returned is held until Forget. "." is the
// inode itself, which need not be a directory, and ".." the directory above, which is the root for the root.
func (u *Union) Lookup(parent ID, name string, a *Attr) (ID, error) {
	if name == "." || name == ".." {
		return u.lookupDots(parent, name, a)
	}
	if err := checkName(name); err != nil {
		return 0, err
	}
	id, f, err := u.lookupName(parent, name)
	if err != nil {
		return 0, err
	}
	if err := u.fillAttr(id, &f, a); err != nil {
		u.Forget(id, 1)
		return 0, err
	}
	return id, nil
}

// lookupDots answers from the table how the kernel asks for what it knows by a file handle alone (fs/fuse/inode.c:
// fuse_get_dentry, fuse_get_parent). What the layers call ".." is elsewhere once a directory was renamed, and outside
// them at their roots.
func (u *Union) lookupDots(id ID, name string, a *Attr) (ID, error) {
	for {
		rec, ok := u.tab.get(id)
		if !ok {
			return 0, unix.ESTALE
		}
		at := id
		if name == ".." {
			if rec.flags&flagDir == 0 {
				return 0, unix.ENOTDIR
			}
			at = max(rec.parent, RootID)
		}
		if !u.tab.hold(at) {
			continue // it was renamed, and its old parent forgotten
		}
		if err := u.GetAttr(at, a); err != nil {
			u.Forget(at, 1)
			return 0, err
		}
		return at, nil
	}
}

// lookupName finds a name and returns its inode, held, and what it was found to be. Attributes are left to its caller,
// since those of a directory take that directory's lock.
func (u *Union) lookupName(parent ID, name string) (ID, found, error) {
	d, h, err := u.rlockDir(parent)
	if err != nil {
		return 0, found{}, err
	}
	defer h.Release()
	defer d.mu.RUnlock()
	if rec, _ := u.tab.get(parent); rec.flags&flagUnlinked != 0 {
		return 0, found{}, unix.ENOENT
	}
	return u.peek(parent, d, h, name)
}

// founds are what resolve fills: the compiler cannot tell that no layer keeps one.
var founds = sync.Pool{New: func() any { return new(found) }}

// resolve finds a name, without making an inode of it. The lower entries in the result are held.
func (u *Union) resolve(parent ID, d *dir, h *openFile, name string) (found, error) {
	p, _ := founds.Get().(*found)
	*p = newFound()
	err := u.resolveTo(p, parent, d, h, name)
	f := *p
	*p = found{} // it keeps nothing alive
	founds.Put(p)
	return f, err
}

func (u *Union) resolveTo(f *found, parent ID, d *dir, h *openFile, name string) error {
	if h != nil && !u.up.plain && isDotName(name) {
		return unix.ENOENT
	}
	if h != nil {
		err := u.resolveUpper(place{h.fd, name}, f)
		switch {
		case errors.Is(err, unix.ENOENT):
			hidden, err := u.upperHides(h, name)
			if hidden {
				err = unix.ENOENT
			}
			if err != nil {
				return err
			}
		case err != nil:
			return err
		case !f.upper: // a whiteout
			return unix.ENOENT
		}
	}
	err := u.resolveLower(parent, d, name, f)
	if err != nil {
		u.dropFound(f)
		return err
	}
	if !f.upper && f.layer < 0 && len(f.lowers) == 0 {
		return unix.ENOENT
	}
	if u.modes.NoIndex && f.mode != unix.S_IFDIR {
		u.takeApart(parent, name, f)
	}
	if f.upper && f.mode != unix.S_IFDIR && !u.modes.NoIndex {
		if err := u.adoptUpper(place{h.fd, name}, d, f); err != nil {
			u.dropFound(f)
			return err
		}
	}
	u.number(f)
	if f.upper && f.marks.nlink != "" && !u.inIndex(f) {
		f.marks.nlink = "" // made by others, or with another work directory
	}
	if !f.upper && f.linked() {
		return u.resolveIndex(f)
	}
	return nil
}

// linked reports whether the lower inode has several names.
func (f *found) linked() bool {
	_, it := f.shown()
	return f.mode != unix.S_IFDIR && it.Flags&FlagLinked != 0
}

// resolveUpper looks at the upper layer alone.
func (u *Union) resolveUpper(p place, f *found) error {
	if err := p.stat(&f.st); err != nil {
		return err
	}
	if hides, err := isWhiteout(p, &f.st); hides || err != nil {
		return err
	}
	own := f.st.Mode & unix.S_IFMT
	if err := u.up.over.show(p, &f.st); err != nil {
		return err
	}
	f.upper, f.mode = true, f.st.Mode&unix.S_IFMT
	var err error
	f.marks, err = u.readMarks(p, own)
	if err == nil && f.mode == unix.S_IFDIR && !u.up.plain && !f.marks.opaque {
		f.marks.opaque, err = dotOpaqueIn(p)
	}
	return err
}

// number decides which inode number is shown.
func (u *Union) number(f *found) {
	switch {
	case f.apart != 0:
		f.ino = f.apart
	case f.upper && f.marks.number != 0:
		f.ino = f.marks.number
	case f.upper && f.marks.originLayer == apartLayer && f.mode != unix.S_IFDIR:
		f.ino = inoBesides<<inoBits | f.marks.originIno&inoMask
	case f.upper && f.marks.hasOrigin && f.mode != unix.S_IFDIR:
		if i, ok := u.byID[f.marks.originLayer]; ok {
			f.ino = u.lowerIno(i, f.marks.originIno)
			return
		}
		f.ino = upperIno(f.st.Ino)
	case f.layer >= 0 && (!f.upper || f.mode == unix.S_IFDIR):
		layer, it := f.shown()
		f.ino = u.lowerIno(layer, it.Ino)
	default:
		f.ino = upperIno(f.st.Ino)
	}
}

// resolveIndex finds the upper inode that a lower hard link was copied up to under another of its names.
func (u *Union) resolveIndex(f *found) error {
	if u.up == nil {
		return nil
	}
	layer, it := f.shown()
	p := place{u.up.index, indexName(u.origin(layer, it.Ino))}
	low := *f
	err := u.resolveUpper(p, f)
	if errors.Is(err, unix.ENOENT) {
		var there bool
		if there, err = u.adoptLower(layer, it); there && err == nil {
			err = u.resolveUpper(p, f)
		} else if err == nil {
			err = unix.ENOENT
		}
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err == nil && (!f.upper || f.mode != low.mode):
		err = fmt.Errorf("%w: %s in the index is no copy of its lower file", ErrCorrupt, p.name)
	}
	if err != nil {
		u.dropFound(&low)
	}
	f.index = err == nil
	return err
}

// inIndex reports whether the upper inode found is the one that the index has for its origin.
func (u *Union) inIndex(f *found) bool {
	if _, ok := u.byID[f.marks.originLayer]; !ok || !f.marks.hasOrigin {
		return false
	}
	var st unix.Stat_t
	err := place{u.up.index, indexName(originValue(f.marks.originLayer, f.marks.originIno))}.stat(&st)
	return err == nil && st.Ino == f.st.Ino
}

// dropFound gives back the lower entries of what was found but not used.
func (u *Union) dropFound(f *found) {
	if f.mode == unix.S_IFDIR {
		u.forgetLowers(f.lowers)
	} else if f.layer >= 0 {
		u.lowers[f.layer].Forget(f.item.Entry)
	}
	if f.face.layer >= 0 {
		u.lowers[f.face.layer].Forget(f.face.Entry)
	}
	f.lowers, f.layer, f.face.layer = nil, -1, -1
}

// mark says in a record what was found in the upper layer.
func (f *found) mark(r *record) {
	if !f.upper {
		return
	}
	r.flags |= flagUpper
	r.upIno = f.st.Ino
	if f.index || f.marks.nlink != "" {
		r.flags |= flagIndexed
	}
	if f.marks.metacopy {
		r.flags |= flagMetacopy
	}
}

// intern returns the inode of what was found, and whether it was made because there was none.
func (u *Union) intern(parent ID, name string, f *found) (id ID, made bool, err error) {
	r := record{ino: f.ino, parent: parent, mode: f.mode}
	if u.modes.KeepNodes && name != "" {
		r.flags |= flagKept
	}
	var d *dir
	f.mark(&r)
	if f.mode == unix.S_IFDIR {
		r.flags |= flagDir
		d = &dir{lowers: f.lowers, attrs: u.attrsOf(f.lowers)}
		if f.redir != "" {
			redir := f.redir
			d.redirect.Store(&redir)
		}
		d.impure.Store(f.marks.impure)
	}
	if f.layer >= 0 {
		r.layer, r.entry = uint16(f.layer+1), f.item.Entry // #nosec G115 -- below MaxLayers
		if f.linked() {
			r.flags |= flagLinked
		}
	}
	for try := uint64(0); try < 16; try++ {
		id, made = u.tab.acquire(r, name, d, func(old *record) bool { return sameInode(old, &r) })
		switch {
		case id == 0:
			// Another inode has the number: its origin is that of this one too, or numbers that do not fit were
			// folded alike.
			n := f.st.Ino
			if !f.upper {
				n = f.ino
			}
			r.ino = inoBesides<<inoBits | (n+try*hashMul)&inoMask
			r.flags &^= flagLinked // the index has the other one
			continue
		case made:
			u.keepFace(id, f)
			return id, true, nil
		}
		u.dropFound(f)
		u.reveal(id, parent, name)
		return id, false, nil
	}
	return 0, false, unix.EIO
}

// sameInode reports whether a record is that of the inode found.
func sameInode(old, r *record) bool {
	if old.mode != r.mode {
		return false
	}
	switch old.flags&flagUpper + r.flags&flagUpper {
	case 0:
		return true
	case flagUpper: // one was seen before a hard link was copied up, the other after
		return (old.flags|r.flags)&flagIndexed != 0
	}
	return old.upIno == r.upIno
}

// reveal makes an inode known by a name that was found for it, when the name it was known by is gone.
func (u *Union) reveal(id, parent ID, name string) {
	rec, _ := u.tab.get(id)
	if rec.flags&(flagPinned|flagUnlinked) == 0 {
		return
	}
	old := u.tab.move(id, parent, name)
	u.tab.update(id, func(r *record) { r.flags &^= flagPinned | flagUnlinked })
	u.unpin(id)
	u.Forget(old, 1)
	if u.modes.KeepNodes {
		u.tab.keep(id)
	}
}

// lowerPath is the absolute path at which the lower directories of a directory lie in their layers.
func (u *Union) lowerPath(id ID) (string, error) {
	var parts []string
	for id != RootID {
		rec, name, ok := u.tab.getNamed(id)
		d := u.tab.dir(id)
		if !ok || d == nil {
			return "", unix.ESTALE
		}
		if to := d.redirect.Load(); to != nil {
			parts = append(parts, *to)
			break
		}
		parts = append(parts, name)
		id = rec.parent
	}
	p := ""
	for i := len(parts) - 1; i >= 0; i-- {
		p = path.Join(p, parts[i])
	}
	return path.Join("/", p), nil
}
