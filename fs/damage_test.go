package fs_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// broken is a layer whose file "bad" misbehaves.
type broken struct {
	overlay.Layer
	ino  uint64
	data func() (overlay.Run, error) // what Data answers for it
}

func (b *broken) Data(e overlay.Entry, off int64) (overlay.Run, error) {
	var a overlay.Attr
	if err := b.Attr(e, &a); err != nil {
		return overlay.Run{}, err
	}
	if a.Ino == b.ino {
		return b.data()
	}
	return b.Layer.Data(e, off)
}

func newBroken(t *testing.T, data func() (overlay.Run, error)) *stage {
	s := newStage(t, 1)
	write(t, filepath.Join(s.lowers[0], "bad"), string(make([]byte, 200<<10)))
	write(t, filepath.Join(s.lowers[0], "good"), "good")
	ino := stat(t, filepath.Join(s.lowers[0], "bad")).Ino
	s.wrap = func(l overlay.Layer) overlay.Layer { return &broken{l, ino, data} }
	s.mount()
	return s
}

// TestDamagedLayer: what cannot be read is EIO, never zeros, and all else goes on.
func TestDamagedLayer(t *testing.T) {
	short, err := os.CreateTemp(t.TempDir(), "short")
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	for name, data := range map[string]func() (overlay.Run, error){
		"panic":     func() (overlay.Run, error) { panic("damaged") },
		"error":     func() (overlay.Run, error) { return overlay.Run{}, overlay.ErrCorrupt },
		"short run": func() (overlay.Run, error) { return overlay.Run{FD: int(short.Fd()), Len: 10}, nil },      // #nosec G115 -- a descriptor
		"long run":  func() (overlay.Run, error) { return overlay.Run{FD: int(short.Fd()), Len: 1 << 20}, nil }, // #nosec G115 -- likewise
		"no run":    func() (overlay.Run, error) { return overlay.Run{FD: -1}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := newBroken(t, data)
			bad := filepath.Join(s.mnt, "bad")
			for range 2 {
				if _, err := os.ReadFile(bad); !errors.Is(err, unix.EIO) { // #nosec G304 -- a test's own
					t.Errorf("read: %v, want EIO", err)
				}
				if err := copyRange(bad, filepath.Join(s.mnt, "copy")); !errors.Is(err, unix.EIO) {
					t.Errorf("copy: %v, want EIO", err)
				}
				if err := writeThrough(bad); !errors.Is(err, unix.EIO) {
					t.Errorf("write: %v, want EIO", err)
				}
			}
			if got := read(t, filepath.Join(s.mnt, "good")); got != "good" {
				t.Errorf("another file reads %q", got)
			}
			if st := stat(t, bad); st.Size != 200<<10 {
				t.Errorf("its size is %d", st.Size)
			}
			if err := os.Truncate(bad, 0); err != nil {
				t.Errorf("truncate, which needs none of its data: %v", err)
			}
			write(t, bad, "new")
			if err := syncAll(s.mnt); err != nil && !errors.Is(err, unix.EIO) {
				t.Errorf("syncfs, which tells once more of what was lost: %v", err)
			}
			s.remount()
			if got := read(t, bad); got != "new" {
				t.Errorf("it reads %q after it was written anew", got)
			}
		})
	}
}

func syncAll(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(fd), unix.Close(fd))
}

func copyRange(from, to string) error {
	in, err := unix.Open(from, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	out, err := unix.Open(to, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return errors.Join(err, unix.Close(in))
	}
	_, err = unix.CopyFileRange(in, nil, out, nil, 1<<20, 0)
	return errors.Join(err, unix.Close(in), unix.Close(out))
}

// writeThrough changes the beginning of a file on disk.
func writeThrough(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Pwrite(fd, make([]byte, 4096), 0)
	return errors.Join(err, unix.Fsync(fd), unix.Close(fd))
}

func TestReadOnly(t *testing.T) {
	s := newStage(t, 1)
	write(t, filepath.Join(s.lowers[0], "d/f"), "text")
	s.upper = ""
	s.mount()
	f, d := filepath.Join(s.mnt, "d/f"), filepath.Join(s.mnt, "d")
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	for name, err := range map[string]error{
		"open":    second(unix.Open(f, unix.O_WRONLY|unix.O_CLOEXEC, 0)),
		"create":  second(unix.Open(f+"2", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)),
		"tmpfile": second(unix.Open(d, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)),
		"mkdir":   unix.Mkdir(d+"2", 0o700), "rmdir": unix.Rmdir(d), "unlink": unix.Unlink(f), "rename": unix.Rename(f, f+"2"),
		"link": unix.Link(f, f+"2"), "symlink": unix.Symlink("x", f+"2"), "mknod": unix.Mknod(f+"2", unix.S_IFIFO, 0),
		"chmod": unix.Chmod(f, 0o600), "chown": unix.Lchown(f, 1, 1), "truncate": unix.Truncate(f, 0),
		"utimens":  unix.UtimesNanoAt(unix.AT_FDCWD, f, now, 0),
		"setxattr": unix.Setxattr(f, "user.x", nil, 0), "removexattr": unix.Removexattr(f, "user.x"),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v, want EROFS", name, err)
		}
	}
	if got := read(t, f); got != "text" {
		t.Errorf("it reads %q", got)
	}
}

func second[T any](_ T, err error) error { return err }

func TestStatfsIsOfTheUpper(t *testing.T) {
	s := newStage(t, 1)
	s.mount()
	var got, want unix.Statfs_t
	if err := errors.Join(unix.Statfs(s.mnt, &got), unix.Statfs(s.upper, &want)); err != nil {
		t.Fatal(err)
	}
	if got.Blocks != want.Blocks || got.Bsize != want.Bsize || got.Frsize != want.Frsize || got.Files != want.Files ||
		got.Namelen != want.Namelen {
		t.Errorf("statfs says\n%+v, of the upper directory\n%+v", got, want)
	}
}
