package layerstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOpenRefusals(t *testing.T) {
	dir := t.TempDir()
	overwrite(t, dir+"/letter.txt", []byte("mine"))
	if _, err := Open(dir); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "letter.txt") {
		t.Errorf("someone's directory: %v", err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("made in someone's directory: %v", names)
	}
	if _, err := Open(""); !errors.Is(err, ErrInvalid) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Open(dir + "/letter.txt/store"); err == nil {
		t.Error("a store below a file")
	}
	if _, err := Open("/proc/plyfs-test"); err == nil {
		t.Error("a store in /proc")
	}
	s := openStore(t)
	overwrite(t, s.path(nameLayout), []byte(`{"imageLayoutVersion":"2.0.0"}`))
	if _, err := Open(s.Root()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another layout: %v", err)
	}
}

func TestOpenAgain(t *testing.T) {
	s := openStore(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.Root())
	if err != nil || again.Root() != s.Root() {
		t.Fatal(err)
	}
	wantWhole(t, again)
	fi, err := os.Stat(s.Root())
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	// Killed while the store was made: everything there but oci-layout, or only a part.
	if err := errors.Join(os.Remove(s.path(nameLayout)), os.Remove(s.path(dirTrash))); err != nil {
		t.Fatal(err)
	}
	if again, err = Open(s.Root()); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, again)
}

// mountTmpfs mounts a small file system.
func mountTmpfs(t *testing.T, opts string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system takes root")
	}
	dir := t.TempDir()
	if err := unix.Mount("layerstore-test", dir, "tmpfs", 0, opts); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// fillRest fills the file system but for so many bytes; what it returns frees them.
func fillRest(t *testing.T, dir string, leave int64) (free func()) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, max(int64(st.Bavail)*st.Bsize-leave, 0)), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	dir := mountTmpfs(t, "size=4m")
	s, err := Open(dir + "/store")
	if err != nil {
		t.Fatal(err)
	}
	small := gzipLayer(t, 70, 2, 1000)
	mustIngest(t, s, small)
	putImage(t, s, refA, time.Unix(1, 0), small)
	big := gzipLayer(t, 71, 60, 50_000) // 1.6 MB of gzip, 3 MB of tar
	for _, leave := range []int64{0, 4096, 16 << 10, 300 << 10, 1 << 20, 2 << 20, 3 << 20} {
		free := fillRest(t, dir, leave)
		err := ingest(s, big)
		if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "free some space") {
			t.Errorf("with %d bytes left: %v", leave, err)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("several lines: %v", err)
		}
		names, _ := os.ReadDir(s.path(dirIngest))
		for _, n := range names {
			if !strings.HasSuffix(n.Name(), suffixPartial) {
				t.Errorf("left in ingest: %s", n.Name())
			}
		}
		wantWhole(t, s)
		free()
	}
	free := fillRest(t, dir, 0)
	_, err = s.WriteBlob(make([]byte, 100_000))
	if !errors.Is(err, ErrNoSpace) {
		t.Errorf("WriteBlob: %v", err)
	}
	if err := s.TagImage(context.Background(), refA, refB); !errors.Is(err, ErrNoSpace) {
		t.Errorf("TagImage: %v", err)
	}
	if names, _ := os.ReadDir(s.path(dirIngest)); len(names) > 1 {
		t.Errorf("left in ingest: %v", names)
	}
	if _, err := s.ResolveImage(context.Background(), refA); err != nil {
		t.Errorf("the image that was there: %v", err)
	}
	// Removing an image must work on a full disk; collecting what was fetched too.
	if _, err := s.Collect(context.Background()); err != nil {
		t.Errorf("Collect: %v", err)
	}
	free()
	wantWhole(t, s)
	medium := gzipLayer(t, 72, 20, 50_000)
	mustIngest(t, s, medium)
	wantWhole(t, s)
}

func TestReadOnlyStore(t *testing.T) {
	dir := mountTmpfs(t, "size=4m")
	s, err := Open(dir + "/store")
	if err != nil {
		t.Fatal(err)
	}
	l := gzipLayer(t, 73, 2, 1000)
	mustIngest(t, s, l)
	putImage(t, s, refA, time.Unix(1, 0), l)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir + "/store"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ResolveImage(context.Background(), refA); err != nil {
		t.Errorf("reading: %v", err)
	}
	if err := lookInto(s, l.spec.DiffID); err != nil {
		t.Errorf("opening a layer: %v", err)
	}
	for what, err := range map[string]error{
		"ingest": ingest(s, gzipLayer(t, 74, 1, 1)),
		"tag":    s.TagImage(context.Background(), refA, refB),
		"remove": func() error { _, err := s.RemoveImage(context.Background(), refA, RemoveOptions{}); return err }(),
	} {
		if !errors.Is(err, ErrNotWritable) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
