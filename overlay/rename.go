package overlay

import (
	"errors"
	"path"

	"golang.org/x/sys/unix"
)

// end is one of the two names of a rename.
type end struct {
	parent ID
	name   string
	d      *dir
	h      *openFile // upper directory of parent
	id     ID        // what the name stands for, 0 for nothing
	rec    record
	child  *openFile // upper directory of id, nil for none
	f      found     // as seen under the locks
	shows  bool      // the lower layers show the name too
}

func (e *end) place() place { return place{e.h.fd, e.name} }
func (e *end) isDir() bool  { return e.rec.flags&flagDir != 0 }

func (e *end) release(u *Union) {
	if e.id != 0 {
		u.Forget(e.id, 1)
	}
	e.h.Release()
	e.child.Release()
}

// Rename moves a name. flags are those of renameat2(2). The device that RENAME_WHITEOUT leaves shows, as on any
// filesystem but a union: it hides the name in the lower layers by standing there.
func (u *Union) Rename(oldParent ID, oldName string, newParent ID, newName string, flags uint32) error {
	if err := errors.Join(checkName(oldName), checkName(newName)); err != nil {
		return err
	}
	switch {
	case u.up == nil:
		return unix.EROFS
	case flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE|unix.RENAME_WHITEOUT) != 0,
		flags&unix.RENAME_EXCHANGE != 0 && flags != unix.RENAME_EXCHANGE:
		return unix.EINVAL
	}
	r := &renaming{u: u, flags: flags}
	r.old = end{parent: oldParent, name: oldName}
	r.to = end{parent: newParent, name: newName}
	defer func() {
		r.old.release(u)
		r.to.release(u)
	}()
	if err := r.find(); err != nil {
		return err
	}
	if r.to.id == r.old.id {
		return nil // two names of one file: nothing to do (rename(2))
	}
	if err := r.bringUp(); err != nil {
		return err
	}
	if flags&unix.RENAME_WHITEOUT != 0 {
		var err error
		if r.null, err = u.up.makeNull(); err != nil {
			return err
		}
	}
	if err := r.locked(); err != nil {
		if r.null != "" {
			_ = unix.Unlinkat(u.up.work, r.null, 0) // the first error is the one to tell
		}
		return err
	}
	for _, n := range r.left {
		_ = removeTree(u.up.work, n) // whiteouts that hide nothing any more; work is cleared at the next start
	}
	return nil
}

// renaming is a rename under way.
type renaming struct {
	u     *Union
	flags uint32
	old   end
	to    end
	loss  *loss    // of what to stood for
	left  []string // names in work to remove
	null  string   // of the device in work that takes the old name's place, "" for none
}

// find looks both names up.
func (r *renaming) find() error {
	var a Attr
	var err error
	if r.old.id, err = r.u.Lookup(r.old.parent, r.old.name, &a); err != nil {
		return err
	}
	r.to.id, err = r.u.Lookup(r.to.parent, r.to.name, &a)
	switch {
	case errors.Is(err, unix.ENOENT):
		r.to.id = 0
		if r.flags&unix.RENAME_EXCHANGE != 0 {
			return unix.ENOENT
		}
	case err != nil:
		return err
	case r.flags&unix.RENAME_NOREPLACE != 0:
		return unix.EEXIST
	}
	for _, e := range []*end{&r.old, &r.to} {
		if e.id != 0 {
			e.rec, _ = r.u.tab.get(e.id)
		}
	}
	if !r.u.movable(&r.old) || r.flags&unix.RENAME_EXCHANGE != 0 && !r.u.movable(&r.to) {
		return unix.EXDEV
	}
	if r.to.id == 0 || r.flags&unix.RENAME_EXCHANGE != 0 {
		return nil
	}
	switch {
	case r.old.isDir() && !r.to.isDir():
		return unix.ENOTDIR
	case !r.old.isDir() && r.to.isDir():
		return unix.EISDIR
	}
	return nil
}

// bringUp copies up what takes part and opens the directories, all of which must be done before the locks are taken.
func (r *renaming) bringUp() error {
	ids := []ID{r.old.parent, r.to.parent, r.old.id}
	if r.to.id != 0 && (r.flags&unix.RENAME_EXCHANGE != 0 || r.to.rec.flags&flagLinked != 0) {
		ids = append(ids, r.to.id)
	}
	for _, id := range ids {
		if err := r.u.copyUpMeta(id); err != nil {
			return err
		}
	}
	for _, e := range []*end{&r.old, &r.to} {
		var err error
		if e.h, err = r.u.dirFD(e.parent); err != nil {
			return err
		}
		if e.id == 0 {
			continue
		}
		e.rec, _ = r.u.tab.get(e.id)
		if !e.isDir() {
			continue
		}
		if e.child, err = r.u.upperFD(e.id); err != nil {
			return err
		}
	}
	return nil
}

// locked does the rename under the locks of all directories concerned.
func (r *renaming) locked() error {
	u := r.u
	ids := []ID{r.old.parent, r.to.parent}
	if r.to.id != 0 && r.to.isDir() && r.flags&unix.RENAME_EXCHANGE == 0 {
		ids = append(ids, r.to.id)
	}
	unlock, err := u.lockDirs(ids...)
	if err != nil {
		return err
	}
	defer unlock()
	for _, e := range []*end{&r.old, &r.to} {
		if err := r.look(e); err != nil {
			return err
		}
	}
	if r.to.id == 0 {
		if err := u.convertDot(r.to.h, r.to.name); err != nil {
			return err
		}
	}
	if err := r.linkName(&r.old); err != nil {
		return err
	}
	if r.flags&unix.RENAME_EXCHANGE != 0 {
		if err := r.linkName(&r.to); err != nil {
			return err
		}
		return r.exchange()
	}
	if r.to.id != 0 {
		if err := u.mayLose(r.to.d, r.to.h); err != nil {
			return err
		}
		if r.to.isDir() {
			empty, err := u.isEmpty(r.to.id, u.tab.dir(r.to.id), r.to.child)
			if err != nil {
				return err
			}
			if !empty {
				return unix.ENOTEMPTY
			}
		}
		if r.loss, err = u.beforeLoss(r.to.id, r.to.parent, r.to.place(), r.to.name, &r.to.f, r.to.f.upper && !r.to.f.index); err != nil {
			return err
		}
	}
	if err = r.mark(&r.old, &r.to); err == nil {
		err = r.move()
	}
	if err != nil {
		if r.loss != nil {
			r.loss.undo()
		}
		return err
	}
	return r.moved()
}

// look checks that a name still stands for what it did before the locks were taken.
func (r *renaming) look(e *end) error {
	e.d = r.u.tab.dir(e.parent)
	id, f, err := r.u.peek(e.parent, e.d, e.h, e.name)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err == nil {
		r.u.Forget(id, 1)
	}
	if id != e.id {
		return unix.EBUSY // it was replaced between two looks, which the kernel's locks rule out
	}
	e.f = f
	e.shows, err = r.u.lowerShows(e.d, e.name)
	return err
}

// linkName puts a name into the upper layer whose inode was copied up under another one.
func (r *renaming) linkName(e *end) error {
	if !e.f.index {
		return nil
	}
	p := r.u.indexPlace(&e.rec)
	if err := unix.Linkat(p.fd, p.name, e.h.fd, e.name, 0); err != nil {
		return err
	}
	// One link more in the upper layer is none more shown.
	delta := formatNlink(parseNlink(e.f.marks.nlink) - 1)
	if err := p.setxattr(r.u.up.overlay+xattrNlink, delta, 0); err != nil {
		return errors.Join(err, unix.Unlinkat(e.h.fd, e.name, 0))
	}
	e.f.index, e.f.marks.nlink = false, string(delta)
	e.f.st.Nlink++
	return nil
}

// mark prepares the inode at from for its new place: a directory goes on showing its lower contents there, and none
// that are there already; a file finds its data.
func (r *renaming) mark(from, to *end) error {
	u := r.u
	if err := u.markImpure(to.d, to.h); err != nil {
		return err
	}
	p := from.place()
	if from.rec.flags&flagMetacopy != 0 && from.f.marks.redirect == "" {
		base, err := u.lowerPath(from.parent)
		if err != nil {
			return err
		}
		return p.setxattr(u.up.overlay+xattrRedirect, []byte(path.Join(base, from.name)), 0)
	}
	if !from.isDir() {
		return nil
	}
	d := u.tab.dir(from.id)
	if len(d.lowers) > 0 {
		return r.redirect(from, d)
	}
	it, err := u.lowerItem(to.d, to.name)
	if err != nil || it.Mode != unix.S_IFDIR || from.f.marks.opaque {
		return err
	}
	return p.setxattr(u.up.overlay+xattrOpaque, []byte("y"), 0)
}

// redirect records where a directory's lower contents lie, which its new name does not tell.
func (r *renaming) redirect(from *end, d *dir) error {
	if d.redirect.Load() != nil && from.f.marks.redirect == *d.redirect.Load() {
		return nil
	}
	target, err := r.u.lowerPath(from.id)
	if err != nil {
		return err
	}
	err = from.place().setxattr(r.u.up.overlay+xattrRedirect, []byte(target), 0)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ERANGE) {
		return unix.EXDEV // the path is longer than the filesystem's xattrs: the caller copies instead
	}
	if err == nil {
		d.redirect.Store(&target)
	}
	return err
}

// exchange swaps two names.
func (r *renaming) exchange() error {
	if err := r.mark(&r.old, &r.to); err != nil {
		return err
	}
	if err := r.mark(&r.to, &r.old); err != nil {
		return err
	}
	if err := unix.Renameat2(r.old.h.fd, r.old.name, r.to.h.fd, r.to.name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	r.changed()
	if r.old.isDir() != r.to.isDir() && r.old.d != r.to.d {
		n := int32(1)
		if r.old.isDir() {
			n = -1
		}
		r.old.d.addSubdirs(n)
		r.to.d.addSubdirs(-n)
	}
	r.follow(&r.old, &r.to)
	r.follow(&r.to, &r.old)
	return nil
}

func (r *renaming) changed() {
	r.old.d.version.Add(1)
	r.to.d.version.Add(1)
}

// follow makes the inode that was known by from known by to.
func (r *renaming) follow(from, to *end) {
	rec, name, ok := r.u.tab.getNamed(from.id)
	if !ok || rec.parent != from.parent || name != from.name {
		// It is known by another of its names.
		r.u.loseAlias(from.id, from.parent, from.name)
		r.u.addAlias(from.id, to.parent, to.name)
		return
	}
	r.u.Forget(r.u.tab.move(from.id, to.parent, to.name), 1)
}

// move does the rename in the upper layer.
func (r *renaming) move() error {
	flags := uint(0)
	if r.old.shows {
		flags = unix.RENAME_WHITEOUT
	}
	err := unix.Renameat2(r.old.h.fd, r.old.name, r.to.h.fd, r.to.name, flags)
	dirInWay := errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST)
	if !r.old.isDir() || !dirInWay {
		return err
	}
	// A whiteout, or a directory that holds whiteouts alone, is in the way: it goes to the old name and from there.
	if err := unix.Renameat2(r.old.h.fd, r.old.name, r.to.h.fd, r.to.name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	var left string
	switch {
	case r.to.id != 0:
		left, err = r.u.takeDir(r.old.place(), true, r.old.shows)
	case r.old.shows:
		return nil
	default:
		err = unix.Unlinkat(r.old.h.fd, r.old.name, 0)
	}
	if err != nil {
		return errors.Join(err,
			unix.Renameat2(r.old.h.fd, r.old.name, r.to.h.fd, r.to.name, unix.RENAME_EXCHANGE))
	}
	if left != "" {
		r.left = append(r.left, left)
	}
	return nil
}

// moved records the rename.
func (r *renaming) moved() error {
	var err error
	if r.null != "" {
		err = unix.Renameat(r.u.up.work, r.null, r.old.h.fd, r.old.name)
	}
	r.changed()
	if r.old.isDir() {
		r.old.d.addSubdirs(-1)
		if r.to.id == 0 {
			r.to.d.addSubdirs(1)
		}
	}
	if r.loss != nil {
		err = errors.Join(err, r.loss.done())
	}
	r.follow(&r.old, &r.to)
	return err
}
