package fs_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/fs"
	"github.com/plyfs/plyfs/overlay"
)

// stage is a union of directories that a test mounts, unmounts and mounts again.
type stage struct {
	t      *testing.T
	lowers []string // top first
	upper  string
	work   string
	mnt    string
	names  []string                            // of lowers, or none
	wrap   func(l overlay.Layer) overlay.Layer // put around each layer, nil for nothing
	owners overlay.Owners
	keep   bool // Modes.KeepNodes
	server *fs.Server
}

// newStage makes the directories of a union of n lower layers. It is not mounted yet.
func newStage(t *testing.T, n int) *stage {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting without fusermount3 takes root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse here")
	}
	base := t.TempDir()
	if err := os.Chmod(base, 0o755); err != nil { // #nosec G302 -- tests look in as other users
		t.Fatal(err)
	}
	s := &stage{t: t, upper: filepath.Join(base, "u"), work: filepath.Join(base, "w"), mnt: filepath.Join(base, "m")}
	for i := range n {
		s.lowers = append(s.lowers, filepath.Join(base, "l"+string(rune('0'+i))))
	}
	for _, d := range append([]string{s.upper, s.work, s.mnt}, s.lowers...) {
		if err := os.Mkdir(d, 0o755); err != nil { // #nosec G301 -- as above
			t.Fatal(err)
		}
	}
	return s
}

// mount mounts the union until the test ends.
func (s *stage) mount() {
	s.t.Helper()
	cfg := fs.Config{Mountpoint: s.mnt, AllowOther: true, Log: logrus.New(), Source: "plyfs-test", Names: s.names}
	cfg.Log.SetOutput(s.t.Output())
	cfg.Modes.Owners, cfg.Modes.KeepNodes = s.owners, s.keep
	if s.upper != "" {
		cfg.Upper, cfg.Work = s.upper, s.work
	}
	for _, l := range s.lowers {
		d, err := overlay.NewDirLayer(l, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		if s.wrap != nil {
			cfg.Lowers = append(cfg.Lowers, s.wrap(d))
		} else {
			cfg.Lowers = append(cfg.Lowers, d)
		}
	}
	srv, err := fs.Mount(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.server = srv
	s.settlePoll()
	s.t.Cleanup(func() {
		if s.server == srv {
			s.unmount()
		}
	})
}

// settlePoll has the kernel learn that POLL is not served. The Go runtime polls what it opens without letting another
// goroutine run, so a process that opens files of a mount that it serves itself would wait for itself for ever.
func (s *stage) settlePoll() {
	s.t.Helper()
	fd, err := unix.Open(filepath.Join(s.mnt, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != nil { // #nosec G115 -- a descriptor
		s.t.Error(err)
	}
	if err := unix.Close(fd); err != nil {
		s.t.Error(err)
	}
}

func (s *stage) unmount() {
	s.t.Helper()
	if err := fs.Unmount(s.mnt, false); err != nil {
		s.t.Error(err)
		if err := fs.Unmount(s.mnt, true); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := s.server.Wait(); err != nil {
		s.t.Error(err)
	}
	s.server = nil
}

func (s *stage) remount() {
	s.t.Helper()
	s.unmount()
	s.mount()
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // #nosec G301 -- tests look in as other users
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil { // #nosec G306 -- likewise
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path) // #nosec G304 -- a test's own file
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func stat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

func TestUnmountTellsWhatIsWrong(t *testing.T) {
	s := newStage(t, 1)
	if err := fs.Unmount(s.mnt, false); !errors.Is(err, fs.ErrNotMounted) {
		t.Errorf("unmount of a plain directory: %v, want ErrNotMounted", err)
	}
	s.mount()
	f, err := os.Create(filepath.Join(s.mnt, "open"))
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Unmount(s.mnt, false); !errors.Is(err, fs.ErrBusy) {
		t.Errorf("unmount while a file is open: %v, want ErrBusy", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMountpointMissing(t *testing.T) {
	s := newStage(t, 0)
	_, err := fs.Mount(fs.Config{Mountpoint: filepath.Join(s.mnt, "none"), Upper: s.upper, Work: s.work})
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("mount on a missing directory: %v, want ENOENT", err)
	}
}
