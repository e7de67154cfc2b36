package overlay

import (
	"errors"
	"path"
	"sync"

	"golang.org/x/sys/unix"
)

// copyUp is one inode being brought into the upper layer.
type copyUp struct {
	cond  sync.Cond // of Union.copyMu: one of the two below has changed
	ended bool
	early *early // takes writes meanwhile; nil: they wait. Set once, by whoever brings the inode up
}

// allData asks copyUpData for the whole of a file.
const allData int64 = 1<<63 - 1

// copyUpMeta makes sure that an inode has its own in the upper layer; a file's data may stay in the lower one.
func (u *Union) copyUpMeta(id ID) error { return u.copyUp(id, 0, false) }

// copyUpData makes sure that the first size bytes of a file are in the upper layer, and that none of the lower layers'
// shows after them.
func (u *Union) copyUpData(id ID, size int64) error { return u.copyUp(id, size, true) }

func (u *Union) copyUp(id ID, size int64, data bool) error {
	for {
		rec, ok := u.tab.get(id)
		switch {
		case !ok:
			return unix.ESTALE
		case rec.flags&flagUpper != 0 && (!data || rec.flags&flagMetacopy == 0):
			return nil
		case u.up == nil:
			return unix.EROFS
		}
		u.copyMu.Lock()
		c := u.copies[id]
		if c == nil {
			c = &copyUp{cond: sync.Cond{L: &u.copyMu}}
			u.copies[id] = c
			u.copyMu.Unlock()
			return u.carryCopyUp(id, c, size, data)
		}
		c.await()
		u.copyMu.Unlock()
	}
}

// await returns when the copy-up has ended. The caller holds copyMu.
func (c *copyUp) await() {
	for !c.ended {
		c.cond.Wait()
	}
}

// awaitCopy returns when the copy-up of an inode has ended that is under way.
func (u *Union) awaitCopy(id ID) {
	u.copyMu.Lock()
	defer u.copyMu.Unlock()
	if c := u.copies[id]; c != nil {
		c.await()
	}
}

func (u *Union) carryCopyUp(id ID, c *copyUp, size int64, data bool) (err error) {
	err = unix.EIO // when a layer panics: others wait
	defer func() { u.endCopyUp(id, c, err) }()
	err = u.runCopyUp(id, c, size, data)
	return err
}

// endCopyUp lets those go on who wait for a copy-up. Writes that were answered and are lost are told to the next who asks.
func (u *Union) endCopyUp(id ID, c *copyUp, err error) {
	if c.early != nil {
		c.early.shut()
		if err != nil && c.early.acked {
			u.tab.update(id, func(r *record) { r.flags |= flagLost })
		}
		u.admitted.Add(-1)
	}
	u.copyMu.Lock()
	delete(u.copies, id)
	c.ended = true
	c.cond.Broadcast()
	u.copyMu.Unlock()
	if c.early != nil {
		c.early.release()
	}
}

// runCopyUp does the work of copyUp; no one else does it for this inode.
func (u *Union) runCopyUp(id ID, c *copyUp, size int64, data bool) error {
	rec, name, ok := u.tab.getNamed(id)
	switch {
	case !ok:
		return unix.ESTALE
	case rec.flags&flagUpper == 0:
		return u.newUpper(id, c, &rec, name, size, data)
	case data && rec.flags&flagMetacopy != 0:
		return u.fetchData(id, c, &rec, size)
	}
	return nil
}

// newUpper prepares the upper inode in the work directory and moves it into place.
func (u *Union) newUpper(id ID, c *copyUp, rec *record, name string, size int64, data bool) error {
	if rec.flags&flagUnlinked == 0 {
		if err := u.copyUpMeta(rec.parent); err != nil {
			return err
		}
	}
	layer, entry, err := u.lowerShown(id, rec)
	if err != nil {
		return err
	}
	var a Attr
	if err := u.lowers[layer].Attr(entry, &a); err != nil {
		return err
	}
	w := &working{u: u, id: id, c: c, layer: layer, entry: entry, a: &a, tmp: u.up.tempName()}
	if err = w.prepare(rec, name, size, data); err == nil {
		err = w.install(rec)
	}
	if err != nil {
		_ = removeTree(u.up.work, w.tmp) // the first error is the one to tell; work is cleared at the next start
	}
	return err
}

// working is an inode being prepared in the work directory.
type working struct {
	u        *Union
	id       ID
	c        *copyUp
	layer    int
	entry    Entry
	a        *Attr
	tmp      string
	metacopy bool
	st       unix.Stat_t // of the prepared inode
}

func (w *working) place() place { return place{w.u.up.work, w.tmp} }

func (w *working) prepare(rec *record, name string, size int64, data bool) error {
	var err error
	p := w.place()
	switch w.a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = w.makeFile(rec, name, size, data)
	case unix.S_IFDIR:
		err = unix.Mkdirat(p.fd, p.name, 0o700)
	case unix.S_IFLNK:
		var target string
		if target, err = w.u.lowers[w.layer].Readlink(w.entry); err == nil {
			err = unix.Symlinkat(target, p.fd, p.name)
		}
		if err == nil && w.u.up.over.user() { // a symlink could not hold the origin mark
			err = w.u.up.ownLink(p, w.a.UID, w.a.GID, true)
		}
	default:
		err = w.u.up.special(p, w.a.Mode, 0o600, w.a.Rdev)
	}
	if err != nil {
		return err
	}
	if err := w.u.copyAttrs(p, w.layer, w.entry, w.a, !w.c.written()); err != nil {
		return err
	}
	if err := w.u.setOrigin(p, rec, w.layer, w.a); err != nil {
		return err
	}
	return p.stat(&w.st)
}

// setOrigin records the inode number shown, where the filesystem can hold it: user.* xattrs exist on files and
// directories alone.
func (u *Union) setOrigin(p place, rec *record, layer int, a *Attr) error {
	v := u.origin(layer, a.Ino)
	if u.modes.NoIndex && rec.ino>>inoBits == inoBesides {
		v = apartOrigin(rec.ino)
	}
	err := p.setxattr(u.up.overlay+xattrOrigin, v, 0)
	if t := a.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR && isPermission(err) {
		return nil
	}
	return err
}

// makeFile makes the regular file, with its data unless they are not asked for.
func (w *working) makeFile(rec *record, name string, size int64, data bool) error {
	fd, err := openRetry(w.u.up.work, w.tmp, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	full := int64(w.a.Size) // #nosec G115 -- a layer's sizes are below 2^63
	times := [2]unix.Timespec{w.a.Atime.unix(), w.a.Mtime.unix()}
	switch {
	case data:
		err = w.u.copyData(w.c, fd, rec, full, min(size, full), &times)
	case w.u.modes.NoMetacopy:
		err = w.u.copyData(w.c, fd, rec, full, full, &times)
	case full > 0:
		err = w.markMetacopy(rec, name, fd, full, &times)
	}
	w.a.Atime, w.a.Mtime = timespec(times[0]), timespec(times[1])
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

// markMetacopy leaves the data in the lower layer and says where they are.
func (w *working) markMetacopy(rec *record, name string, fd int, size int64, times *[2]unix.Timespec) error {
	target := ""
	if rec.flags&flagUnlinked == 0 {
		base, err := w.u.lowerPath(rec.parent)
		if err != nil {
			return err
		}
		target = path.Join(base, name)
	}
	p := place{fd: fd}
	err := p.setxattr(w.u.up.overlay+xattrRedirect, []byte(target), 0)
	if err == nil {
		err = p.setxattr(w.u.up.overlay+xattrMetacopy, nil, 0)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ERANGE) {
		_ = p.removexattr(w.u.up.overlay + xattrRedirect) // absent when it was this that did not fit
		return w.u.copyData(w.c, fd, rec, size, size, times)
	}
	if err != nil {
		return err
	}
	w.metacopy = true
	return unix.Ftruncate(fd, size)
}

// install moves the prepared inode to where it belongs. Its directory may be renamed meanwhile, or its name removed.
func (w *working) install(rec *record) error {
	for {
		if rec.flags&flagUnlinked != 0 {
			return w.installPinned()
		}
		h, err := w.u.dirFD(rec.parent)
		if err != nil {
			return err
		}
		moved, err := w.installIn(rec.parent, h)
		h.Release()
		if !moved {
			return err
		}
		now, ok := w.u.tab.get(w.id)
		if !ok {
			return unix.ESTALE
		}
		*rec = now
		if rec.flags&flagUnlinked == 0 {
			if err := w.u.copyUpMeta(rec.parent); err != nil {
				return err
			}
		}
	}
}

func (w *working) installIn(parent ID, h *openFile) (moved bool, err error) {
	u := w.u
	pd := u.tab.dir(parent)
	if pd == nil {
		return false, unix.ESTALE
	}
	pd.mu.Lock()
	defer pd.mu.Unlock()
	rec, name, ok := u.tab.getNamed(w.id)
	switch {
	case !ok:
		return false, unix.ESTALE
	case rec.parent != parent || rec.flags&flagUnlinked != 0:
		return true, nil
	}
	// The directory itself does not change by this: its times stay.
	dp := at(h)
	var before unix.Stat_t
	if err := dp.stat(&before); err != nil {
		return false, err
	}
	if err := u.markImpure(pd, h); err != nil {
		return false, err
	}
	if rec.flags&flagLinked != 0 {
		err = w.linkIndexed(&rec, h, name)
	} else {
		err = unix.Renameat2(u.up.work, w.tmp, h.fd, name, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return false, err
	}
	pd.version.Add(1)
	u.tab.update(w.id, func(r *record) { w.done(r) })
	return false, dp.utimens(&[2]unix.Timespec{before.Atim, before.Mtim})
}

// done records that the inode is in the upper layer.
func (w *working) done(r *record) {
	r.flags |= flagUpper
	r.upIno = w.st.Ino
	if w.metacopy {
		r.flags |= flagMetacopy
	}
	if r.flags&flagLinked != 0 && r.flags&flagUnlinked == 0 {
		r.flags |= flagIndexed
	}
}

// markImpure says that a directory's listing holds inode numbers of lower inodes.
func (u *Union) markImpure(d *dir, h *openFile) error {
	if d.impure.Load() {
		return nil
	}
	if err := at(h).setxattr(u.up.overlay+xattrImpure, []byte("y"), 0); err != nil {
		return err
	}
	d.impure.Store(true)
	return nil
}

// linkIndexed puts a file that has several names in the lower layer into the index, where they all find it, and links
// the one name that is known.
func (w *working) linkIndexed(rec *record, h *openFile, name string) error {
	up := w.u.up
	ip := w.u.indexPlace(rec)
	mark, links := up.overlay+xattrNlink, int(w.a.Nlink)
	// In the index it has one link and stands for all those of the lower file, which is whole if a crash ends it here.
	if err := w.place().setxattr(mark, formatNlink(links-1), 0); err != nil {
		return err
	}
	if err := unix.Renameat2(up.work, w.tmp, ip.fd, ip.name, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	err := unix.Linkat(ip.fd, ip.name, h.fd, name, 0)
	if err == nil {
		more := 0
		if more, err = w.indexForKernel(ip); err == nil {
			err = ip.setxattr(mark, formatNlink(links-2-more), 0)
		}
		if err == nil {
			return nil
		}
		if more > 0 {
			err = errors.Join(err, up.dropKernelIndexed(ip))
		}
		err = errors.Join(err, unix.Unlinkat(h.fd, name, 0))
	}
	return errors.Join(err, unix.Renameat2(ip.fd, ip.name, up.work, w.tmp, unix.RENAME_NOREPLACE))
}

// installPinned keeps an inode whose last name is gone: it lives as long as it is held.
func (w *working) installPinned() error {
	p := w.place()
	flags, unlink := unix.O_PATH, 0
	switch w.a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		flags = unix.O_RDWR
	case unix.S_IFDIR:
		unlink = unix.AT_REMOVEDIR
	}
	fd, err := p.open(flags)
	if err != nil {
		return err
	}
	f := newOpenFile(fd)
	f.path = flags == unix.O_PATH
	if err := unix.Unlinkat(p.fd, p.name, unlink); err != nil {
		f.Release()
		return err
	}
	w.u.setPin(w.id, f)
	w.u.tab.update(w.id, func(r *record) {
		w.done(r)
		r.flags |= flagPinned
	})
	return nil
}
