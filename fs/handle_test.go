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

// TestKeptHandles opens files by their handles after the kernel has let go of them: with nfs_export=on each is found
// until it is removed, wherever it is by then.
func TestKeptHandles(t *testing.T) {
	for _, keep := range []bool{true, false} {
		s := newStage(t, 2)
		s.keep = keep
		write(t, filepath.Join(s.lowers[0], "a/b/lower"), "lower")
		write(t, filepath.Join(s.lowers[1], "a/b/under"), "under")
		write(t, filepath.Join(s.lowers[1], "a/gone"), "gone")
		ok(t, os.Link(filepath.Join(s.lowers[1], "a/b/under"), filepath.Join(s.lowers[1], "a/linked")))
		s.mount()
		write(t, filepath.Join(s.mnt, "a/b/upper"), "upper")
		write(t, filepath.Join(s.mnt, "a/one"), "link")
		ok(t, os.Link(filepath.Join(s.mnt, "a/one"), filepath.Join(s.mnt, "a/two")))
		names := []string{"a", "a/b", "a/b/lower", "a/b/under", "a/b/upper", "a/gone", "a/one"}
		handles := map[string]unix.FileHandle{}
		for _, n := range names {
			h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(s.mnt, n), 0)
			if errors.Is(err, unix.EOPNOTSUPP) {
				t.Skip("this kernel gives no handles for FUSE")
			}
			ok(t, err)
			handles[n] = h
		}
		open := func(n, want string) {
			t.Helper()
			forgetAll(t)
			mnt, err := unix.Open(s.mnt, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			ok(t, err)
			defer unix.Close(mnt) //nolint:errcheck // a directory
			fd, err := unix.OpenByHandleAt(mnt, handles[n], unix.O_RDONLY|unix.O_CLOEXEC)
			if want == "" || !keep {
				if !errors.Is(err, unix.ESTALE) {
					t.Errorf("keep %v: the handle of %s, which is gone: %v", keep, n, err)
				}
			} else if err != nil {
				t.Errorf("the handle of %s: %v", n, err)
			}
			if err != nil {
				return
			}
			var st unix.Stat_t // a file's path is known to the kernel no longer
			ok(t, unix.Fstat(fd, &st))
			if there := stat(t, filepath.Join(s.mnt, want)); st.Ino != there.Ino || st.Size != there.Size || st.Mode != there.Mode {
				t.Errorf("the handle of %s leads to inode %x, %s is %x", n, st.Ino, want, there.Ino)
			}
			ok(t, unix.Close(fd))
		}
		for _, n := range names {
			open(n, n)
		}
		if !keep {
			continue
		}
		ok(t, os.Remove(filepath.Join(s.mnt, "a/gone")))
		ok(t, os.Remove(filepath.Join(s.mnt, "a/b/under")))
		ok(t, os.Remove(filepath.Join(s.mnt, "a/one")))
		ok(t, os.Rename(filepath.Join(s.mnt, "a"), filepath.Join(s.mnt, "z")))
		ok(t, os.Chmod(filepath.Join(s.mnt, "z/b/lower"), 0o600))
		open("a/gone", "")
		open("a/b/under", "z/linked")
		open("a/one", "z/two")
		open("a/b/lower", "z/b/lower")
		open("a/b/upper", "z/b/upper")
		open("a", "z")
		ok(t, os.RemoveAll(filepath.Join(s.mnt, "z")))
		for _, n := range names {
			open(n, "")
		}
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
