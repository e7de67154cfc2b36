package fs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFileHandles opens files and directories by what name_to_handle_at(2) gave for them, as an NFS server does.
func TestFileHandles(t *testing.T) {
	s := newStage(t, 2)
	write(t, filepath.Join(s.lowers[0], "a/b/lower"), "lower")
	write(t, filepath.Join(s.lowers[1], "a/b/under"), "under")
	s.mount()
	write(t, filepath.Join(s.mnt, "a/b/upper"), "upper")
	mnt, err := unix.Open(s.mnt, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(mnt) //nolint:errcheck // a directory
	for _, name := range []string{"a/b/lower", "a/b/under", "a/b/upper", "a/b", "a"} {
		p := filepath.Join(s.mnt, name)
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, p, 0)
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("this kernel gives no handles for FUSE")
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// Held by a descriptor, the inode is known to the server though no path to it is cached.
		hold, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		forgetAll(t)
		fd, err := unix.OpenByHandleAt(mnt, h, unix.O_RDONLY|unix.O_CLOEXEC)
		if err != nil {
			t.Errorf("%s by its handle: %v", name, err)
		} else {
			got, err := os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(fd)))
			if err != nil || got != p {
				t.Errorf("the handle of %s leads to %s, %v", p, got, err)
			}
			err = unix.Close(fd)
			if err != nil {
				t.Error(err)
			}
		}
		if err := unix.Close(hold); err != nil {
			t.Error(err)
		}
	}
}
