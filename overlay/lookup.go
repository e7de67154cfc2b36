package overlay

import (
	"errors"
	"path"
	"strings"

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
	layer  int         // of the lower inode, -1 for none
	item   Item        // the lower inode, of a file
	lowers []lowerRef  // the lower directories that show through, of a directory
	redir  string      // absolute path of lowers in their layers, when not the directory's own
}

func checkName(name string) error {
	switch {
	case len(name) > MaxName:
		return unix.ENAMETOOLONG
	case name == "" || strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0:
		return unix.EINVAL
	}
	return nil
}

// Lookup finds a name in a directory and fills in its attributes. The inode returned is held until Forget.
func (u *Union) Lookup(parent ID, name string, a *Attr) (ID, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	d, h, err := u.rlockDir(parent)
	if err != nil {
		return 0, err
	}
	defer h.Release()
	defer d.mu.RUnlock()
	return u.lookupLocked(parent, d, h, name, a)
}

// lookupLocked is Lookup while the caller holds d.mu. h is the upper directory, nil for none.
func (u *Union) lookupLocked(parent ID, d *dir, h *openFile, name string, a *Attr) (ID, error) {
	if rec, _ := u.tab.get(parent); rec.flags&flagUnlinked != 0 {
		return 0, unix.ENOENT
	}
	f, err := u.resolve(parent, d, h, name)
	if err != nil {
		return 0, err
	}
	id, err := u.intern(parent, name, &f)
	if err != nil {
		u.dropFound(&f)
		return 0, err
	}
	if err := u.fillAttr(id, &f, a); err != nil {
		u.Forget(id, 1)
		return 0, err
	}
	return id, nil
}

// resolve finds a name, without making an inode of it. The lower entries in the result are held.
func (u *Union) resolve(parent ID, d *dir, h *openFile, name string) (found, error) {
	f := found{layer: -1}
	if h != nil {
		err := u.resolveUpper(place{h.fd, name}, &f)
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			return f, err
		case isWhiteout(&f.st):
			return f, unix.ENOENT
		}
	}
	err := u.resolveLower(parent, d, name, &f)
	if err != nil {
		u.dropFound(&f)
		return f, err
	}
	if !f.upper && f.layer < 0 && len(f.lowers) == 0 {
		return f, unix.ENOENT
	}
	u.number(&f)
	if !f.upper && f.item.Flags&FlagLinked != 0 {
		return f, u.resolveIndex(&f)
	}
	return f, nil
}

// resolveUpper looks at the upper layer alone.
func (u *Union) resolveUpper(p place, f *found) error {
	if err := p.stat(&f.st); err != nil {
		return err
	}
	if isWhiteout(&f.st) {
		return nil
	}
	f.upper, f.mode = true, f.st.Mode&unix.S_IFMT
	var err error
	f.marks, err = u.readMarks(p, f.mode)
	return err
}

// resolveLower adds what the lower layers have to what was found in the upper one.
func (u *Union) resolveLower(parent ID, d *dir, name string, f *found) error {
	switch {
	case f.upper && f.mode != unix.S_IFDIR:
		return u.resolveOrigin(parent, name, f)
	case f.upper && f.marks.opaque:
		return nil
	case f.upper && f.marks.redirect != "":
		return u.resolveRedirect(parent, f)
	}
	for _, ref := range d.lowers {
		it, err := u.lowers[ref.layer].Lookup(ref.entry, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		if u.stack(f, ref.layer, it) {
			break
		}
	}
	return nil
}

// stack adds an item of a lower layer to what was found above it, and reports whether it hides all below.
func (u *Union) stack(f *found, layer int, it Item) (last bool) {
	have := f.upper || len(f.lowers) > 0
	switch {
	case it.IsWhiteout():
	case it.Mode == unix.S_IFDIR:
		f.mode = it.Mode
		if len(f.lowers) == 0 {
			f.item, f.layer = it, layer
		}
		f.lowers = append(f.lowers, lowerRef{layer, it.Entry})
		return it.Flags&FlagOpaque != 0
	case !have:
		f.mode, f.item, f.layer = it.Mode, it, layer
	default:
		u.lowers[layer].Forget(it.Entry)
	}
	return true
}

// resolveRedirect finds the lower directories of a directory that was renamed.
func (u *Union) resolveRedirect(parent ID, f *found) error {
	target := f.marks.redirect
	if !strings.HasPrefix(target, "/") {
		base, err := u.lowerPath(parent)
		if err != nil {
			return err
		}
		target = path.Join(base, target)
	}
	f.redir = target
	for i := range u.lowers {
		last, err := u.walkLayer(f, i, target, unix.S_IFDIR)
		if err != nil {
			return err
		}
		if last {
			break
		}
	}
	return nil
}

// walkLayer follows an absolute path in one layer and stacks what it finds there, of type want. It reports whether
// the layer hides the path in those below it.
func (u *Union) walkLayer(f *found, layer int, target string, want uint32) (last bool, err error) {
	l := u.lowers[layer]
	e, hidden := RootEntry, false
	parts := strings.Split(strings.Trim(path.Clean(target), "/"), "/")
	for n, part := range parts {
		it, err := l.Lookup(e, part)
		if e != RootEntry {
			l.Forget(e)
		}
		if errors.Is(err, unix.ENOENT) {
			return hidden, nil
		}
		if err != nil {
			return false, err
		}
		if n == len(parts)-1 {
			if !it.IsWhiteout() && it.Mode != want {
				l.Forget(it.Entry)
				return true, nil
			}
			return u.stack(f, layer, it) || hidden, nil
		}
		if it.Mode != unix.S_IFDIR {
			if !it.IsWhiteout() {
				l.Forget(it.Entry)
			}
			return true, nil
		}
		hidden = hidden || it.Flags&FlagOpaque != 0
		e = it.Entry
	}
	return hidden, nil
}

// resolveOrigin finds the lower inode of an upper file that was copied up: for its inode number, and for the data of one
// whose metadata alone were.
func (u *Union) resolveOrigin(parent ID, name string, f *found) error {
	if !f.marks.metacopy {
		return nil
	}
	target := f.marks.redirect
	if !strings.HasPrefix(target, "/") {
		base, err := u.lowerPath(parent)
		if err != nil {
			return err
		}
		if target == "" {
			target = name
		}
		target = path.Join(base, target)
	}
	low := found{layer: -1}
	for i := range u.lowers {
		last, err := u.walkLayer(&low, i, target, unix.S_IFREG)
		if err != nil || low.layer >= 0 {
			f.layer, f.item = low.layer, low.item
			return err
		}
		if last {
			break
		}
	}
	return unix.EIO // its data are lost: the layers are not those that it was made over
}

// number decides which inode number is shown.
func (u *Union) number(f *found) {
	switch {
	case f.upper && f.marks.hasOrigin && f.mode != unix.S_IFDIR:
		if i, ok := u.byID[f.marks.originLayer]; ok {
			f.ino = u.lowerIno(i, f.marks.originIno)
			return
		}
		f.ino = upperIno(f.st.Ino)
	case f.layer >= 0 && (!f.upper || f.mode == unix.S_IFDIR):
		f.ino = u.lowerIno(f.layer, f.item.Ino)
	default:
		f.ino = upperIno(f.st.Ino)
	}
}

// resolveIndex finds the upper inode that a lower hard link was copied up to under another of its names.
func (u *Union) resolveIndex(f *found) error {
	if u.up == nil {
		return nil
	}
	p := place{u.up.index, indexName(u.origin(f.layer, f.item.Ino))}
	err := u.resolveUpper(p, f)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	f.index = err == nil
	return err
}

// dropFound gives back the lower entries of what was found but not used.
func (u *Union) dropFound(f *found) {
	if f.mode == unix.S_IFDIR {
		u.forgetLowers(f.lowers)
	} else if f.layer >= 0 {
		u.lowers[f.layer].Forget(f.item.Entry)
	}
	f.lowers, f.layer = nil, -1
}

// intern returns the inode of what was found, making one when there is none.
func (u *Union) intern(parent ID, name string, f *found) (ID, error) {
	r := record{ino: f.ino, parent: parent, mode: f.mode}
	var d *dir
	if f.upper {
		r.flags |= flagUpper
		r.upIno = f.st.Ino
		if f.index || f.marks.nlink != "" {
			r.flags |= flagIndexed
		}
		if f.marks.metacopy {
			r.flags |= flagMetacopy
		}
	}
	if f.mode == unix.S_IFDIR {
		r.flags |= flagDir
		d = &dir{lowers: f.lowers, attrs: u.attrsOf(f.lowers)}
		if f.redir != "" {
			d.redirect.Store(&f.redir)
		}
		d.impure.Store(f.marks.impure)
	}
	if f.layer >= 0 {
		r.layer, r.entry = uint16(f.layer+1), f.item.Entry // #nosec G115 -- below MaxLayers
		if f.item.Flags&FlagLinked != 0 {
			r.flags |= flagLinked
		}
	}
	for try := uint64(0); try < 16; try++ {
		id, made := u.tab.acquire(r, name, d, func(old *record) bool { return sameInode(old, &r) })
		switch {
		case id == 0:
			// Another inode has the number: its origin is that of this one too, or numbers that do not fit were
			// folded alike.
			r.ino = inoBesides<<inoBits | (f.st.Ino+try*hashMul)&inoMask
			continue
		case made:
			return id, nil
		}
		u.dropFound(f)
		u.reveal(id, parent, name)
		return id, nil
	}
	return 0, unix.EIO
}

// sameInode reports whether a record is that of the inode found.
func sameInode(old, r *record) bool {
	if old.mode != r.mode {
		return false
	}
	if old.flags&r.flags&flagUpper != 0 {
		return old.upIno == r.upIno
	}
	return true
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
