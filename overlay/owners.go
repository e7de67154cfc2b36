package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// initOwners decides where the upper layer keeps owners and modes, and has its root say so.
func (up *upper) initOwners(dir string, want Owners) error {
	p := at(up.root)
	found, err := foundOverrides(p)
	if err != nil {
		return fmt.Errorf("upper directory %s: %w", dir, err)
	}
	switch want {
	case OwnersInode:
		return nil
	case OwnersAsFound:
		up.over = found
	case OwnersSecurity:
		up.over = overrideSecurity
	case OwnersUser:
		up.over = overrideContainers
		if found.user() {
			up.over = found
		}
	}
	if up.over == "" || up.over == found {
		return nil
	}
	var st unix.Stat_t
	if err := p.stat(&st); err != nil {
		return err
	}
	if err := p.setxattr(string(up.over), formatOverride(st.Uid, st.Gid, st.Mode, 0), 0); err != nil {
		return fmt.Errorf("%w: %s: %s: %w", ErrUpperUnsuitable, dir, up.over, err)
	}
	return nil
}

// own gives an inode that no one else changes its owner, mode and, where the inode only stands for it, its kind: mode
// has the type, rdev the device's numbers as stat(2) has them. The mode is chmod's to set where the inode keeps it.
func (up *upper) own(p place, uid, gid, mode uint32, rdev uint64) error {
	switch {
	case up.over == "":
		return p.chown(int(uid), int(gid))
	case mode&unix.S_IFMT == unix.S_IFLNK && up.over.user():
		return up.ownLink(p, uid, gid, false)
	}
	if err := up.setMode(p, mode); err != nil { // first, since setting the xattr takes write permission
		return err
	}
	return p.setxattr(string(up.over), formatOverride(uid, gid, mode, rdev), 0)
}

// making is the permission bits that a new inode is made with until it is whole.
func (up *upper) making(mode uint32) uint32 {
	if up.over != "" {
		return accessible(mode)
	}
	return mode & 0o7777
}

// setMode gives an inode the mode bits that it has itself.
func (up *upper) setMode(p place, mode uint32) error {
	switch {
	case mode&unix.S_IFMT == unix.S_IFLNK:
		return nil
	case up.over != "":
		return p.chmod(accessible(mode))
	}
	return p.chmod(mode & 0o7777)
}

// ownLink gives a symlink an owner. Symlinks have no user.* xattrs, so one that is not the server's own becomes a
// regular file that holds the target and says that it is a symlink; with always, whoever it belongs to.
func (up *upper) ownLink(p place, uid, gid uint32, always bool) error {
	var st unix.Stat_t
	if err := p.stat(&st); err != nil {
		return err
	}
	v := formatOverride(uid, gid, unix.S_IFLNK|0o777, 0)
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		return p.setxattr(string(up.over), v, 0)
	}
	if !always && st.Uid == uid && st.Gid == gid {
		return nil
	}
	target, err := p.readlink()
	if err != nil {
		return err
	}
	tmp := place{up.work, up.tempName()}
	fd, err := openRetry(tmp.fd, tmp.name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	err = writeAll(fd, []byte(target), 0)
	if err = errors.Join(err, unix.Close(fd)); err == nil {
		err = tmp.setxattr(string(up.over), v, 0)
	}
	if err == nil {
		err = tmp.utimens(&[2]unix.Timespec{st.Atim, st.Mtim})
	}
	if err == nil {
		err = unix.Renameat(tmp.fd, tmp.name, p.fd, p.name)
	}
	if err != nil {
		_ = unix.Unlinkat(tmp.fd, tmp.name, 0) // the first error is the one to tell
	}
	return err
}

// special makes a device, fifo or socket, or the regular file that stands for it. perm are its mode bits.
func (up *upper) special(p place, mode, perm, rdev uint32) error {
	if up.over.user() {
		mode, perm, rdev = unix.S_IFREG, accessible(perm), 0
	}
	return unix.Mknodat(p.fd, p.name, mode&unix.S_IFMT|perm, int(decodeDev(rdev))) // #nosec G115 -- 32 bits
}

// changeOwners is chown and chmod of an inode that keeps owner and mode in an xattr. Like chown(2) it takes setuid,
// setgid and capabilities away with a new owner. The caller keeps others from changing the inode.
func (up *upper) changeOwners(p place, s *SetAttr) error {
	var st unix.Stat_t
	if err := up.over.stat(p, &st); err != nil {
		return err
	}
	if s.UID != nil || s.GID != nil {
		if s.UID != nil {
			st.Uid = *s.UID
		}
		if s.GID != nil {
			st.Gid = *s.GID
		}
		if t := st.Mode & unix.S_IFMT; t != unix.S_IFDIR {
			st.Mode = t | withoutPriv(st.Mode)
			if err := up.dropCapability(p); err != nil {
				return err
			}
		}
	}
	if s.Mode != nil {
		st.Mode = st.Mode&unix.S_IFMT | *s.Mode&0o7777
	}
	return up.own(p, st.Uid, st.Gid, st.Mode, st.Rdev)
}

// dropCapability removes the file's capabilities where the host does not when they should go.
func (up *upper) dropCapability(p place) error {
	err := p.removexattr(up.over.encode(xattrCapability))
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) || isPermission(err) {
		return nil // a symlink has none
	}
	return err
}

// killPriv clears setuid, and setgid where it does not stand for mandatory locking. Capabilities the host's own write or
// truncate has dropped, unless they are kept under another name.
func (up *upper) killPriv(fd int) error {
	p := place{fd: fd}
	var st unix.Stat_t
	if err := up.over.stat(p, &st); err != nil {
		return err
	}
	mode, kept := st.Mode&0o7777, withoutPriv(st.Mode)
	switch {
	case kept == mode:
		return nil
	case up.over == "":
		return unix.Fchmod(fd, kept)
	}
	return up.own(p, st.Uid, st.Gid, st.Mode&unix.S_IFMT|kept, st.Rdev)
}

// setACL sets the ACL that holds for an inode whose mode is in an xattr: it decides over permissions, too.
func (up *upper) setACL(p place, set func(p place) error) error {
	var shown, own unix.Stat_t
	if err := up.over.stat(p, &shown); err != nil {
		return err
	}
	if err := set(p); err != nil {
		return err
	}
	if err := p.stat(&own); err != nil {
		return err
	}
	return up.own(p, shown.Uid, shown.Gid, shown.Mode&^0o777|own.Mode&0o777, shown.Rdev)
}

// fileLink has a regular file stand for a symlink of which there are to be more names: none of them could be replaced.
func (u *Union) fileLink(id ID) error {
	rec, _ := u.tab.get(id)
	if rec.mode != unix.S_IFLNK || !u.up.over.user() {
		return nil
	}
	return u.chownLink(id, nil)
}

// chownLink gives the symlink id an owner where that may take another inode. With s nil, the inode alone is replaced. It
// goes on with its inode number, which by then a new file may have: after a remount, the two can be numbered otherwise.
func (u *Union) chownLink(id ID, s *SetAttr) error {
	for {
		rec, ok := u.tab.get(id)
		switch {
		case !ok:
			return unix.ESTALE
		case rec.flags&(flagPinned|flagIndexed) != 0:
			return u.withPlace(id, func(p place) error { return u.chownInPlace(p, s) })
		}
		h, err := u.dirFD(rec.parent)
		if err != nil {
			return err
		}
		moved, err := u.chownLinkIn(rec.parent, h, id, s)
		h.Release()
		if !moved {
			return err
		}
	}
}

// chownInPlace is for a symlink that cannot be replaced: several names lead to it, or none.
func (u *Union) chownInPlace(p place, s *SetAttr) error {
	if s == nil {
		return nil
	}
	var st unix.Stat_t
	if err := p.stat(&st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.EPERM
	}
	return u.up.changeOwners(p, s)
}

func (u *Union) chownLinkIn(parent ID, h *openFile, id ID, s *SetAttr) (moved bool, err error) {
	pd := u.tab.dir(parent)
	if pd == nil {
		return false, unix.ESTALE
	}
	pd.mu.Lock()
	defer pd.mu.Unlock()
	rec, name, ok := u.tab.getNamed(id)
	switch {
	case !ok:
		return false, unix.ESTALE
	case rec.parent != parent || rec.flags&(flagPinned|flagIndexed) != 0:
		return true, nil
	}
	p := place{h.fd, name}
	var st, dir unix.Stat_t
	if err := errors.Join(p.stat(&st), at(h).stat(&dir)); err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Nlink > 1 {
		return false, u.chownInPlace(p, s)
	}
	if err := u.markImpure(pd, h); err != nil {
		return false, err
	}
	if s == nil {
		err = u.up.ownLink(p, st.Uid, st.Gid, true)
	} else {
		err = u.up.changeOwners(p, s)
	}
	if err != nil {
		return false, err
	}
	before := st.Ino
	if err := p.stat(&st); err != nil || st.Ino == before {
		return false, err
	}
	var number [8]byte // the one shown stays
	binary.LittleEndian.PutUint64(number[:], rec.ino)
	if err := p.setxattr(u.up.overlay+xattrNumber, number[:], 0); err != nil {
		return false, err
	}
	u.tab.update(id, func(r *record) { r.upIno = st.Ino })
	pd.version.Add(1)
	return false, at(h).utimens(&[2]unix.Timespec{dir.Atim, dir.Mtim})
}
