package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

func (r *raw) cred(h *fuse.InHeader, umask uint32) overlay.Cred {
	return overlay.Cred{UID: r.opt.UIDs.kept(h.Uid), GID: r.opt.GIDs.kept(h.Gid), Umask: umask & 0o777}
}

// made answers a request that made an inode in a directory or gave one a name there.
func (r *raw) made(out *fuse.EntryOut, dir uint64, node overlay.ID, a *overlay.Attr, err error) fuse.Status {
	if err == nil {
		r.entryOut(out, node, a)
		err = r.synced(dir)
	}
	return r.status(err)
}

// synced brings directories to the disk that were changed, on a mount with sync or dirsync.
func (r *raw) synced(dirs ...uint64) error {
	if r.opt.Flags&(unix.MS_SYNCHRONOUS|unix.MS_DIRSYNC) == 0 || r.opt.NoSync {
		return nil
	}
	for _, d := range dirs {
		if err := r.u.Fsync(id(d), false); err != nil {
			return err
		}
	}
	return nil
}

// unnamed answers a request that took a name from a directory.
func (r *raw) unnamed(dir uint64, err error) fuse.Status {
	if err == nil {
		err = r.synced(dir)
	}
	return r.status(err)
}

// Create answers CREATE: refused, the kernel sends MKNOD from then on (fs/fuse/dir.c: fuse_atomic_open), which makes the
// file as well and needs no RELEASE.
func (r *raw) Create(<-chan struct{}, *fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return fuse.ENOSYS
}

// Tmpfile answers TMPFILE.
func (r *raw) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	var a overlay.Attr
	node, err := r.u.Tmpfile(id(in.NodeId), r.cred(&in.InHeader, in.Umask), in.Mode, &a)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return r.made(&out.EntryOut, in.NodeId, node, &a, err)
}

// Mknod answers MKNOD.
func (r *raw) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	var a overlay.Attr
	node, err := r.u.Mknod(id(in.NodeId), name, r.cred(&in.InHeader, in.Umask), in.Mode, in.Rdev, &a)
	return r.made(out, in.NodeId, node, &a, err)
}

// Mkdir answers MKDIR.
func (r *raw) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	var a overlay.Attr
	node, err := r.u.Mkdir(id(in.NodeId), name, r.cred(&in.InHeader, in.Umask), in.Mode, &a)
	return r.made(out, in.NodeId, node, &a, err)
}

// Symlink answers SYMLINK.
func (r *raw) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	var a overlay.Attr
	node, err := r.u.Symlink(id(h.NodeId), name, target, r.cred(h, 0), &a)
	return r.made(out, h.NodeId, node, &a, err)
}

// Link answers LINK.
func (r *raw) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	var a overlay.Attr
	node, err := r.u.Link(id(in.Oldnodeid), id(in.NodeId), name, &a)
	return r.made(out, in.NodeId, node, &a, err)
}

// Unlink answers UNLINK.
func (r *raw) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return r.unnamed(h.NodeId, r.u.Unlink(id(h.NodeId), name))
}

// Rmdir answers RMDIR.
func (r *raw) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return r.unnamed(h.NodeId, r.u.Rmdir(id(h.NodeId), name))
}

// Rename answers RENAME and RENAME2.
func (r *raw) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	err := r.u.Rename(id(in.NodeId), oldName, id(in.Newdir), newName, in.Flags)
	if err == nil {
		err = r.synced(in.NodeId, in.Newdir)
	}
	return r.status(err)
}

// SetAttr answers SETATTR. The time of change is the upper filesystem's own.
func (r *raw) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	var s overlay.SetAttr
	if in.Valid&fuse.FATTR_MODE != 0 {
		s.Mode = &in.Mode
	}
	if in.Valid&fuse.FATTR_UID != 0 {
		uid := r.opt.UIDs.kept(in.Uid)
		s.UID = &uid
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		gid := r.opt.GIDs.kept(in.Gid)
		s.GID = &gid
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		size := int64(in.Size) // #nosec G115 -- a negative one is refused
		s.Size = &size
	}
	s.Atime = setTime(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec)
	s.Mtime = setTime(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec)
	s.KillPriv = in.Valid&fuse.FATTR_KILL_SUIDGID != 0
	var a overlay.Attr
	err := r.u.SetAttr(id(in.NodeId), &s, &a)
	out.AttrValid, out.AttrValidNsec = r.attr.sec, r.attr.nsec
	r.attrOut(&out.Attr, &a)
	return r.status(err)
}

func setTime(valid, set, now uint32, sec uint64, nsec uint32) *unix.Timespec {
	switch {
	case valid&now != 0:
		return &unix.Timespec{Nsec: unix.UTIME_NOW}
	case valid&set != 0:
		return &unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)} // #nosec G115 -- the protocol's form of times before 1970
	}
	return nil
}
