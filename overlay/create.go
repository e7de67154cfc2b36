package overlay

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Cred is who makes an inode.
type Cred struct {
	UID, GID uint32
	Umask    uint32 // taken off the mode unless the directory has a default ACL
}

// wlockDir brings a directory up and write-locks its names.
func (u *Union) wlockDir(id ID) (*dir, *openFile, error) {
	if u.up == nil {
		return nil, nil, unix.EROFS
	}
	d := u.tab.dir(id)
	if d == nil {
		return nil, nil, unix.ENOTDIR
	}
	if rec, _ := u.tab.get(id); rec.flags&flagUnlinked != 0 {
		return nil, nil, unix.ENOENT
	}
	if err := u.copyUpMeta(id); err != nil {
		return nil, nil, err
	}
	h, err := u.dirFD(id)
	if err != nil {
		return nil, nil, err
	}
	d.mu.Lock()
	if rec, _ := u.tab.get(id); rec.flags&flagUnlinked != 0 {
		d.mu.Unlock()
		h.Release()
		return nil, nil, unix.ENOENT
	}
	return d, h, nil
}

// inheritance tells what a new inode takes over from its directory. The caller holds d.mu.
func (u *Union) inheritance(d *dir, h *openFile) (uint32, error) {
	if v := d.inherit.Load(); v != 0 {
		return v, nil
	}
	v := inheritKnown
	p := at(h)
	var st unix.Stat_t
	if err := u.up.over.stat(p, &st); err != nil {
		return 0, err
	}
	if st.Mode&unix.S_ISGID != 0 {
		v |= inheritGroup
	}
	switch _, err := p.getxattr(xattrDefaultACL, nil); {
	case err == nil:
		v |= inheritACL
	case !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP):
		return 0, err
	}
	var stx unix.Statx_t
	if err := unix.Statx(p.fd, p.name, noFollow, 0, &stx); err != nil {
		return 0, err
	}
	if stx.Attributes&unix.STATX_ATTR_APPEND != 0 {
		v |= appendOnly
	}
	d.inherit.Store(v)
	return v, nil
}

// making is an inode being made under a new name.
type making struct {
	u    *Union
	d    *dir
	h    *openFile
	name string
	cred Cred
	mode uint32 // type and permissions asked for
	rdev uint32
	make func(fd int, name string, perm uint32) error
	st   unix.Stat_t // of the inode made
}

// run makes the inode. The caller holds d.mu.
func (m *making) run() error {
	if m.d.lowers != nil {
		seen, err := m.u.shadowed(m.d, m.h, m.name)
		if err != nil {
			return err
		}
		if seen {
			return unix.EEXIST
		}
	}
	inherit, err := m.u.inheritance(m.d, m.h)
	if err != nil {
		return err
	}
	perm := m.mode & 0o7777
	if inherit&inheritACL == 0 {
		perm &^= m.cred.Umask
	}
	if err := m.u.convertDot(m.h, m.name); err != nil {
		return err
	}
	p := place{m.h.fd, m.name}
	err = m.make(p.fd, p.name, m.u.up.making(m.mode&unix.S_IFMT|perm))
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if serr := p.stat(&st); serr != nil {
			return serr
		}
		switch hides, err := isWhiteout(p, &st); {
		case err != nil:
			return err
		case !hides:
			return unix.EEXIST
		}
		return m.overWhiteout(inherit, perm)
	}
	if err != nil {
		return err
	}
	if err := m.finish(p, inherit, perm); err != nil {
		_ = removeTree(p.fd, p.name) // the first error is the one to tell
		return err
	}
	return nil
}

// shadowed reports whether a name shows that is in no upper directory.
func (u *Union) shadowed(d *dir, h *openFile, name string) (bool, error) {
	seen, err := u.lowerShows(d, name)
	if err != nil || !seen {
		return false, err
	}
	var st unix.Stat_t
	err = place{h.fd, name}.stat(&st)
	if errors.Is(err, unix.ENOENT) {
		hidden, err := u.upperHides(h, name)
		return !hidden, err
	}
	return false, err
}

// lowerShows reports whether the lower layers alone show a name in a directory.
func (u *Union) lowerShows(d *dir, name string) (bool, error) {
	it, err := u.lowerItem(d, name)
	return it.Mode != 0, err
}

// lowerItem returns what the topmost lower layer that knows a name says of it, a whiteout when none does. Its Entry is
// not held.
func (u *Union) lowerItem(d *dir, name string) (Item, error) {
	for _, r := range d.lowers {
		it, err := u.lowers[r.layer].Lookup(r.entry, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil && !it.IsWhiteout() {
			u.lowers[r.layer].Forget(it.Entry)
		}
		return it, err
	}
	return Item{}, nil
}

// finish gives a new inode its owner and the mode bits that changing the owner took away.
func (m *making) finish(p place, inherit, perm uint32) error {
	if m.u.up.over != "" {
		return m.finishOverride(p, inherit, perm)
	}
	if err := p.stat(&m.st); err != nil {
		return err
	}
	gid := m.cred.GID
	if inherit&inheritGroup != 0 {
		gid = m.st.Gid
	}
	if m.st.Uid == m.cred.UID && m.st.Gid == gid {
		return nil
	}
	if err := p.chown(int(m.cred.UID), int(gid)); err != nil {
		return err
	}
	if t := m.mode & unix.S_IFMT; perm&0o6000 != 0 && t != unix.S_IFDIR && t != unix.S_IFLNK {
		if err := p.chmod(perm); err != nil {
			return err
		}
	}
	return p.stat(&m.st)
}

// finishOverride is finish where owners and modes are in xattrs: the host makes nothing inherit them.
func (m *making) finishOverride(p place, inherit, perm uint32) error {
	up, gid, t := m.u.up, m.cred.GID, m.mode&unix.S_IFMT
	var st unix.Stat_t
	if inherit&inheritGroup != 0 {
		if err := up.over.stat(at(m.h), &st); err != nil {
			return err
		}
		if gid = st.Gid; t == unix.S_IFDIR {
			perm |= unix.S_ISGID
		}
	}
	if inherit&inheritACL != 0 && t != unix.S_IFLNK {
		if err := p.stat(&st); err != nil {
			return err
		}
		perm = perm&^0o777 | perm&st.Mode&0o777
	}
	if err := up.own(p, m.cred.UID, gid, t|perm, decodeDev(m.rdev)); err != nil {
		return err
	}
	return up.over.stat(p, &m.st)
}

// overWhiteout makes the inode in the work directory and puts it in the whiteout's place in one step.
func (m *making) overWhiteout(inherit, perm uint32) error {
	up := m.u.up
	at, clean, err := m.workAlike(inherit)
	if err != nil {
		return err
	}
	defer clean()
	tmp := place{at, up.tempName()}
	if err := m.make(tmp.fd, tmp.name, m.u.up.making(m.mode&unix.S_IFMT|perm)); err != nil {
		return err
	}
	err = m.finish(tmp, inherit, perm)
	if err == nil {
		err = m.swapIn(tmp)
	}
	if err != nil {
		_ = removeTree(tmp.fd, tmp.name) // the first error is the one to tell
	}
	return err
}

// swapIn puts a prepared inode in a whiteout's place. A directory hides what the whiteout hid.
func (m *making) swapIn(tmp place) error {
	if m.mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.Renameat(tmp.fd, tmp.name, m.h.fd, m.name)
	}
	if err := tmp.setxattr(m.u.up.overlay+xattrOpaque, []byte("y"), 0); err != nil {
		return err
	}
	if err := unix.Renameat2(tmp.fd, tmp.name, m.h.fd, m.name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	return unix.Unlinkat(tmp.fd, tmp.name, 0)
}

// workAlike returns a directory on the side in which a new inode inherits what it would in d, and a function that
// removes it again.
func (m *making) workAlike(inherit uint32) (int, func(), error) {
	up := m.u.up
	if inherit&(inheritGroup|inheritACL) == 0 {
		return up.work, func() {}, nil
	}
	name := up.tempName()
	if err := unix.Mkdirat(up.work, name, 0o700); err != nil {
		return -1, nil, err
	}
	remove := func() { _ = removeTree(up.work, name) } // work is cleared at the next start
	fd, err := openDir(up.work, name)
	if err != nil {
		remove()
		return -1, nil, err
	}
	clean := func() {
		_ = unix.Close(fd) // a directory: nothing to report
		remove()
	}
	if err := m.likeParent(place{up.work, name}, inherit); err != nil {
		clean()
		return -1, nil, err
	}
	return fd, clean, nil
}

func (m *making) likeParent(p place, inherit uint32) error {
	parent := at(m.h)
	if inherit&inheritGroup != 0 && m.u.up.over == "" {
		var st unix.Stat_t
		if err := parent.stat(&st); err != nil {
			return err
		}
		if err := p.chown(-1, int(st.Gid)); err != nil {
			return err
		}
		if err := p.chmod(0o2700); err != nil {
			return err
		}
	}
	if inherit&inheritACL == 0 {
		return nil
	}
	acl, err := parent.value(xattrDefaultACL)
	if err != nil {
		return err
	}
	return p.setxattr(xattrDefaultACL, acl, 0)
}

// create makes an inode under a new name and returns it, held.
func (u *Union) create(parent ID, name string, c Cred, mode, rdev uint32, a *Attr,
	mk func(fd int, name string, perm uint32) error,
) (ID, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	d, h, err := u.wlockDir(parent)
	if err != nil {
		return 0, err
	}
	defer h.Release()
	defer d.mu.Unlock()
	m := &making{u: u, d: d, h: h, name: name, cred: c, mode: mode, rdev: rdev, make: mk}
	if err := m.run(); err != nil {
		return 0, err
	}
	d.version.Add(1)
	f := newFound()
	f.upper, f.st, f.mode, f.ino = true, m.st, m.st.Mode&unix.S_IFMT, upperIno(m.st.Ino)
	if f.mode == unix.S_IFDIR {
		d.addSubdirs(1)
	}
	id, _, err := u.intern(parent, name, &f)
	if err != nil {
		return 0, err
	}
	return id, u.fillAttr(id, &f, a)
}

// Mknod makes a regular file, device, fifo or socket. rdev is in the form of Attr.Rdev.
func (u *Union) Mknod(parent ID, name string, c Cred, mode, rdev uint32, a *Attr) (ID, error) {
	return u.create(parent, name, c, mode, rdev, a, func(fd int, name string, perm uint32) error {
		p := place{fd, name}
		if err := u.up.special(p, mode, perm, rdev); err != nil {
			return err
		}
		if mode&unix.S_IFMT != unix.S_IFCHR || rdev != 0 || u.up.over.user() {
			return nil
		}
		err := u.up.showNull(p)
		if err != nil {
			_ = unix.Unlinkat(fd, name, 0) // the first error is the one to tell
		}
		return err
	})
}

// Mkdir makes a directory.
func (u *Union) Mkdir(parent ID, name string, c Cred, mode uint32, a *Attr) (ID, error) {
	return u.create(parent, name, c, mode&0o7777|unix.S_IFDIR, 0, a, unix.Mkdirat)
}

// Symlink makes a symlink.
func (u *Union) Symlink(parent ID, name, target string, c Cred, a *Attr) (ID, error) {
	return u.create(parent, name, c, unix.S_IFLNK|0o777, 0, a, func(fd int, name string, _ uint32) error {
		return unix.Symlinkat(target, fd, name)
	})
}

// Tmpfile makes a regular file without a name.
func (u *Union) Tmpfile(parent ID, c Cred, mode uint32, a *Attr) (ID, error) {
	d, h, err := u.wlockDir(parent)
	if err != nil {
		return 0, err
	}
	defer h.Release()
	defer d.mu.Unlock()
	m := &making{u: u, d: d, h: h, cred: c, mode: mode&0o7777 | unix.S_IFREG}
	inherit, err := u.inheritance(d, h)
	if err != nil {
		return 0, err
	}
	perm := mode & 0o7777
	if inherit&inheritACL == 0 {
		perm &^= c.Umask
	}
	fd, err := openRetry(h.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, u.up.making(unix.S_IFREG|perm))
	if err != nil {
		return 0, err
	}
	file := newOpenFile(fd)
	if err := m.finish(place{fd: fd}, inherit, perm); err != nil {
		file.Release()
		return 0, err
	}
	f := newFound()
	f.upper, f.st, f.mode, f.ino = true, m.st, unix.S_IFREG, upperIno(m.st.Ino)
	id, _, err := u.intern(parent, "", &f)
	if err != nil {
		file.Release()
		return 0, err
	}
	u.setPin(id, file)
	u.tab.update(id, func(r *record) { r.flags |= flagPinned | flagUnlinked })
	return id, u.fillAttr(id, &f, a)
}
