package overlay

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Link gives an inode one more name and returns it, held.
func (u *Union) Link(id, parent ID, name string, a *Attr) (ID, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	if err := u.copyUpMeta(id); err != nil {
		return 0, err
	}
	if err := u.fileLink(id); err != nil {
		return 0, err
	}
	var src *openFile
	err := u.withPlace(id, func(p place) error {
		fd, err := p.open(unix.O_PATH)
		if err == nil {
			src = newOpenFile(fd)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	defer src.Release()
	if err := u.linkAs(id, src, parent, name); err != nil {
		return 0, err
	}
	if err := u.GetAttr(id, a); err != nil {
		return 0, err
	}
	u.tab.hold(id)
	return id, nil
}

func (u *Union) linkAs(id ID, src *openFile, parent ID, name string) error {
	d, h, err := u.wlockDir(parent)
	if err != nil {
		return err
	}
	defer h.Release()
	defer d.mu.Unlock()
	link := func(fd int, name string, _ uint32) error {
		return unix.Linkat(unix.AT_FDCWD, place{fd: src.fd}.procPath(), fd, name, unix.AT_SYMLINK_FOLLOW)
	}
	seen := false
	if d.lowers != nil {
		if seen, err = u.shadowed(d, h, name); err != nil {
			return err
		}
	}
	if seen {
		return unix.EEXIST
	}
	if err := errors.Join(u.convertDot(h, name), u.markImpure(d, h)); err != nil {
		return err
	}
	if err = link(h.fd, name, 0); errors.Is(err, unix.EEXIST) {
		err = u.linkOverWhiteout(place{h.fd, name}, link)
	}
	if err != nil {
		return err
	}
	d.version.Add(1)
	u.reveal(id, parent, name)
	u.addAlias(id, parent, name)
	return nil
}

func (u *Union) linkOverWhiteout(p place, link func(fd int, name string, perm uint32) error) error {
	var st unix.Stat_t
	if err := p.stat(&st); err != nil {
		return err
	}
	switch hides, err := isWhiteout(p, &st); {
	case err != nil:
		return err
	case !hides:
		return unix.EEXIST
	}
	tmp := u.up.tempName()
	if err := link(u.up.work, tmp, 0); err != nil {
		return err
	}
	err := unix.Renameat(u.up.work, tmp, p.fd, p.name)
	if err != nil {
		_ = unix.Unlinkat(u.up.work, tmp, 0) // the first error is the one to tell
	}
	return err
}
