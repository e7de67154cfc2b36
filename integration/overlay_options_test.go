package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOverlayFlags(t *testing.T) {
	u := newUnion(t, 1)
	for option, flag := range map[string]int64{
		"ro": unix.ST_RDONLY, "nosuid": unix.ST_NOSUID, "nodev": unix.ST_NODEV, "noexec": unix.ST_NOEXEC,
		"noatime": unix.ST_NOATIME, "nodiratime": unix.ST_NODIRATIME, "sync": unix.ST_SYNCHRONOUS,
		"nosymfollow": 0x2000, "user": unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC,
		"rw,dev,suid,exec,nofail,_netdev,x-systemd.requires=/a,defaults,allow_other,default_permissions": 0,
	} {
		u.mount(option)
		var st unix.Statfs_t
		u.ok(unix.Statfs(u.mnt, &st))
		all := int64(unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC | unix.ST_NOATIME | unix.ST_NODIRATIME | unix.ST_SYNCHRONOUS | 0x2000)
		if got := st.Flags & all; got != flag {
			t.Errorf("%s: flags %#x, want %#x", option, got, flag)
		}
		u.umount()
	}
	u.mount("dirsync", "fsname=some disk", "max_read=65536")
	mounts := u.read("/proc/mounts")
	for _, want := range []string{`some\040disk ` + u.mnt + " fuse.plyfs", "dirsync", "max_read=65536"} {
		if !strings.Contains(mounts, want) {
			t.Errorf("%s is not in the mount table", want)
		}
	}
}

func TestOverlayReadOnly(t *testing.T) {
	u := newUnion(t, 2)
	u.write(u.lowers[1]+"/f", "x")
	for _, args := range [][]string{
		{"-o", u.options("ro")},
		{"-r", "-o", u.options()},
		{"-o", "lowerdir=" + strings.Join(u.lowers, ":")},
		{"-o", "lowerdir=" + u.lowers[1]},
	} {
		if r := u.plyfs("plyfs", append(append([]string{"overlay"}, args...), u.mnt)...); r.code != 0 {
			t.Fatalf("%q: %+v", args, r)
		}
		u.wantErrno(unix.EROFS, os.WriteFile(u.path("f"), nil, 0o644), "write")
		u.wantErrno(unix.EROFS, os.Mkdir(u.path("d"), 0o755), "mkdir")
		if u.read(u.path("f")) != "x" {
			t.Error("the lower file does not show")
		}
		u.umount()
	}
}

// TestOverlayRoot sees that the root is that of the upper directory, unlike an image's.
func TestOverlayRoot(t *testing.T) {
	u := newUnion(t, 1)
	u.ok(os.Chmod(u.lowers[0], 0o711))
	u.ok(os.Chmod(u.upper, 0o750))
	u.mount()
	if mode := u.stat(u.mnt).Mode & 0o7777; mode != 0o750 {
		t.Errorf("mode %o", mode)
	}
}

func TestOverlayDirectories(t *testing.T) {
	u := newUnion(t, 0)
	odd := []string{"a:b", "c,d", `e\f`, "g=h", "i j", "-k"}
	for _, n := range odd {
		u.write(filepath.Join(u.dir, n, "of "+n), n)
		u.write(filepath.Join(u.dir, n, "top"), n)
	}
	for _, d := range []string{"up:per", "wo,rk"} {
		u.ok(os.Mkdir(filepath.Join(u.dir, d), 0o755))
	}
	upper := `,upperdir=up\:per,workdir=wo\,rk`
	for _, options := range []string{
		`lowerdir=a\:b:c\,d:e\\f:g=h:i j:-k` + upper,
		`lowerdir+=a:b,lowerdir+=c\,d,lowerdir+=e\\f,lowerdir+=g=h,lowerdir+=i j,lowerdir+=-k` + upper,
		`lowerdir=a\:b:c\,d,lowerdir+=e\\f,lowerdir+=g=h,lowerdir+=i j,lowerdir+=-k` + upper,
		"lowerdir=" + u.dir + `/a\:b:` + u.dir + `/c\,d:e\\f:g=h:i j:./-k` + upper,
	} {
		// In the background and with relative names.
		if r := u.plyfs("plyfs", "overlay", "-o", options, "mnt"); r.code != 0 {
			t.Fatalf("%s: %+v", options, r)
		}
		for _, n := range odd {
			if got := u.read(u.path("of " + n)); got != n {
				t.Errorf("%s: of %s is %q", options, n, got)
			}
		}
		if got := u.read(u.path("top")); got != "a:b" {
			t.Errorf("%s: on top is %q", options, got)
		}
		u.write(u.path("new"), "new")
		if got := u.read(filepath.Join(u.dir, "up:per/new")); got != "new" {
			t.Errorf("%s: the upper has %q", options, got)
		}
		u.umount()
	}
}

// TestOverlayRefused sees options that cannot be honoured refused, each in one line that names it.
func TestOverlayRefused(t *testing.T) {
	u := newUnion(t, 1)
	for _, option := range []string{
		"bogus", "bogus=1", "datadir+=/d", "lowerdir=/a::/b", "upperdir=", "redirect_dir=maybe", "metacopy=1", "index=2",
		"xino=yes", "uuid=on", "verity=on", "verity=require", "nooverride_creds",
		"xattr_permissions=3", "plugins=/p", "fast_ino=1", "timeout=x", "fsync=2",
		"noxattrs=yes", "squash_to_uid=x", "uidmapping=1:2", "gidmapping=0:0:0", "auto_unmount", "clone_fd",
		"max_threads=2", "max_idle_threads=2", "congestion_threshold=3", "splice_read", "no_splice_write", "umask=022",
		"uid=1", "gid=1", "remount", "bind", "mand", "strictatime", "lazytime", "iversion", "direct_io", "subtype=x",
		"max_write=1", "ro=1", "name=x", "root=/x", "blkdev", "fd=3", "loop", "shared",
	} {
		name, _, _ := strings.Cut(option, "=")
		u.refused([]string{name}, option)
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		for _, c := range []string{"context", "fscontext", "defcontext", "rootcontext"} {
			u.refused([]string{c, "SELinux"}, c+`="system_u:object_r:x:s0:c1,c2"`)
		}
	}
	u.refused([]string{"userxattr", "metacopy=on"}, "userxattr", "metacopy=on")
	u.refused([]string{"metacopy=on", "redirect_dir=off"}, "redirect_dir=off", "metacopy=on")
	u.refused([]string{"missing"}, "lowerdir="+u.dir+"/missing")
	u.refused([]string{"contain each other"}, "workdir="+u.upper)
	u.ok(os.Mkdir(u.upper+"/w", 0o755))
	u.refused([]string{"contain each other"}, "workdir="+u.upper+"/w")
	for _, args := range [][]string{
		{"overlay"},
		{"overlay", "-o", u.options()},
		{"overlay", u.mnt},
		{"overlay", "-o"},
		{"overlay", "-x", u.mnt},
		{"overlay", "--nothing", u.mnt},
		{"overlay", "-o", u.options(), u.mnt, "more"},
		{"overlay", "-o", "lowerdir=" + u.lowers[0] + ",upperdir=" + u.upper, u.mnt},
		{"overlay", "-o", "lowerdir=" + u.lowers[0] + ",workdir=" + u.work, u.mnt},
	} {
		r := u.plyfs("plyfs", args...)
		if err := oneError(r.stderr); r.code != 2 || err != nil {
			t.Errorf("%q: %+v: %v", args, r, err)
		}
	}
	u.write(u.dir+"/file", "")
	for _, mountpoint := range []string{u.dir + "/file", u.dir + "/missing"} {
		r := u.plyfs("plyfs", "overlay", "-o", u.options(), mountpoint)
		if err := oneError(r.stderr); r.code != 1 || err != nil || !strings.Contains(r.stderr, mountpoint) {
			t.Errorf("on %s: %+v: %v", mountpoint, r, err)
		}
	}
}

// TestOverlaySharedUpper sees that two servers do not write to one upper directory, and that one may follow another at
// once.
func TestOverlaySharedUpper(t *testing.T) {
	u := newUnion(t, 1)
	for i := range 10 {
		u.mount()
		u.write(u.path(fmt.Sprint(i)), "x")
		u.umount()
	}
	u.mount()
	second := u.dir + "/second"
	u.ok(os.Mkdir(second, 0o755))
	r := u.plyfs("plyfs", "overlay", "-o", u.options(), second)
	if err := oneError(r.stderr); r.code != 1 || err != nil || !strings.Contains(r.stderr, "in use") {
		t.Errorf("a second mount: %+v: %v", r, err)
	}
}

func TestOverlayTimes(t *testing.T) {
	u := newUnion(t, 1)
	read := func(name string, more ...string) (before, after unix.Timespec) {
		u.write(u.upper+"/"+name, strings.Repeat("x", 5000))
		old := []unix.Timespec{{Sec: 1e9}, {Sec: 1e9 + 10}} // older than the change: relatime would touch it
		u.ok(unix.UtimesNanoAt(unix.AT_FDCWD, u.upper+"/"+name, old, 0))
		u.mount(more...)
		u.read(u.path(name))
		u.umount()
		return old[0], u.stat(u.upper + "/" + name).Atim
	}
	if before, after := read("noatime", "noatime"); before != after {
		t.Errorf("noatime: %v became %v", before, after)
	}
	if before, after := read("relatime", "relatime"); before == after {
		t.Errorf("relatime: %v stayed", before)
	}
}

// TestOverlayRequests sees in the log of requests what options keep from the server and what they send to it.
func TestOverlayRequests(t *testing.T) {
	u := newUnion(t, 1)
	u.write(u.lowers[0]+"/f", "x")
	count := func(request string, more ...string) int {
		t.Helper()
		stop := u.debug(more...)
		for range 5 {
			u.stat(u.path("f"))
			_ = unix.Access(u.path("none"), unix.F_OK) // it does not exist
			f, err := os.OpenFile(u.path("new"), os.O_CREATE|os.O_WRONLY, 0o644)
			u.ok(err)
			_, err = f.WriteString("x")
			u.ok(err)
			u.ok(f.Sync())
			_, err = f.WriteString("y")
			u.ok(err)
			u.ok(f.Close())
		}
		return strings.Count(stop(), request)
	}
	for _, test := range []struct {
		option, request string
		least, most     int
	}{
		{"rw", ": FSYNC ", 5, 5},
		{"fsync=1", ": FSYNC ", 5, 5},
		{"fsync=0", ": FSYNC ", 0, 1},
		{"sync", ": FSYNC ", 15, 20},
		{"rw", `: LOOKUP n1  "f"`, 1, 1},
		{"timeout=1000", `: LOOKUP n1  "f"`, 1, 1},
		{"timeout=0", `: LOOKUP n1  "f"`, 5, 5},
		{"entry_timeout=0", `: LOOKUP n1  "f"`, 5, 5},
		{"rw", `: LOOKUP n1  "none"`, 1, 1},
		{"negative_timeout=0", `: LOOKUP n1  "none"`, 5, 5},
		{"attr_timeout=0", ": GETATTR ", 4, 100},
		{"rw", ": GETATTR ", 0, 3},
		{"writeback=0", ": WRITE ", 10, 10},
	} {
		if n := count(test.request, test.option); n < test.least || n > test.most {
			t.Errorf("%s: %d times %q, want %d to %d", test.option, n, test.request, test.least, test.most)
		}
		u.ok(os.Remove(u.upper + "/new"))
	}
}

// TestOverlayLimits sees in the answer to the kernel's first request what is asked of it.
func TestOverlayLimits(t *testing.T) {
	u := newUnion(t, 1)
	for option, want := range map[string]string{
		"rw":                  "/64 Wr 1048576 ",
		"max_write=65536":     " Wr 65536 ",
		"max_background=9":    "/9 Wr ",
		"max_readahead=65536": " Ra 65536 ",
		"async_read":          " ASYNC_READ,",
	} {
		log := u.debug(option)()
		_, answer, _ := strings.Cut(log, "tx 2:")
		answer, _, _ = strings.Cut(answer, "\n")
		if !strings.Contains(answer, want) {
			t.Errorf("%s: the kernel is answered %s", option, answer)
		}
	}
	for option, never := range map[string]string{
		"sync_read": "ASYNC_READ", "writeback=0": "WRITEBACK_CACHE", "noacl": "POSIX_ACL",
	} {
		log := u.debug(option)()
		_, answer, _ := strings.Cut(log, "tx 2:")
		answer, _, _ = strings.Cut(answer, "\n")
		if strings.Contains(answer, never) || !strings.Contains(answer, "READDIRPLUS") {
			t.Errorf("%s: the kernel is answered %s", option, answer)
		}
	}
	for _, args := range [][]string{{"-s"}, {"-o", "threaded=0"}} {
		u.write(u.lowers[0]+"/f", "x")
		if r := u.plyfs("plyfs", append(append([]string{"overlay"}, args...), "-o", u.options(), u.mnt)...); r.code != 0 {
			t.Fatalf("%q: %+v", args, r)
		}
		if u.read(u.path("f")) != "x" {
			t.Errorf("%q: does not serve", args)
		}
		u.umount()
	}
}
