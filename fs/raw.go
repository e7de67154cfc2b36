package fs

import (
	"errors"
	"math"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// forever is how long the kernel may keep entries, attributes and missing names, seconds: the server is the only one who
// changes them, so it tells. The kernel bounds what it makes of it (fs/fuse/dir.c: time_to_jiffies).
const forever = math.MaxUint32

// raw answers requests. It keeps nothing between two of them.
type raw struct {
	fuse.RawFileSystem // answers ENOSYS to what is not here
	u                  *overlay.Union
	log                *logrus.Logger
	opt                *Options
	entry, attr, none  validity     // of names, attributes and missing names
	server             *fuse.Server // set by Init
}

func newRaw(u *overlay.Union, cfg *Config) *raw {
	o := &cfg.Options
	return &raw{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), u: u, log: cfg.Log, opt: o,
		entry: validFor(o.EntryTimeout), attr: validFor(o.AttrTimeout), none: validFor(o.NegativeTimeout),
	}
}

// Init is called before the first request but INIT.
func (r *raw) Init(s *fuse.Server) { r.server = s }

// String is the name of the filesystem.
func (r *raw) String() string { return "plyfs" }

func id(nodeid uint64) overlay.ID { return overlay.ID(nodeid) } // #nosec G115 -- node ids are IDs, which the kernel got from here

// status turns an error into what the caller of the system call sees. What is no errno is an error of the layers.
func (r *raw) status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return fuse.Status(errno)
	}
	r.log.WithError(err).Error("request failed")
	return fuse.EIO
}

func (r *raw) attrOut(out *fuse.Attr, a *overlay.Attr) {
	r.opt.showOwner(a)
	*out = fuse.Attr{
		Ino: r.opt.Inodes.show(a.Ino), Size: a.Size, Blocks: a.Blocks,
		Atime: uint64(a.Atime.Sec), Atimensec: a.Atime.Nsec, // #nosec G115 -- the protocol's form of times before 1970
		Mtime: uint64(a.Mtime.Sec), Mtimensec: a.Mtime.Nsec, // #nosec G115 -- likewise
		Ctime: uint64(a.Ctime.Sec), Ctimensec: a.Ctime.Nsec, // #nosec G115 -- likewise
		Mode: a.Mode, Nlink: a.Nlink, Owner: fuse.Owner{Uid: a.UID, Gid: a.GID},
		Rdev: a.Rdev, Blksize: a.Blksize,
	}
}

func (r *raw) entryOut(out *fuse.EntryOut, node overlay.ID, a *overlay.Attr) {
	out.NodeId = uint64(node)
	out.Generation = r.u.Generation(node)
	out.EntryValid, out.EntryValidNsec = r.entry.sec, r.entry.nsec
	out.AttrValid, out.AttrValidNsec = r.attr.sec, r.attr.nsec
	r.attrOut(&out.Attr, a)
}

// attrs are what the layers fill in: the compiler cannot tell that none keeps them.
var attrs = sync.Pool{New: func() any { return new(overlay.Attr) }}

// Lookup answers LOOKUP. A missing name is an answer too, which the kernel keeps.
func (r *raw) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	a, _ := attrs.Get().(*overlay.Attr)
	defer attrs.Put(a)
	node, err := r.u.Lookup(id(h.NodeId), name, a)
	if errors.Is(err, unix.ENOENT) {
		*out = fuse.EntryOut{EntryValid: r.none.sec, EntryValidNsec: r.none.nsec}
		return fuse.OK
	}
	if err == nil {
		r.entryOut(out, node, a)
	}
	return r.status(err)
}

// Forget answers FORGET and each part of BATCH_FORGET.
func (r *raw) Forget(nodeid, nlookup uint64) { r.u.Forget(id(nodeid), nlookup) }

// GetAttr answers GETATTR.
func (r *raw) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	a, _ := attrs.Get().(*overlay.Attr)
	defer attrs.Put(a)
	*a = overlay.Attr{}
	err := r.u.GetAttr(id(in.NodeId), a)
	out.AttrValid, out.AttrValidNsec = r.attr.sec, r.attr.nsec
	r.attrOut(&out.Attr, a)
	return r.status(err)
}

// Readlink answers READLINK.
func (r *raw) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	target, err := r.u.Readlink(id(h.NodeId))
	return []byte(target), r.status(err)
}

// Open answers OPEN: the kernel need not ask again (FUSE_NO_OPEN_SUPPORT).
func (r *raw) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// OpenDir answers OPENDIR likewise (FUSE_NO_OPENDIR_SUPPORT): the kernel then keeps listings, too.
func (r *raw) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// Release answers RELEASE of what CREATE or TMPFILE opened: nothing was kept.
func (r *raw) Release(<-chan struct{}, *fuse.ReleaseIn) {}

// StatFs answers STATFS.
func (r *raw) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	st, err := r.u.StatFS()
	*out = fuse.StatfsOut{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), Frsize: uint32(st.Frsize), NameLen: uint32(st.Namelen), // #nosec G115 -- small, not negative
	}
	return r.status(err)
}

// Statx answers STATX, which the kernel asks when someone wants to know the time of birth.
func (r *raw) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	var a overlay.Attr
	if err := r.u.GetAttr(id(in.NodeId), &a); err != nil {
		return r.status(err)
	}
	btime, err := r.u.Btime(id(in.NodeId))
	if err != nil {
		return r.status(err)
	}
	r.opt.showOwner(&a)
	out.AttrValid, out.AttrValidNsec = r.attr.sec, r.attr.nsec
	out.Statx = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS, Blksize: a.Blksize, Nlink: a.Nlink, Uid: a.UID, Gid: a.GID,
		Mode: uint16(a.Mode), Ino: r.opt.Inodes.show(a.Ino), Size: a.Size, Blocks: a.Blocks, // #nosec G115 -- type and permissions are 16 bits
		Atime: sxTime(a.Atime), Ctime: sxTime(a.Ctime), Mtime: sxTime(a.Mtime),
		RdevMajor: a.Rdev & 0xfff00 >> 8, RdevMinor: a.Rdev&0xff | a.Rdev>>12&0xfff00,
	}
	if btime != (overlay.Timespec{}) {
		out.Btime = sxTime(btime)
		out.Mask |= unix.STATX_BTIME
	}
	return fuse.OK
}

func sxTime(t overlay.Timespec) fuse.SxTime {
	return fuse.SxTime{Sec: uint64(t.Sec), Nsec: t.Nsec} // #nosec G115 -- the protocol's form of times before 1970
}
