package fs

import (
	"encoding/binary"

	"github.com/plyfs/plyfs/overlay"
)

// overflowID stands for an owner that a map does not know, as in the kernel (/proc/sys/kernel/overflowuid).
const overflowID = 65534

// IDMap says as which owners those in the layers are shown. The zero value shows all as they are.
type IDMap []IDRange

// IDRange maps Count owners from Kept in the layers to as many from Shown in the mount.
type IDRange struct {
	Kept, Shown, Count uint32
}

// shown is the owner shown for one in the layers.
func (m IDMap) shown(id uint32) uint32 {
	if len(m) == 0 {
		return id
	}
	for _, r := range m {
		if id-r.Kept < r.Count && id >= r.Kept {
			return r.Shown + (id - r.Kept)
		}
	}
	return overflowID
}

// kept is the owner in the layers for one in the mount.
func (m IDMap) kept(id uint32) uint32 {
	if len(m) == 0 {
		return id
	}
	for _, r := range m {
		if id-r.Shown < r.Count && id >= r.Shown {
			return r.Kept + (id - r.Shown)
		}
	}
	return overflowID
}

// showOwner makes the owner shown of the one in the layers.
func (o *Options) showOwner(a *overlay.Attr) {
	a.UID, a.GID = o.UIDs.shown(a.UID), o.GIDs.shown(a.GID)
	if o.SquashUID != nil {
		a.UID = *o.SquashUID
	}
	if o.SquashGID != nil {
		a.GID = *o.SquashGID
	}
}

// The form of the xattrs that hold POSIX ACLs (include/uapi/linux/posix_acl_xattr.h): a version of four bytes, then for
// each entry its tag and permissions, of two bytes each, and the ID, of four, little-endian.
const (
	aclHeader   = 4
	aclEntry    = 8
	aclUser     = 0x02
	aclGroup    = 0x08
	aclAccess   = "system.posix_acl_access"
	aclDefault  = "system.posix_acl_default"
	aclIDOffset = 4
)

func isACL(name string) bool { return name == aclAccess || name == aclDefault }

// mapACL puts in place of each user and group that an ACL names what the functions make of it.
func mapACL(acl []byte, user, group func(uint32) uint32) {
	for at := aclHeader; at+aclEntry <= len(acl); at += aclEntry {
		id := acl[at+aclIDOffset : at+aclEntry]
		switch binary.LittleEndian.Uint16(acl[at:]) {
		case aclUser:
			binary.LittleEndian.PutUint32(id, user(binary.LittleEndian.Uint32(id)))
		case aclGroup:
			binary.LittleEndian.PutUint32(id, group(binary.LittleEndian.Uint32(id)))
		}
	}
}
