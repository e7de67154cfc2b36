package overlay

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// newWhiteout makes a whiteout inode in work, which placeWhiteout links from then on.
func (up *upper) newWhiteout() error {
	n := up.temp.Add(1)
	if err := unix.Mknodat(up.work, "#"+strconv.FormatUint(n, 16), unix.S_IFCHR, 0); err != nil {
		return err
	}
	up.whiteouts.Store(n)
	return nil
}

// linkWhiteout links a whiteout under a name that does not exist. All whiteouts share inodes, as those of kernel
// overlayfs do, as far as the filesystem's limit of links goes.
func (up *upper) linkWhiteout(dirfd int, name string) error {
	for {
		src := "#" + strconv.FormatUint(up.whiteouts.Load(), 16)
		err := unix.Linkat(up.work, src, dirfd, name, 0)
		if !errors.Is(err, unix.EMLINK) {
			return err
		}
		if err := up.newWhiteout(); err != nil {
			return err
		}
		if err := unix.Unlinkat(up.work, src, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
}

// replaceByWhiteout puts a whiteout in place of an inode that is no directory, in one step.
func (up *upper) replaceByWhiteout(dirfd int, name string) error {
	tmp := up.tempName()
	if err := up.linkWhiteout(up.work, tmp); err != nil {
		return err
	}
	err := unix.Renameat(up.work, tmp, dirfd, name)
	if err != nil {
		_ = unix.Unlinkat(up.work, tmp, 0) // the first error is the one to tell; work is cleared at the next start
	}
	return err
}

// isNull reports whether an inode is a 0/0 character device, which only its marks tell from a whiteout.
func isNull(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// isWhiteout reports whether an inode is a whiteout: a 0/0 device, unless a program made it, which may see it then.
func isWhiteout(p place, st *unix.Stat_t) (bool, error) {
	if !isNull(st) {
		return false, nil
	}
	_, err := p.getxattr("trusted.overlay."+xattrShown, nil)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return true, nil
	}
	return false, err
}

// showNull has a 0/0 device hide nothing, so that a program sees what it made. Only trusted.* xattrs can be on devices.
func (up *upper) showNull(p place) error {
	if up.overlay[0] != 't' {
		return unix.EPERM
	}
	return p.setxattr(up.overlay+xattrShown, []byte("y"), 0)
}

// makeNull prepares a 0/0 device that shows in work, and returns its name there.
func (up *upper) makeNull() (string, error) {
	p := place{up.work, up.tempName()}
	err := up.special(p, unix.S_IFCHR, 0, 0)
	if err != nil {
		return "", err
	}
	if up.over.user() {
		err = p.setxattr(string(up.over), formatOverride(0, 0, unix.S_IFCHR, 0), 0)
	} else {
		err = up.showNull(p)
	}
	if err != nil {
		_ = unix.Unlinkat(p.fd, p.name, 0) // the first error is the one to tell
	}
	return p.name, err
}
