package overlay

import "golang.org/x/sys/unix"

// SetAttr says which attributes to change and to what; nil fields stay.
type SetAttr struct {
	Mode     *uint32 // permission bits
	UID, GID *uint32
	Size     *int64
	Atime    *unix.Timespec // Nsec may be UTIME_NOW
	Mtime    *unix.Timespec
	KillPriv bool // clear setuid, setgid and capabilities: the caller may not keep them (with Size)
}

// SetAttr changes attributes of an inode and fills in what they are then.
func (u *Union) SetAttr(id ID, s *SetAttr, a *Attr) error {
	if rec, _ := u.tab.get(id); s.Mode != nil && rec.mode == unix.S_IFLNK {
		return unix.EOPNOTSUPP // chmod(2) would follow it out of the upper directory
	}
	if s.timesAlone() {
		if e := u.earlyOf(id); e != nil && e.setTimes(s) {
			return u.GetAttr(id, a)
		}
		if same, err := u.hasTimes(id, s, a); same || err != nil {
			return err
		}
	} else {
		u.awaitCopy(id)
	}
	var err error
	if s.Size != nil {
		err = u.truncate(id, *s.Size, s.KillPriv)
	} else {
		err = u.copyUpMeta(id)
	}
	if err != nil {
		return err
	}
	if rec, _ := u.tab.get(id); (s.UID != nil || s.GID != nil) && rec.mode == unix.S_IFLNK && u.up.over.user() {
		if err := u.chownLink(id, s); err != nil {
			return err
		}
		only := *s
		only.UID, only.GID = nil, nil
		s = &only
	}
	if s.Mode != nil || s.UID != nil || s.GID != nil || s.Atime != nil || s.Mtime != nil {
		if err := u.applyTimes(id, s); err != nil {
			return err
		}
	}
	if d := u.tab.dir(id); d != nil {
		d.inherit.Store(0)
	}
	return u.GetAttr(id, a)
}

// hasTimes reports whether an inode that no name is left of has the time of modification already that alone is to be set,
// and fills in its attributes then. With its last name its time of change changed, which a kernel that keeps times
// writes back together with the other one (fs/fuse/dir.c: fuse_entry_unlinked, fuse_flush_times): to copy a file up for
// that, which goes with its last user, would cost more than all else when a lower tree is deleted.
func (u *Union) hasTimes(id ID, s *SetAttr, a *Attr) (bool, error) {
	if rec, _ := u.tab.get(id); rec.flags&flagUnlinked == 0 || s.Atime != nil || s.Mtime == nil {
		return false, nil
	}
	if err := u.GetAttr(id, a); err != nil {
		return false, err
	}
	return a.Mtime.unix() == *s.Mtime, nil
}

func (s *SetAttr) timesAlone() bool {
	return s.Mode == nil && s.UID == nil && s.GID == nil && s.Size == nil
}

// apply changes the owner first, since that clears mode bits, and the times last.
func (s *SetAttr) apply(up *upper, p place) error {
	if up.over != "" {
		if s.UID != nil || s.GID != nil || s.Mode != nil {
			if err := up.changeOwners(p, s); err != nil {
				return err
			}
		}
		return s.applyTimes(p)
	}
	if s.UID != nil || s.GID != nil {
		uid, gid := -1, -1
		if s.UID != nil {
			uid = int(*s.UID)
		}
		if s.GID != nil {
			gid = int(*s.GID)
		}
		if err := p.chown(uid, gid); err != nil {
			return err
		}
	}
	if s.Mode != nil {
		if err := p.chmod(*s.Mode & 0o7777); err != nil {
			return err
		}
	}
	return s.applyTimes(p)
}

func (s *SetAttr) applyTimes(p place) error {
	if s.Atime == nil && s.Mtime == nil {
		return nil
	}
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if s.Atime != nil {
		ts[0] = *s.Atime
	}
	if s.Mtime != nil {
		ts[1] = *s.Mtime
	}
	return p.utimens(&ts)
}

func (u *Union) truncate(id ID, size int64, kill bool) error {
	if size < 0 {
		return unix.EINVAL
	}
	if err := u.copyUpData(id, size); err != nil {
		return err
	}
	f, err := u.fileFD(id, true)
	if err != nil {
		return err
	}
	defer f.Release()
	if err := retryEINTR(func() error { return unix.Ftruncate(f.fd, size) }); err != nil {
		return err
	}
	if kill {
		return u.up.killPriv(f.fd)
	}
	return nil
}

func withoutPriv(mode uint32) uint32 {
	kept := mode & 0o7777 &^ unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		kept &^= unix.S_ISGID
	}
	return kept
}

// KillPriv clears setuid and setgid as a write does by someone who may not keep them, and reports whether there were
// any.
func (u *Union) KillPriv(id ID) (bool, error) {
	var a Attr
	if err := u.GetAttr(id, &a); err != nil {
		return false, err
	}
	kept := withoutPriv(a.Mode)
	if kept == a.Mode&0o7777 {
		return false, nil
	}
	return true, u.SetAttr(id, &SetAttr{Mode: &kept}, &a)
}
