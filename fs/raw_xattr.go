package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// refused reports whether the mount's options rule an xattr out.
func (r *raw) refused(name string) bool {
	return r.opt.NoXattrs || r.opt.NoACL && isACL(name)
}

// GetXAttr answers GETXATTR.
func (r *raw) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if r.refused(attr) {
		return 0, fuse.Status(unix.EOPNOTSUPP)
	}
	n, err := r.u.GetXattr(id(h.NodeId), attr, dest)
	if err == nil && isACL(attr) {
		mapACL(dest[:min(n, len(dest))], r.opt.UIDs.shown, r.opt.GIDs.shown)
	}
	return uint32(max(n, 0)), r.status(err) // #nosec G115 -- at most 64 KiB
}

// ListXAttr answers LISTXATTR.
func (r *raw) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if r.opt.NoXattrs {
		return 0, fuse.Status(unix.EOPNOTSUPP)
	}
	n, err := r.u.ListXattr(id(h.NodeId), dest)
	return uint32(max(n, 0)), r.status(err) // #nosec G115 -- at most 64 KiB
}

// SetXAttr answers SETXATTR.
func (r *raw) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	if r.refused(attr) {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	if isACL(attr) {
		data = append([]byte(nil), data...) // the request's own memory is not to be written to
		mapACL(data, r.opt.UIDs.kept, r.opt.GIDs.kept)
	}
	node := id(in.NodeId)
	if err := r.u.SetXattr(node, attr, data, int(in.Flags)); err != nil {
		return r.status(err)
	}
	if in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID == 0 {
		return fuse.OK
	}
	var a overlay.Attr
	if err := r.u.GetAttr(node, &a); err != nil {
		return r.status(err)
	}
	mode := a.Mode &^ unix.S_ISGID & 0o7777
	return r.status(r.u.SetAttr(node, &overlay.SetAttr{Mode: &mode}, &a))
}

// RemoveXAttr answers REMOVEXATTR.
func (r *raw) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	if r.refused(attr) {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	return r.status(r.u.RemoveXattr(id(h.NodeId), attr))
}
