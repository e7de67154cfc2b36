package overlay

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// peek finds a name and returns its inode, held, without its attributes. The caller holds d.mu.
func (u *Union) peek(parent ID, d *dir, h *openFile, name string) (ID, found, error) {
	f, err := u.resolve(parent, d, h, name)
	if err != nil {
		return 0, f, err
	}
	keep := f // intern gives the entries back when the inode is known
	id, made, err := u.intern(parent, name, &f)
	if err != nil {
		u.dropFound(&f)
		return 0, keep, err
	}
	if !made && keep.hasOtherNames() {
		u.addAlias(id, parent, name)
	}
	if !made || !keep.marks.metacopy && (keep.upper || !keep.linked()) {
		return id, keep, nil
	}
	// Between the two, another request may have copied the file up and its inode have been forgotten. From now on
	// whoever copies it up finds the inode made.
	now, err := u.resolve(parent, d, h, name)
	if err != nil {
		u.Forget(id, 1)
		return 0, keep, err
	}
	keep = now
	u.dropFound(&now)
	u.tab.update(id, func(r *record) {
		r.flags &^= flagMetacopy
		keep.mark(r)
	})
	return id, keep, nil
}

// Unlink removes a name of an inode that is not a directory.
func (u *Union) Unlink(parent ID, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	for {
		id, err := u.tryUnlink(parent, name)
		if !errors.Is(err, errLinked) {
			return err
		}
		// One of several names of a lower file goes: the file comes up first, which is where its links are counted.
		err = u.copyUpMeta(id)
		u.Forget(id, 1)
		if err != nil {
			return err
		}
	}
}

// errLinked says that a lower hard link must be copied up, which cannot be done under the lock held.
var errLinked = errors.New("hard link in a lower layer")

// tryUnlink is Unlink; with errLinked it returns the inode to copy up, held.
func (u *Union) tryUnlink(parent ID, name string) (ID, error) {
	d, h, err := u.wlockDir(parent)
	if err != nil {
		return 0, err
	}
	defer h.Release()
	defer d.mu.Unlock()
	id, f, err := u.peek(parent, d, h, name)
	if err != nil {
		return 0, err
	}
	if f.mode == unix.S_IFDIR {
		u.Forget(id, 1)
		return 0, unix.EISDIR
	}
	if !f.upper && f.linked() {
		return id, errLinked
	}
	defer u.Forget(id, 1)
	whiteout, err := u.lowerShows(d, name)
	if err != nil {
		return 0, err
	}
	inUpper := f.upper && !f.index
	lost, err := u.beforeLoss(id, parent, place{h.fd, name}, name, &f, inUpper)
	if err != nil {
		return 0, err
	}
	switch {
	case inUpper && whiteout:
		err = u.up.replaceByWhiteout(h.fd, name)
	case inUpper:
		err = unix.Unlinkat(h.fd, name, 0)
	default:
		if err = u.mayLose(d, h); err == nil {
			err = u.up.linkWhiteout(h.fd, name)
		}
	}
	if err != nil {
		lost.undo()
		return 0, err
	}
	d.version.Add(1)
	return 0, lost.done()
}

// loss is a name about to go that an inode may be known by.
type loss struct {
	u       *Union
	id      ID
	parent  ID
	name    string
	pinned  bool // the inode was made reachable by descriptor
	known   bool // it is known by the name that goes
	last    bool // no name is left
	nlink   int  // links shown before, of an indexed inode
	st      unix.Stat_t
	indexed bool
	inUpper bool // the name is in the upper layer
}

// beforeLoss prepares an inode for losing a name. inUpper says that the name itself is in the upper layer.
func (u *Union) beforeLoss(id, parent ID, p place, name string, f *found, inUpper bool) (*loss, error) {
	rec, known, _ := u.tab.getNamed(id)
	l := &loss{u: u, id: id, parent: parent, name: name, st: f.st, inUpper: inUpper}
	l.known = rec.parent == parent && known == name
	l.indexed = rec.flags&flagIndexed != 0
	switch {
	case !f.upper:
		l.last = true
	case l.indexed:
		l.nlink = int(f.st.Nlink) + parseNlink(f.marks.nlink) // #nosec G115 -- a link count
		l.last = l.nlink <= 1
		ip := u.indexPlace(&rec)
		if l.last {
			p = ip
		}
		// The count is set once the name is gone, since one too low would free the file early. Whether it can be, an
		// immutable file's cannot, must be known before.
		if err := ip.setxattr(u.up.overlay+xattrNlink, []byte(f.marks.nlink), 0); err != nil {
			return nil, err
		}
	default:
		l.last = f.st.Nlink <= 1 || f.mode == unix.S_IFDIR
	}
	if l.known && !l.last && !l.indexed && u.useAlias(id, parent, name) {
		return l, nil
	}
	if rec.flags&flagPinned == 0 && f.upper && (l.last || l.known && !l.indexed) {
		l.pinned = true
		return l, u.pin(id, p, f.mode)
	}
	return l, nil
}

// undo takes back what beforeLoss did: the name stayed.
func (l *loss) undo() {
	if l.pinned {
		l.u.unpin(l.id)
	}
}

// done records that the name is gone.
func (l *loss) done() error {
	l.u.loseAlias(l.id, l.parent, l.name)
	l.u.tab.update(l.id, func(r *record) {
		if l.pinned {
			r.flags |= flagPinned
		}
		if l.last {
			r.flags |= flagUnlinked
		}
	})
	if l.last && l.u.tab.unkeep(l.id) {
		l.u.Forget(l.id, 1)
	}
	if !l.indexed {
		return nil
	}
	return l.dropIndexed()
}

// dropIndexed keeps the count of links of an indexed inode, and removes it from the index with its last name.
func (l *loss) dropIndexed() error {
	u := l.u
	rec, _ := u.tab.get(l.id)
	p := u.indexPlace(&rec)
	if l.last {
		u.tab.update(l.id, func(r *record) { r.flags &^= flagIndexed })
		if err := u.up.dropKernelIndexed(p); err != nil {
			return err
		}
		return ignoreMissing(unix.Unlinkat(p.fd, p.name, 0))
	}
	if l.inUpper {
		return nil // one link less in the upper layer is one less shown
	}
	return p.setxattr(u.up.overlay+xattrNlink, formatNlink(l.nlink-1-int(l.st.Nlink)), 0) // #nosec G115 -- a link count
}

// mayLose reports an error when no name may go from a directory. The caller holds d.mu.
func (u *Union) mayLose(d *dir, h *openFile) error {
	v, err := u.inheritance(d, h)
	if err == nil && v&appendOnly != 0 {
		err = unix.EPERM
	}
	return err
}

// lockDirs write-locks directories in the order of their IDs, each once.
func (u *Union) lockDirs(ids ...ID) (unlock func(), err error) {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	var locked []*dir
	unlock = func() {
		for _, d := range locked {
			d.mu.Unlock()
		}
	}
	for _, id := range ids {
		d := u.tab.dir(id)
		if d == nil {
			unlock()
			return nil, unix.ENOTDIR
		}
		d.mu.Lock()
		locked = append(locked, d)
	}
	return unlock, nil
}

// upperFD is dirFD of a directory that may be in lower layers alone, which has none.
func (u *Union) upperFD(id ID) (*openFile, error) {
	rec, ok := u.tab.get(id)
	switch {
	case !ok:
		return nil, unix.ESTALE
	case rec.flags&flagUpper == 0:
		return nil, nil
	}
	return u.dirFD(id)
}

// Rmdir removes an empty directory.
func (u *Union) Rmdir(parent ID, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if u.up == nil {
		return unix.EROFS
	}
	var a Attr
	id, err := u.Lookup(parent, name, &a)
	if err != nil {
		return err
	}
	defer u.Forget(id, 1)
	if a.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	if err := u.copyUpMeta(parent); err != nil {
		return err
	}
	h, err := u.dirFD(parent)
	if err != nil {
		return err
	}
	defer h.Release()
	ch, err := u.upperFD(id)
	if err != nil {
		return err
	}
	defer ch.Release()
	left, err := u.rmdirLocked(parent, h, id, ch, name)
	if err != nil {
		return err
	}
	if left != "" {
		_ = removeTree(u.up.work, left) // whiteouts that hide nothing any more; work is cleared at the next start
	}
	return nil
}

// rmdirLocked removes the directory. What was in its way is left in the work directory under the name returned.
func (u *Union) rmdirLocked(parent ID, h *openFile, id ID, ch *openFile, name string) (left string, err error) {
	unlock, err := u.lockDirs(parent, id)
	if err != nil {
		return "", err
	}
	defer unlock()
	d := u.tab.dir(parent)
	now, f, err := u.peek(parent, d, h, name)
	if err != nil {
		return "", err
	}
	defer u.Forget(now, 1)
	if now != id || f.upper != (ch != nil) {
		return "", unix.EBUSY // it was replaced between two looks, which the kernel's lock on parent rules out
	}
	empty, err := u.isEmpty(id, u.tab.dir(id), ch)
	if err != nil {
		return "", err
	}
	if !empty {
		return "", unix.ENOTEMPTY
	}
	whiteout, err := u.lowerShows(d, name)
	if err != nil {
		return "", err
	}
	l, err := u.beforeLoss(id, parent, place{h.fd, name}, name, &f, f.upper)
	if err != nil {
		return "", err
	}
	if err = u.mayLose(d, h); err == nil {
		left, err = u.takeDir(place{h.fd, name}, f.upper, whiteout)
	}
	if err != nil {
		l.undo()
		return "", err
	}
	d.version.Add(1)
	d.addSubdirs(-1)
	return left, l.done()
}

// takeDir takes a directory that shows no names out of the upper layer, and leaves a whiteout where one is needed.
func (u *Union) takeDir(p place, upper, whiteout bool) (left string, err error) {
	if !upper {
		return "", u.up.linkWhiteout(p.fd, p.name)
	}
	if !whiteout {
		err := unix.Unlinkat(p.fd, p.name, unix.AT_REMOVEDIR)
		if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			return "", err
		}
		left = u.up.tempName()
		return left, unix.Renameat(p.fd, p.name, u.up.work, left)
	}
	left = u.up.tempName()
	if err := u.up.linkWhiteout(u.up.work, left); err != nil {
		return "", err
	}
	if err := unix.Renameat2(u.up.work, left, p.fd, p.name, unix.RENAME_EXCHANGE); err != nil {
		_ = unix.Unlinkat(u.up.work, left, 0) // the first error is the one to tell
		return "", err
	}
	return left, nil
}
