package layerstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// trash deletes trees whose names, modes and depth a container chose. It follows no symlink, crosses into no other file
// system and keeps two descriptors open however deep a tree is: a directory that is not empty is renamed to the top of
// the trash and emptied there.
type trash struct {
	dir   *os.File
	freed int64 // bytes of disk
}

func openTrash(path string) (*trash, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0) //nolint:gosec // a name of our own
	if err != nil {
		return nil, err
	}
	return &trash{dir: dir}, nil
}

func (t *trash) close() { _ = t.dir.Close() }

func (t *trash) fd() int { return int(t.dir.Fd()) }

// remove deletes a name of the trash and all below it.
func (t *trash) remove(ctx context.Context, name string) error {
	todo := []string{name}
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		top := todo[len(todo)-1]
		gone, err := t.unlink(t.fd(), top)
		if err != nil {
			return fmt.Errorf("deleting %s: %w", t.dir.Name()+"/"+top, err)
		}
		if gone {
			todo = todo[:len(todo)-1]
			continue
		}
		moved, err := t.empty(ctx, top)
		if err != nil {
			return fmt.Errorf("deleting %s: %w", t.dir.Name()+"/"+top, err)
		}
		todo = append(todo, moved...)
	}
	return nil
}

// unlink deletes a file or an empty directory; it reports false for a directory with something in it.
func (t *trash) unlink(dirfd int, name string) (gone bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return true, ignoreGone(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err := unix.Unlinkat(dirfd, name, 0)
		if err == nil && st.Nlink == 1 {
			t.freed += st.Blocks * 512
		}
		return true, ignoreGone(err)
	}
	err = unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
	switch {
	case err == nil:
		t.freed += st.Blocks * 512
		return true, nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return false, nil
	}
	return true, ignoreGone(err)
}

// empty deletes what a directory of the trash holds and moves its subdirectories that are not empty beside it. It
// returns their new names.
func (t *trash) empty(ctx context.Context, name string) (moved []string, err error) {
	dir, err := t.openDir(t.fd(), name)
	if err != nil {
		return nil, ignoreGone(err)
	}
	defer dir.Close() //nolint:errcheck // read only
	for {
		// Deleting moves the entries of a directory on some file systems: begin again until none is left.
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return moved, err
		}
		names, err := dir.Readdirnames(4096)
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return moved, nil
		}
		if err != nil {
			return moved, err
		}
		for _, n := range names {
			if err := ctx.Err(); err != nil {
				return moved, err
			}
			to, err := t.removeChild(dir, n)
			if err != nil {
				return moved, fmt.Errorf("%q in it: %w", n, err)
			}
			if to != "" {
				moved = append(moved, to)
			}
		}
	}
}

func (t *trash) removeChild(dir *os.File, name string) (movedTo string, err error) {
	dirfd := int(dir.Fd())
	gone, err := t.unlink(dirfd, name)
	if gone || err != nil {
		return "", err
	}
	// Renaming a directory writes its "..", for which its owner needs leave to write to it.
	if sub, err := t.openDir(dirfd, name); err == nil {
		_ = sub.Close()
	} else {
		return "", ignoreGone(err)
	}
	to := randomHex(16)
	if err := unix.Renameat(dirfd, name, t.fd(), to); err != nil {
		return "", ignoreGone(err)
	}
	return to, nil
}

// openDir opens a directory to empty it, giving its owner the leave that its mode may lack.
func (t *trash) openDir(dirfd int, name string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := unix.Openat2(dirfd, name, &how)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // a descriptor that names a place only
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&0o700 != 0o700 {
		// fchmod takes no O_PATH descriptor, and fchmodat would follow a symlink put in its place.
		if err := unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), 0o700); err != nil && os.Geteuid() != 0 {
			return nil, err
		}
	}
	rfd, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(rfd), name), nil
}

// ignoreGone is nil for a file that is gone already.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
