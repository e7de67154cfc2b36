package overlay

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Times of access are the mount's on which a file is opened to keep (fs/inode.c: touch_atime). So layers are read through
// mounts of their own, in no one's tree, which have the rules of the union and leave lower layers as they are. That takes
// privilege; without it the rules are those of the mounts that the layers lie on.

// ownMount makes a mount of the directory at path and all below, which the descriptor returned alone holds.
func ownMount(path string, set uint64, flags uint) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
	if err != nil {
		return -1, err
	}
	attr := unix.MountAttr{Attr_set: set, Attr_clr: unix.MOUNT_ATTR__ATIME}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|flags, &attr); err != nil {
		_ = unix.Close(fd) // a descriptor alone: nothing to report
		return -1, err
	}
	return fd, nil
}

// openLower opens the directory of a lower layer. noAtime is what files are to be opened with for their times to stay.
func openLower(path string) (fd, noAtime int, err error) {
	tree, err := ownMount(path, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOATIME|unix.MOUNT_ATTR_NODIRATIME, unix.AT_RECURSIVE)
	if err != nil {
		fd, err = openRetry(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return fd, unix.O_NOATIME, err
	}
	defer unix.Close(tree) //nolint:errcheck // a descriptor alone
	fd, err = openDir(tree, ".")
	return fd, 0, err
}

// OpenApart opens a directory on a mount of its own where it can, so that whoever keeps it open does not keep the
// filesystem from being unmounted. The errors are those of os.Open.
func OpenApart(path string) (*os.File, error) {
	tree, err := ownMount(path, unix.MOUNT_ATTR_RELATIME, 0)
	if err != nil {
		return os.Open(path) // #nosec G304 -- a directory that the user names
	}
	defer unix.Close(tree) //nolint:errcheck // a descriptor alone
	fd, err := openDir(tree, ".")
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil // #nosec G115 -- a descriptor
}

// openUpperDirs opens the upper and the work directory on one mount, since nothing can be renamed between two.
func openUpperDirs(dir, work string, m *Modes) (up, base int, own bool) {
	set := uint64(unix.MOUNT_ATTR_RELATIME)
	if m.NoAtime {
		set = unix.MOUNT_ATTR_NOATIME
	}
	if m.NoDirAtime {
		set |= unix.MOUNT_ATTR_NODIRATIME
	}
	above, names, ok := commonDir(dir, work)
	if !ok {
		return -1, -1, false
	}
	tree, err := ownMount(above, set, 0)
	if err != nil {
		return -1, -1, false
	}
	defer unix.Close(tree) //nolint:errcheck // a descriptor alone
	if up, err = openDir(tree, names[0]); err != nil {
		return -1, -1, false
	}
	if base, err = openDir(tree, names[1]); err != nil {
		_ = unix.Close(up) // a directory: nothing to report
		return -1, -1, false
	}
	return up, base, true
}

// commonDir is the lowest directory above two on one mount, and their names in it. ok is false when there is none on
// their mount.
func commonDir(a, b string) (above string, names [2]string, ok bool) {
	var paths [2]string
	var mounts [2]uint64
	for i, p := range []string{a, b} {
		var err error
		if paths[i], err = filepath.Abs(p); err == nil {
			paths[i], err = filepath.EvalSymlinks(paths[i])
		}
		if err != nil {
			return "", names, false
		}
		if mounts[i], ok = mountID(paths[i]); !ok {
			return "", names, false
		}
	}
	const sep = string(os.PathSeparator)
	above = paths[0]
	for above != sep && !strings.HasPrefix(paths[1]+sep, above+sep) {
		above = filepath.Dir(above)
	}
	on, ok := mountID(above)
	if !ok || on != mounts[0] || on != mounts[1] {
		return "", names, false
	}
	for i, p := range paths {
		rel, err := filepath.Rel(above, p)
		if err != nil {
			return "", names, false
		}
		names[i] = rel
	}
	return above, names, true
}

// mountID tells which mount a path lies on.
func mountID(path string) (uint64, bool) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st)
	return st.Mnt_id, err == nil && st.Mask&unix.STATX_MNT_ID != 0
}
