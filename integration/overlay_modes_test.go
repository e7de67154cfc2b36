package integration

import (
	"bytes"
	endian "encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOverlayRedirectDir(t *testing.T) {
	u := newUnion(t, 1)
	u.write(u.lowers[0]+"/d/s/f", "x")
	u.write(u.lowers[0]+"/e/f", "x")
	for _, mode := range []string{"off", "follow", "nofollow"} {
		u.mount("redirect_dir=" + mode)
		u.wantErrno(unix.EXDEV, os.Rename(u.path("d"), u.path("d2")), mode+": rename")
		u.wantErrno(unix.EXDEV, unix.Renameat2(unix.AT_FDCWD, u.path("d"), unix.AT_FDCWD, u.path("e"), unix.RENAME_EXCHANGE), mode+": exchange")
		u.ok(os.Mkdir(u.path("new"), 0o755))
		u.ok(os.Rename(u.path("new"), u.path("new2")))
		u.ok(os.Remove(u.path("new2")))
		u.umount()
		if left, err := os.ReadDir(u.upper); err != nil || len(left) != 0 {
			t.Errorf("%s: the upper has %v, %v", mode, left, err)
		}
	}
	for _, option := range []string{"rw", "redirect_dir=on"} {
		u.mount(option)
		u.ok(os.Rename(u.path("d"), u.path("d2")))
		if u.read(u.path("d2/s/f")) != "x" {
			t.Errorf("%s: the lower contents did not move along", option)
		}
		u.ok(os.Rename(u.path("d2"), u.path("d")))
		u.umount()
	}
	u.mount()
	u.ok(os.Rename(u.path("d"), u.path("d2")))
	for _, mode := range []string{"follow", "off"} {
		u.remount("redirect_dir=" + mode)
		if u.read(u.path("d2/s/f")) != "x" {
			t.Errorf("%s: does not follow", mode)
		}
		u.wantErrno(unix.EXDEV, os.Rename(u.path("d2"), u.path("d3")), mode+": rename")
	}
	u.remount("redirect_dir=nofollow")
	_, err := os.ReadFile(u.path("d2/s/f"))
	u.wantErrno(unix.EPERM, err, "nofollow")
}

func TestOverlayMetacopy(t *testing.T) {
	for option, want := range map[string]bool{"rw": false, "metacopy=off": false, "metacopy=on": true} {
		u := newUnion(t, 1)
		text := strings.Repeat("x", 100_000)
		u.write(u.lowers[0]+"/f", text)
		u.mount(option)
		u.ok(os.Chmod(u.path("f"), 0o600))
		list := make([]byte, 4096)
		n, err := unix.Llistxattr(u.upper+"/f", list)
		u.ok(err)
		if got := strings.Contains(string(list[:n]), "overlay.metacopy"); got != want {
			t.Errorf("%s: the mark is there: %v", option, got)
		}
		if got := u.stat(u.upper+"/f").Blocks < 100; got != want {
			t.Errorf("%s: the data are not in the upper: %v", option, got)
		}
		u.remount("metacopy=off")
		if u.read(u.path("f")) != text {
			t.Errorf("%s: the file has changed", option)
		}
	}
}

func TestOverlayIndex(t *testing.T) {
	for option, want := range map[string]string{"rw": "new", "index=on": "new", "index=off": "old"} {
		u := newUnion(t, 1)
		u.write(u.lowers[0]+"/a", "old")
		u.ok(os.Link(u.lowers[0]+"/a", u.lowers[0]+"/b"))
		u.mount(option)
		before := u.stat(u.path("a")).Ino
		if u.read(u.path("b")) != "old" {
			t.Fatal("b is not a")
		}
		u.write(u.path("a"), "new")
		for _, when := range []string{"", " after a remount"} {
			if got := u.read(u.path("b")); got != want || u.read(u.path("a")) != "new" {
				t.Errorf("%s%s: b reads %q, want %q", option, when, got, want)
			}
			for _, n := range []string{"a", "b"} {
				if ino, listed := u.stat(u.path(n)).Ino, u.listed(n); ino != listed {
					t.Errorf("%s%s: %s has the inode number %x, listed as %x", option, when, n, ino, listed)
				}
			}
			if ino := u.stat(u.path("a")).Ino; ino != before {
				t.Errorf("%s%s: inode number %x became %x", option, when, before, ino)
			}
			u.remount(option)
		}
		if want == "old" {
			u.write(u.path("b"), "own")
			if got := u.read(u.path("a")); got != "new" {
				t.Errorf("%s: a reads %q after b was written", option, got)
			}
			if n := u.stat(u.path("b")).Nlink; n != 1 {
				t.Errorf("%s: %d links", option, n)
			}
		}
	}
}

func TestOverlayVolatile(t *testing.T) {
	u := newUnion(t, 1)
	u.mount("volatile")
	u.write(u.path("f"), "x")
	f, err := os.Open(u.path("f"))
	u.ok(err)
	u.ok(f.Sync())
	u.ok(f.Close())
	u.umount()
	mark := u.work + "/work/incompat/volatile"
	if _, err := os.Stat(mark); err != nil {
		t.Fatal(err)
	}
	for _, option := range []string{"rw", "volatile"} {
		u.refused([]string{"volatile", u.work + "/work/incompat"}, option)
	}
	r := u.plyfs("plyfs", "overlay", "-o", "volatile,lowerdir="+u.lowers[0], u.mnt)
	if r.code != 2 {
		t.Errorf("without an upper directory: %+v", r)
	}
	u.ok(os.RemoveAll(filepath.Dir(mark)))
	u.mount()
	if u.read(u.path("f")) != "x" {
		t.Error("the file is lost")
	}
	// The kernel refuses what we mark, and we what it marks.
	u.umount()
	u.mountWith("kernel", "volatile")
	u.umount()
	u.refused([]string{"volatile"}, "rw")
}

func TestOverlayUserXattr(t *testing.T) {
	u := newUnion(t, 1)
	u.write(u.lowers[0]+"/d/f", "x")
	u.mount("userxattr")
	u.ok(os.RemoveAll(u.path("d")))
	u.ok(os.Mkdir(u.path("d"), 0o755))
	if got := u.xattr(u.upper+"/d", "user.overlay.opaque"); got != "y" {
		t.Errorf("user.overlay.opaque is %q", got)
	}
	if got := u.xattr(u.upper+"/d", "trusted.overlay.opaque"); got != "" {
		t.Errorf("trusted.overlay.opaque is %q", got)
	}
	u.write(u.lowers[0]+"/e/f", "x")
	u.remount("userxattr")
	u.wantErrno(unix.EXDEV, os.Rename(u.path("e"), u.path("e2")), "rename")
	if left, err := os.ReadDir(u.path("d")); err != nil || len(left) != 0 {
		t.Errorf("d holds %v, %v", left, err)
	}
}

func TestOverlayXattrs(t *testing.T) {
	u := newUnion(t, 1)
	u.write(u.lowers[0]+"/f", "x")
	tool(t, "setfacl", "-m", "u:7:r", u.lowers[0]+"/f")
	buf := make([]byte, 100)
	const acl = "system.posix_acl_access"

	for _, option := range []string{"rw", "acl", "noxattrs=0"} {
		u.mount(option)
		if n, err := unix.Lgetxattr(u.path("f"), acl, buf); err != nil || n != 44 {
			t.Errorf("%s: an ACL of %d bytes, %v", option, n, err)
		}
		u.umount()
	}
	u.mount("noacl")
	_, err := unix.Lgetxattr(u.path("f"), acl, buf)
	u.wantErrno(unix.EOPNOTSUPP, err, "noacl: get an ACL")
	u.wantErrno(unix.EOPNOTSUPP, unix.Lsetxattr(u.path("f"), acl, buf[:44], 0), "noacl: set an ACL")
	u.ok(unix.Lsetxattr(u.path("f"), "user.a", []byte("b"), 0))
	u.remount("noxattrs=1")
	_, err = unix.Lgetxattr(u.path("f"), "user.a", buf)
	u.wantErrno(unix.EOPNOTSUPP, err, "noxattrs: get")
	u.wantErrno(unix.EOPNOTSUPP, unix.Lsetxattr(u.path("f"), "user.b", buf[:1], 0), "noxattrs: set")
	u.wantErrno(unix.EOPNOTSUPP, unix.Lremovexattr(u.path("f"), "user.a"), "noxattrs: remove")
	_, err = unix.Llistxattr(u.path("f"), buf)
	u.wantErrno(unix.EOPNOTSUPP, err, "noxattrs: list")
	u.remount()
	if u.xattr(u.path("f"), "user.a") != "b" {
		t.Error("the xattr is lost")
	}
}

func TestOverlayStaticNlink(t *testing.T) {
	u := newUnion(t, 1)
	u.ok(os.MkdirAll(u.lowers[0]+"/d/a", 0o755))
	u.ok(os.MkdirAll(u.lowers[0]+"/d/b", 0o755))
	for option, want := range map[string]uint64{"rw": 4, "static_nlink": 1} {
		u.mount(option)
		for _, when := range []string{"lower", "upper"} {
			if n := uint64(u.stat(u.path("d")).Nlink); n != want { //nolint:unconvert // uint32 on other machines
				t.Errorf("%s, %s: %d links, want %d", option, when, n, want)
			}
			u.ok(os.Chmod(u.path("d"), 0o700))
		}
		u.umount()
	}
}

func TestOverlayInodeNumbers(t *testing.T) {
	u := newUnion(t, 2)
	for i, l := range u.lowers {
		u.write(l+"/"+string(rune('a'+i)), "x")
	}
	real := u.stat(u.lowers[0] + "/a").Ino
	for option, good := range map[string]func(ino uint64) bool{
		"xino=on":   func(ino uint64) bool { return ino > 1<<48 },
		"xino=auto": func(ino uint64) bool { return ino > 1<<48 },
		"xino=off":  func(ino uint64) bool { return ino == real },
		"ino32_t":   func(ino uint64) bool { return ino < 1<<32 },
	} {
		u.mount(option)
		ino := u.stat(u.path("a")).Ino
		if !good(ino) {
			t.Errorf("%s: inode number %x, in its layer %x", option, ino, real)
		}
		if listed := u.listed("a"); listed != ino {
			t.Errorf("%s: inode number %x, listed as %x", option, ino, listed)
		}
		if other := u.stat(u.path("b")).Ino; other == ino {
			t.Errorf("%s: two files with the inode number %x", option, ino)
		}
		u.umount()
	}
}

// listed is the inode number that a listing of the root gives for a name, whatever stat says.
func (u *union) listed(name string) uint64 {
	u.t.Helper()
	fd, err := unix.Open(u.mnt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	u.ok(err)
	defer unix.Close(fd) //nolint:errcheck // only read from
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		u.ok(err)
		if n == 0 {
			u.t.Fatalf("%s is not listed", name)
		}
		// struct linux_dirent64 of getdents64(2)
		for b := buf[:n]; len(b) > 0; b = b[endian.NativeEndian.Uint16(b[16:]):] {
			text := b[19:endian.NativeEndian.Uint16(b[16:])]
			if string(text[:bytes.IndexByte(text, 0)]) == name {
				return endian.NativeEndian.Uint64(b)
			}
		}
	}
}
