package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// attempt is something that cannot be done when there is no room.
type attempt struct {
	name string
	do   func(u *union) error
}

var attempts = []attempt{
	{"chmod of a lower file", func(u *union) error { return os.Chmod(u.path("big"), 0o600) }},
	{"rename of a lower file", func(u *union) error { return os.Rename(u.path("big"), u.path("big2")) }},
	{"rename over a file", func(u *union) error { return os.Rename(u.path("big"), u.path("mine")) }},
	{"link of a lower file", func(u *union) error { return os.Link(u.path("dir/big"), u.path("link")) }},
	{"xattr of a lower file", func(u *union) error { return unix.Setxattr(u.path("dir/big"), "user.a", []byte("b"), 0) }},
	{"truncate of a lower file", func(u *union) error { return os.Truncate(u.path("big"), 15<<20) }},
	{"unlink of a hard link", func(u *union) error { return os.Remove(u.path("linked1")) }},
	{"allocate", func(u *union) error {
		f, err := os.OpenFile(u.path("big"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fallocate(int(f.Fd()), 0, 0, 17<<20)
	}},
	{"write past the cache", func(u *union) error {
		fd, err := unix.Open(u.path("dir/big"), unix.O_WRONLY|unix.O_SYNC|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		_, werr := unix.Pwrite(fd, []byte("x"), 0)
		if err := unix.Close(fd); werr == nil {
			return err
		}
		return werr
	}},
}

// try has every attempt fail with an errno, and sees that the tree is then what it was, also after a remount.
func (u *union) try(want unix.Errno) {
	u.t.Helper()
	before := tree(u.t, u.mnt)
	for _, a := range attempts {
		u.wantErrno(want, a.do(u), a.name)
		u.ok(os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
		sameTree(u.t, before, tree(u.t, u.mnt))
	}
}

// fillBig makes lower files that do not fit the upper filesystem, and small ones.
func (u *union) fillBig() {
	low := u.lowers[0] + "/"
	text := strings.Repeat("0123456789abcdef", 1<<20)
	for _, n := range []string{"big", "dir/big", "linked1"} {
		u.write(low+n, text)
	}
	u.ok(os.Link(low+"linked1", low+"linked2"))
	u.write(low+"small", "small")
}

// TestOverlayDiskFull does what takes room on a full disk, then makes room and does it again.
func TestOverlayDiskFull(t *testing.T) {
	u := newUnion(t, 1)
	u.upperOn(smallDisk(t, 12<<20))
	u.fillBig()
	u.mount("metacopy=off", "redirect_dir=on")
	u.write(u.path("mine"), "mine")
	u.try(unix.ENOSPC)
	// What was cached cannot be kept; that is said, and the rest goes on.
	fd, err := unix.Open(u.path("new"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	u.ok(err)
	for range 20 {
		if _, err = unix.Write(fd, make([]byte, 1<<20)); err != nil {
			break
		}
	}
	if err == nil {
		err = unix.Fsync(fd)
	}
	u.wantErrno(unix.ENOSPC, err, "writing 20 MiB")
	u.ok(unix.Ftruncate(fd, 0))
	_ = unix.Close(fd) // may tell of it once more
	u.ok(os.Remove(u.path("new")))
	u.write(u.path("small"), "still fits")
	before := tree(t, u.mnt)
	u.remount("metacopy=off", "redirect_dir=on")
	sameTree(t, before, tree(t, u.mnt))
	if left, err := os.ReadDir(u.work + "/work"); err != nil || len(left) > 1 {
		t.Errorf("in the work directory is left %v, %v", left, err)
	}
	u.umount()
	u.awaitServers()
}

// upperOn moves upper and work directory to another filesystem.
func (u *union) upperOn(dir string) {
	u.t.Helper()
	u.upper, u.work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	u.ok(os.Mkdir(u.upper, 0o755))
	u.ok(os.Mkdir(u.work, 0o755))
}

// TestOverlayQuota does it where a quota is used up.
func TestOverlayQuota(t *testing.T) {
	needRoot(t)
	needTools(t, "mkfs.btrfs", "btrfs")
	u := newUnion(t, 1)
	image, point := filepath.Join(u.dir, "image"), filepath.Join(u.dir, "disk")
	u.ok(os.WriteFile(image, nil, 0o600))
	u.ok(os.Truncate(image, 256<<20))
	tool(t, "mkfs.btrfs", "-q", image)
	u.ok(os.Mkdir(point, 0o755))
	tool(t, "mount", "-o", "loop", image, point)
	t.Cleanup(func() { u.ok(unix.Unmount(point, unix.MNT_DETACH)) })
	tool(t, "btrfs", "subvolume", "create", point+"/sub")
	tool(t, "btrfs", "quota", "enable", point)
	tool(t, "btrfs", "qgroup", "limit", "8M", point+"/sub")
	u.upperOn(point + "/sub")
	u.fillBig()
	u.mount("metacopy=off", "redirect_dir=on")
	u.write(u.path("mine"), "mine")
	u.try(unix.EDQUOT)
	u.write(u.path("small"), "still fits")
	u.umount()
	u.awaitServers()
}

// TestOverlayFewDescriptors serves many files with few descriptors, and says so when programs use more removed files
// than there are.
func TestOverlayFewDescriptors(t *testing.T) {
	needRoot(t)
	needTools(t, "prlimit")
	u := newUnion(t, 1)
	const files, limit = 400, 128
	for i := range files {
		u.write(fmt.Sprintf("%s/d%d/f", u.lowers[0], i), "lower")
	}
	cmd := exec.Command("prlimit", fmt.Sprintf("--nofile=%d", limit), plyfsBinary(), "overlay", "-o", u.options(), u.mnt)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i := range files {
		p := u.path(fmt.Sprintf("d%d/f", i))
		u.write(p, "written")
		u.write(p+"2", "new")
		if got := u.read(p); got != "written" {
			t.Fatalf("%s holds %q", p, got)
		}
	}
	var held []*os.File
	var full error
	for i := range files {
		p := u.path(fmt.Sprintf("d%d/f", i))
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		u.ok(err)
		held = append(held, f)
		if full = os.Remove(p); full != nil {
			break
		}
	}
	u.wantErrno(unix.EMFILE, full, "removing files that are open")
	last := held[len(held)-1]
	if got := u.read(last.Name()); got != "written" {
		t.Errorf("what could not be removed holds %q", got)
	}
	for i, f := range held[:len(held)-1] {
		b := make([]byte, 7)
		if _, err := f.ReadAt(b, 0); err != nil || string(b) != "written" {
			t.Fatalf("removed file %d holds %q, %v", i, b, err)
		}
	}
	for _, f := range held {
		u.ok(f.Close())
	}
	u.ok(os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0))
	u.ok(os.Remove(last.Name()))
	for i := range files {
		u.ok(os.RemoveAll(u.path(fmt.Sprintf("d%d", i))))
	}
	if left, err := os.ReadDir(u.mnt); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
