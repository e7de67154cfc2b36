package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layerstore/tarwrite"
	"github.com/plyfs/plyfs/overlay"
)

// mountTree is the tree of a mounted container, read through its mount. Its nodes are O_PATH descriptors, of which there is one
// for each directory on the way down: names are never joined, so a program that renames directories leads nowhere else.
type mountTree struct {
	root int
	dev  uint64
}

// openMount opens a mount, without what is mounted below it where that takes no more privilege than there is. What
// programs have written is in the layers after it.
func openMount(mountpoint string) (*mountTree, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, mountpoint, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		fd, err = unix.Open(mountpoint, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the mount at %s: %w", mountpoint, err)
	}
	t := &mountTree{root: fd}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil {
		err = syncMount(fd)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the mount at %s: %w", mountpoint, err), t.close())
	}
	t.dev = st.Dev
	return t, nil
}

func syncMount(root int) error {
	fd, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(fd), unix.Close(fd))
}

func (t *mountTree) close() error { return unix.Close(t.root) }

// procPath is a path by which the inode of a descriptor is found, a symlink itself included.
func procPath(n node) string { return "/proc/self/fd/" + strconv.FormatUint(uint64(n), 10) }

func (t *mountTree) list(dir node, emit func(name string)) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir), &st); err != nil {
		return err
	}
	if st.Dev != t.dev {
		return nil // another file system is mounted here
	}
	fd, err := unix.Openat(int(dir), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close() //nolint:errcheck // read only
	for {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			emit(name)
		}
		if len(names) == 0 {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
	}
}

func (t *mountTree) find(dir node, name string, a *overlay.Attr) (node, error) {
	var fd int
	var err error
	if name == "" {
		fd, err = unix.FcntlInt(uintptr(t.root), unix.F_DUPFD_CLOEXEC, 0)
	} else {
		fd, err = unix.Openat(int(dir), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	a.FromStat(&st)
	return node(fd), nil
}

func (t *mountTree) release(n node) {
	_ = unix.Close(int(n))
}

func (t *mountTree) readlink(n node) (string, error) {
	buf := make([]byte, unix.PathMax)
	k, err := unix.Readlinkat(int(n), "", buf)
	return string(buf[:max(k, 0)]), err
}

func (t *mountTree) xattrs(n node) ([]tarwrite.Xattr, error) {
	p := procPath(n)
	return readXattrs(
		func(buf []byte) (int, error) { return unix.Listxattr(p, buf) },
		func(name string, buf []byte) (int, error) { return unix.Getxattr(p, name, buf) },
	)
}

func (t *mountTree) open(n node) (file, error) {
	f, err := os.OpenFile(procPath(n), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Unwrap(err) // without the path, which says nothing
	}
	return mountFile{f}, nil
}

// mountFile is a regular file of a mount.
type mountFile struct{ *os.File }

func (f mountFile) seek(off int64, whence int) (int64, error) {
	return unix.Seek(int(f.Fd()), off, whence)
}
