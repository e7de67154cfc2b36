package integration

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverlayAtime reads files, directories and symlinks of both layers, on filesystems mounted one way and another, and
// compares whose time of access changed with kernel overlayfs.
func TestOverlayAtime(t *testing.T) {
	needRoot(t)
	for _, host := range []uintptr{0, unix.MS_NOATIME, unix.MS_STRICTATIME} {
		for _, option := range []string{"rw", "noatime", "nodiratime", "relatime"} {
			want, lower := touched(t, "kernel", option, host)
			got, changed := touched(t, "plyfs", option, host)
			if got != want {
				t.Errorf("%s over flags %#x: touches %s, the kernel %s", option, host, got, want)
			}
			if changed != "" || lower != "" {
				t.Errorf("%s over flags %#x: touches %s in the lower directory, the kernel %s", option, host, changed, lower)
			}
		}
	}
}

// touched tells whose time of access is a new one after everything was read, in the mount and in the lower directory.
func touched(t *testing.T, kind, option string, host uintptr) (inMount, inLower string) {
	t.Helper()
	u := newUnion(t, 1)
	u.ok(unix.Mount(u.dir, u.dir, "", unix.MS_BIND, ""))
	if host != 0 {
		u.ok(unix.Mount("", u.dir, "", unix.MS_BIND|unix.MS_REMOUNT|host, ""))
	}
	old := []unix.Timespec{{Sec: 1e9}, {Sec: 1e9 + 1}}
	fill := func(dir string) {
		u.write(dir+"/file", "text")
		u.write(dir+"/dir/f", "text")
		u.write(dir+"/seen", "text")
		u.ok(os.Symlink("file", dir+"/link"))
		for _, n := range []string{"dir", "file", "link"} {
			u.ok(unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/"+n, old, unix.AT_SYMLINK_NOFOLLOW))
		}
	}
	u.ok(os.Mkdir(u.lowers[0]+"/low", 0o755))
	fill(u.lowers[0] + "/low")
	u.mountWith(kind, option)
	defer func() {
		u.umount()
		u.ok(unix.Unmount(u.dir, unix.MNT_DETACH))
	}()
	u.ok(os.Mkdir(u.path("up"), 0o755))
	fill(u.path("up"))
	for range 2 {
		u.ok(os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
		for _, n := range []string{"low", "up"} {
			u.read(u.path(n + "/file"))
			_, err := os.ReadDir(u.path(n + "/dir"))
			u.ok(err)
			_, err = os.Readlink(u.path(n + "/link"))
			u.ok(err)
			seen, err := os.Open(u.path(n + "/seen"))
			u.ok(err)
			u.ok(seen.Close())
		}
	}
	return u.news(u.mnt), u.news(u.lowers[0])
}

// news lists what was read lately below a directory.
func (u *union) news(dir string) string {
	u.t.Helper()
	var names []string
	for _, l := range []string{"low", "up"} {
		for _, n := range []string{"dir", "file", "link"} {
			var st unix.Stat_t
			if err := unix.Lstat(dir+"/"+l+"/"+n, &st); err == nil && st.Atim.Sec != 1e9 {
				names = append(names, l+"/"+n)
			}
		}
	}
	return strings.Join(names, " ")
}
