package layerstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// storeWithImage has one image of one layer; like is a container of it.
func storeWithImage(t *testing.T) (s *Store, like Container) {
	t.Helper()
	s = openStore(t)
	l := gzipLayer(t, 60, 2, 100)
	mustIngest(t, s, l)
	img := putImage(t, s, refA, time.Unix(1, 0), l)
	return s, Container{Image: img.ID, Manifest: img.Manifest, ImageName: refA, Layers: []Digest{l.spec.DiffID}}
}

func TestContainers(t *testing.T) {
	ctx := context.Background()
	s, like := storeWithImage(t)
	like.Name = "first"
	a, err := s.CreateContainer(ctx, like)
	if err != nil {
		t.Fatal(err)
	}
	if !isHex(a.ID, 64) || a.Created.IsZero() {
		t.Errorf("%+v", a)
	}
	for dir, mode := range map[string]os.FileMode{"": 0o700, "/upper": 0o755, "/work": 0o700, "/merged": 0o755} {
		if fi, err := os.Stat(s.ContainerDir(a.ID) + dir); err != nil || fi.Mode().Perm() != mode || !fi.IsDir() {
			t.Errorf("%s: %v, %v", dir, fi.Mode(), err)
		}
	}
	if _, err := s.CreateContainer(ctx, like); !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), a.ID[:12]) {
		t.Errorf("the same name: %v", err)
	}
	like.Name = ""
	b, err := s.CreateContainer(ctx, like)
	if err != nil || checkContainerName(b.Name) != nil {
		t.Fatalf("%+v, %v", b, err)
	}
	for _, q := range []string{"first", a.ID, a.ID[:16]} {
		if c, err := s.Container(ctx, q); err != nil || c.ID != a.ID {
			t.Errorf("%s: %v", q, err)
		}
	}
	b.Mountpoint, b.Name = "/mnt/b", "second"
	if err := s.UpdateContainer(ctx, b); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Container(ctx, "second"); err != nil || c.Mountpoint != "/mnt/b" || !c.Created.Equal(b.Created) {
		t.Errorf("%+v, %v", c, err)
	}
	b.Name = "first"
	if err := s.UpdateContainer(ctx, b); !errors.Is(err, ErrNameTaken) {
		t.Errorf("renamed to a name that is taken: %v", err)
	}
	if cs, err := s.Containers(ctx); err != nil || len(cs) != 2 || cs[0].ID != b.ID {
		t.Errorf("%+v, %v", cs, err)
	}
	wantWhole(t, s)
	if err := errors.Join(s.RemoveContainer(ctx, a.ID), s.RemoveContainer(ctx, b.ID)); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveContainer(ctx, a.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if r := wantWhole(t, s); r.Garbage != 0 || r.Containers != 0 {
		t.Errorf("%+v", r)
	}
}

func TestContainerRefusals(t *testing.T) {
	s, like := storeWithImage(t)
	for _, name := range []string{"a", ".a", "-ab", "_ab", "a b", "a/b", "..", "a\nb", "ä1", strings.Repeat("a", MaxNameLen+1)} {
		c := like
		c.Name = name
		if _, err := s.CreateContainer(context.Background(), c); !errors.Is(err, ErrInvalid) {
			t.Errorf("name %.10q: %v", name, err)
		}
	}
	for _, q := range []string{"", "none", strings.Repeat("0", 64), "../" + strings.Repeat("0", 64)} {
		if _, err := s.Container(context.Background(), q); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", q, err)
		}
	}
	if err := s.UpdateContainer(context.Background(), Container{ID: strings.Repeat("0", 64), Name: "gone"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("an update of none: %v", err)
	}
	missing := Digest("sha256:" + strings.Repeat("0", 64))
	for what, change := range map[string]func(*Container){
		"manifest": func(c *Container) { c.Manifest = missing },
		"config":   func(c *Container) { c.Image = missing },
		"layer":    func(c *Container) { c.Layers = append(c.Layers, missing) },
	} {
		c := like
		change(&c)
		if _, err := s.CreateContainer(context.Background(), c); !errors.Is(err, ErrNotFound) {
			t.Errorf("missing %s: %v", what, err)
		}
	}
	wantWhole(t, s)
}

func TestContainersAtOnce(t *testing.T) {
	s, like := storeWithImage(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := like
			c.Name = "one"
			_, errs[i] = s.CreateContainer(context.Background(), c)
		}()
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if !errors.Is(err, ErrNameTaken) {
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("%d containers of one name", made)
	}
}

func TestFreeName(t *testing.T) {
	var cs []Container
	for range 3 * len(nameQualities) * len(nameSurnames) / 2 { // more than there are without a number
		if len(cs) > 2000 {
			break
		}
		c := Container{Name: freeName(cs)}
		if err := checkContainerName(c.Name); err != nil {
			t.Fatal(err)
		}
		cs = append(cs, c)
	}
}

func TestLockContainer(t *testing.T) {
	s, like := storeWithImage(t)
	c, err := s.CreateContainer(context.Background(), like)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.LockContainer(c.ID, false)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.LockContainer(c.ID, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.LockContainer(c.ID, true); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	if err := s.RemoveContainer(context.Background(), c.ID); !errors.Is(err, ErrBusy) {
		t.Errorf("removed while locked: %v", err)
	}
	if err := errors.Join(a.Release(), a.Release(), b.Release()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LockContainer("../x", true); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
	if err := s.RemoveContainer(context.Background(), c.ID); err != nil {
		t.Error(err)
	}
	if _, err := s.LockContainer(c.ID, true); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// makeHostile fills dir with what a container may leave there.
func makeHostile(dir, outside string) error {
	errs := []error{os.Symlink(outside, dir+"/link"), os.Symlink("/", dir+"/root"), os.Link(outside+"/kept", dir+"/hardlink")}
	for _, n := range []string{" ", "-rf", "a\nb", "\xff\xfe", strings.Repeat("n", 255), "..." /* not .. */} {
		errs = append(errs, os.WriteFile(dir+"/"+n, []byte("x"), 0))
	}
	errs = append(errs, unix.Mkfifo(dir+"/fifo", 0), os.MkdirAll(dir+"/closed/in/it", 0o755), os.WriteFile(dir+"/closed/in/f", nil, 0o600),
		os.Symlink(outside, dir+"/closed/in/it/link"), os.Chmod(dir+"/closed/in/it", 0), os.Chmod(dir+"/closed/in", 0o500), os.Chmod(dir+"/closed", 0))
	// Deeper than PATH_MAX can say.
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	errs = append(errs, err)
	name := strings.Repeat("d", 100)
	for range 300 {
		if err := unix.Mkdirat(fd, name, 0o700); err != nil {
			errs = append(errs, err)
			break
		}
		sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		_ = unix.Close(fd)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		fd = sub
	}
	_ = unix.Close(fd)
	for i := range 5000 { // more than one getdents
		f := filepath.Join(dir, "many"+jsonNumber(int64(i)))
		errs = append(errs, os.Link(outside+"/kept", f))
	}
	return errors.Join(errs...)
}

func TestRemoveHostileTree(t *testing.T) {
	t.Run("as is", func(t *testing.T) { removeHostile(t, t.TempDir()) })
	t.Run("unprivileged", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("the other subtest was unprivileged already")
		}
		base, err := os.MkdirTemp("", "layerstore")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(base) })
		if err := os.Chown(base, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			// One thread alone becomes nobody; it ends with this goroutine, which does not unlock it.
			runtime.LockOSThread()
			for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
				if _, _, errno := syscall.RawSyscall(call, 65534, 65534, 65534); errno != 0 {
					t.Errorf("becoming nobody: %v", errno)
					return
				}
			}
			removeHostile(t, base)
		}()
		<-done
	})
}

// removeHostile reports with Error alone: it may run in a goroutine of its own.
func removeHostile(t *testing.T, base string) {
	outside, store := base+"/outside", base+"/store"
	s, err := Open(store)
	if err == nil {
		err = errors.Join(os.Mkdir(outside, 0o755), os.WriteFile(outside+"/kept", []byte("kept"), 0o644))
	}
	if err != nil {
		t.Error(err)
		return
	}
	ids := []string{strings.Repeat("a", 64), strings.Repeat("b", 64)}
	for _, id := range ids {
		if err := errors.Join(os.MkdirAll(s.ContainerDir(id)+"/upper", 0o700), makeHostile(s.ContainerDir(id)+"/upper", outside)); err != nil {
			t.Error(err)
			return
		}
	}
	var before, after int
	before = openFiles()
	if err := s.RemoveContainer(context.Background(), ids[0]); err != nil {
		t.Error(err)
	}
	if after = openFiles(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	// One that a killed process has put in the trash is collected.
	if err := os.Rename(s.ContainerDir(ids[1]), s.path(dirTrash, "left")); err != nil {
		t.Error(err)
	}
	if _, err := s.Collect(context.Background()); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{dirTrash, dirContainers} {
		if names, err := os.ReadDir(s.path(dir)); err != nil || len(names) != 0 {
			t.Errorf("left in %s: %v, %v", dir, names, err)
		}
	}
	fi, err := os.Stat(outside)
	b, rerr := os.ReadFile(outside + "/kept")
	if err != nil || fi.Mode().Perm() != 0o755 || rerr != nil || string(b) != "kept" {
		t.Errorf("what symlinks led to was touched: %v, %v, %v", fi, err, rerr)
	}
}

func openFiles() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(names)
}
