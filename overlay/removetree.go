package overlay

import (
	"errors"

	"golang.org/x/sys/unix"
)

// removeTree removes a name in the work or upper directory and all below it. It follows no symlink, and its depth is
// bounded by memory alone, not by PATH_MAX.
func removeTree(dirfd int, name string) error {
	err := unix.Unlinkat(dirfd, name, 0)
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return ignoreMissing(err)
	}
	err = unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return ignoreMissing(err)
	}
	fd, err := openDir(dirfd, name)
	if errors.Is(err, unix.EACCES) {
		if err = unix.Fchmodat(dirfd, name, 0o700, 0); err == nil {
			fd, err = openDir(dirfd, name)
		}
	}
	if err != nil {
		return err
	}
	err = removeChildren(fd)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return ignoreMissing(unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR))
}

// removeChildren empties a directory.
func removeChildren(fd int) error {
	var names []string
	err := readNames(fd, func(name string, _ uint64, _ uint8) error {
		names = append(names, name)
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeTree(fd, n); err != nil {
			return err
		}
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
