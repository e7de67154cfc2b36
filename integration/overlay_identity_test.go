package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverlayMovedDevice mounts a lower directory again from a device of another number, as after a reboot, and on a
// copy of its filesystem: inode numbers stay, hard links stay one file, and two copies are not taken for one.
func TestOverlayMovedDevice(t *testing.T) {
	needRoot(t)
	needTools(t, "mkfs.ext4", "losetup")
	u := newUnion(t, 0)
	images := []string{filepath.Join(u.dir, "image0"), filepath.Join(u.dir, "image1")}
	points := []string{filepath.Join(u.dir, "disk0"), filepath.Join(u.dir, "disk1")}
	u.ok(os.WriteFile(images[0], nil, 0o600))
	u.ok(os.Truncate(images[0], 16<<20))
	tool(t, "mkfs.ext4", "-q", "-F", images[0])
	for _, p := range points {
		u.ok(os.Mkdir(p, 0o755))
	}
	tool(t, "mount", "-o", "loop", images[0], points[0])
	low := points[0] + "/low"
	for _, n := range []string{"changed", "as-is", "dir/f", "link"} {
		u.write(low+"/"+n, n)
	}
	u.ok(os.Link(low+"/link", low+"/link2"))
	u.lowers = []string{low}
	u.mount()
	u.ok(os.Chmod(u.path("changed"), 0o600))
	u.ok(os.Chmod(u.path("dir"), 0o700))
	u.write(u.path("link"), "written")
	names := []string{"changed", "as-is", "dir", "dir/f", "link", "link2"}
	before := map[string]unix.Stat_t{}
	for _, n := range names {
		before[n] = u.stat(u.path(n))
	}
	dev := u.stat(low).Dev
	u.umount()
	u.awaitServers()
	u.ok(unix.Unmount(points[0], 0))
	tool(t, "cp", images[0], images[1])
	// The copy takes the device number that the original had.
	for i := range points {
		tool(t, "mount", "-o", "loop", images[1-i], points[1-i])
	}
	t.Cleanup(func() {
		for _, p := range points {
			u.ok(unix.Unmount(p, unix.MNT_DETACH))
		}
	})
	if u.stat(low).Dev == dev {
		t.Fatal("the device number is the same")
	}
	check := func(what string) {
		t.Helper()
		for _, n := range names {
			if st := u.stat(u.path(n)); st.Ino != before[n].Ino || st.Nlink != before[n].Nlink {
				t.Errorf("%s: %s is inode %x with %d links, was %x with %d", what, n, st.Ino, st.Nlink, before[n].Ino, before[n].Nlink)
			}
		}
		if got := u.read(u.path("link2")); got != "written" {
			t.Errorf("%s: the other name of a file that was written shows %q", what, got)
		}
	}
	u.mount()
	check("another number")
	u.umount()
	copied := points[1] + "/low"
	u.write(copied+"/below", "below")
	u.lowers = append(u.lowers, copied)
	u.mount("ro")
	sub := u.xattr(u.path("below"), "user.plyfs.layer")
	if !strings.Contains(sub, "disk1") {
		t.Errorf("a file of the copy comes from %q", sub)
	}
	var both [2]uint64
	both[0], both[1] = u.stat(u.path("as-is")).Ino, u.stat(u.path("below")).Ino
	u.umount()
	u.lowers = []string{low}
	u.mount()
	check("after the copy was mounted")
	if both[0] == both[1] {
		t.Error("two files of the two copies have one inode number")
	}
}
