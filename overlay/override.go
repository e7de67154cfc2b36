package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Owners says where an upper layer keeps the owners, modes and kinds of its files: in the inodes themselves, or in an
// xattr beside each, for servers that may not give files away.
type Owners uint8

const (
	// OwnersAsFound goes on as the upper directory was begun, which its own xattr tells; a new one keeps them in the
	// inodes.
	OwnersAsFound Owners = iota
	// OwnersInode keeps them in the inodes whatever xattrs are there.
	OwnersInode
	// OwnersSecurity keeps owners and modes in security.fuseoverlayfs.override_stat, which takes root. It is
	// xattr_permissions=1 of fuse-overlayfs.
	OwnersSecurity
	// OwnersUser keeps owners, modes, device nodes, fifos, sockets and xattrs that take privilege in user.* xattrs of
	// directories and regular files that belong to the server. It is xattr_permissions=2 of fuse-overlayfs.
	OwnersUser
)

// The xattrs that say what stat(2) is to show. fuse-overlayfs has the first two, containers/storage (pkg/idtools) and
// later versions of fuse-overlayfs the third. A layer has the form that its root directory has.
const (
	overrideSecurity   = "security.fuseoverlayfs.override_stat"
	overrideFuse       = "user.fuseoverlayfs.override_stat"
	overrideContainers = "user.containers.override_stat"
)

// encodedPrefix stands before the name of an xattr that takes privilege to set, where the server has none.
const encodedPrefix = "user.containers.override_"

// overrides is the name of the xattr in which a tree keeps what stat is to show; "" when the inodes tell.
type overrides string

// user reports whether no privilege is taken: only regular files and directories have the xattr then, and stand for
// everything else.
func (o overrides) user() bool { return strings.HasPrefix(string(o), "user.") }

// foundOverrides is the form that a layer's root directory has.
func foundOverrides(p place) (overrides, error) {
	for _, name := range []string{overrideSecurity, overrideFuse, overrideContainers} {
		_, err := p.getxattr(name, nil)
		switch {
		case err == nil:
			return overrides(name), nil
		case !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP):
			return "", err
		}
	}
	return "", nil
}

// stat is what stat(2) is to show of an inode.
func (o overrides) stat(p place, st *unix.Stat_t) error {
	if err := p.stat(st); err != nil {
		return err
	}
	return o.show(p, st)
}

// show makes of what stat(2) says what it is to show. An inode without the xattr is what it is.
func (o overrides) show(p place, st *unix.Stat_t) error {
	t := st.Mode & unix.S_IFMT
	if o == "" || o.user() && t != unix.S_IFREG && t != unix.S_IFDIR {
		return nil
	}
	var buf [128]byte
	n, err := p.getxattr(string(o), buf[:])
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return nil
	case errors.Is(err, unix.ERANGE):
		return fmt.Errorf("%w: %s is too long", ErrCorrupt, o)
	case err != nil:
		return err
	}
	if err := parseOverride(buf[:n], st); err != nil {
		return fmt.Errorf("%w: %s=%q", err, o, buf[:n])
	}
	return nil
}

// parseOverride reads "uid:gid:mode[:type]": decimal, decimal, octal, and one of file, dir, symlink, pipe, socket, or
// block or char with the device's numbers behind it, of which containers/storage writes char-1-3 and fuse-overlayfs
// char1:3. Only a regular file can stand for something else.
func parseOverride(v []byte, st *unix.Stat_t) error {
	parts := strings.SplitN(string(bytes.TrimRight(v, "\x00")), ":", 4)
	if len(parts) < 3 {
		return ErrCorrupt
	}
	uid, err1 := strconv.ParseUint(parts[0], 10, 32)
	gid, err2 := strconv.ParseUint(parts[1], 10, 32)
	mode, err3 := strconv.ParseUint(parts[2], 8, 32)
	if err1 != nil || err2 != nil || err3 != nil {
		return ErrCorrupt
	}
	kind, rdev := st.Mode&unix.S_IFMT, st.Rdev
	if len(parts) == 4 && kind == unix.S_IFREG {
		var ok bool
		if kind, rdev, ok = parseKind(parts[3]); !ok {
			return ErrCorrupt
		}
	}
	st.Uid, st.Gid, st.Rdev = uint32(uid), uint32(gid), rdev
	st.Mode = kind | uint32(mode)&0o7777
	return nil
}

func parseKind(s string) (mode uint32, rdev uint64, ok bool) {
	for _, k := range []struct {
		name string
		mode uint32
	}{
		{"file", unix.S_IFREG},
		{"symlink", unix.S_IFLNK},
		{"pipe", unix.S_IFIFO},
		{"socket", unix.S_IFSOCK},
		{"block", unix.S_IFBLK},
		{"char", unix.S_IFCHR},
	} {
		rest, found := strings.CutPrefix(s, k.name)
		if !found {
			continue
		}
		if k.mode != unix.S_IFBLK && k.mode != unix.S_IFCHR {
			return k.mode, 0, true
		}
		n := strings.FieldsFunc(rest, func(r rune) bool { return r == '-' || r == ':' })
		if len(n) < 2 {
			return 0, 0, false
		}
		major, err1 := strconv.ParseUint(n[0], 10, 12)
		minor, err2 := strconv.ParseUint(n[1], 10, 20)
		return k.mode, unix.Mkdev(uint32(major), uint32(minor)), err1 == nil && err2 == nil
	}
	return 0, 0, false
}

func formatOverride(uid, gid, mode uint32, rdev uint64) []byte {
	kind := map[uint32]string{
		unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "symlink", unix.S_IFIFO: "pipe",
		unix.S_IFSOCK: "socket", unix.S_IFBLK: "block", unix.S_IFCHR: "char",
	}[mode&unix.S_IFMT]
	if t := mode & unix.S_IFMT; t == unix.S_IFBLK || t == unix.S_IFCHR {
		kind += fmt.Sprintf("-%d-%d", unix.Major(rdev), unix.Minor(rdev))
	}
	return fmt.Appendf(nil, "%d:%d:%04o:%s", uid, gid, mode&0o7777, kind)
}

// accessible is the mode of an inode whose own mode is in the xattr: the server can go on using it, and it has no
// privilege of its server's.
func accessible(mode uint32) uint32 {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		return mode&0o777 | 0o700
	}
	return mode&0o777 | 0o600
}

// encode is the name under which an xattr is kept.
func (o overrides) encode(name string) string {
	if o.user() && (strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "trusted.")) {
		return encodedPrefix + name
	}
	return name
}

// decode is the name that an xattr is shown under.
func (o overrides) decode(name string) string {
	if rest, ok := strings.CutPrefix(name, encodedPrefix); ok && o.encode(rest) == name {
		return rest
	}
	return name
}

// showACL has the ACL that holds for an inode say of the owner what its mode says: the inode itself lets the server in.
func showACL(v []byte, mode uint32) {
	const header, entry, userObj = 4, 8, 1 // include/uapi/linux/posix_acl_xattr.h
	for i := header; i+entry <= len(v); i += entry {
		if binary.LittleEndian.Uint16(v[i:]) == userObj {
			binary.LittleEndian.PutUint16(v[i+2:], uint16(mode>>6&7)) // #nosec G115 -- three bits
		}
	}
}

// getxattr is getxattr(2) of what is to show.
func (o overrides) getxattr(p place, name string, dest []byte) (int, error) {
	n, err := p.getxattr(o.encode(name), dest)
	if o == "" || err != nil || name != xattrACL || len(dest) == 0 {
		return n, err
	}
	var st unix.Stat_t
	if err := o.stat(p, &st); err != nil {
		return 0, err
	}
	showACL(dest[:n], st.Mode)
	return n, nil
}

// readlink is the target of a symlink, which may be a regular file that stands for one.
func (o overrides) readlink(p place) (string, error) {
	target, err := p.readlink()
	if !errors.Is(err, unix.EINVAL) || !o.user() {
		return target, err
	}
	fd, err := p.open(unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	buf := make([]byte, unix.PathMax)
	n, err := unix.Pread(fd, buf, 0)
	return string(buf[:max(n, 0)]), err
}
