package integration

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is two implementations, the second of which goes on with what the first wrote.
type pair struct {
	first, then             string
	firstOption, thenOption string // "rw" is the defaults
	rename                  bool   // a directory with lower contents, without EXDEV
}

var pairs = []pair{
	{first: "plyfs", then: "kernel", rename: true},
	{first: "kernel", then: "plyfs"},
	{first: "kernel", then: "plyfs", firstOption: "redirect_dir=on", rename: true},
	{first: "kernel", then: "plyfs", firstOption: "redirect_dir=on,metacopy=on", rename: true},
	{first: "plyfs", then: "kernel", firstOption: "metacopy=on", thenOption: "metacopy=on", rename: true},
	{first: "plyfs", then: "kernel", firstOption: "index=off", thenOption: "index=on"},
	{first: "kernel", then: "plyfs", firstOption: "index=on"},
	{first: "plyfs", then: "fuse-overlayfs"},
	{first: "plyfs", then: "fuse-overlayfs", firstOption: "redirect_dir=off"},
	// With its page cache written back, fuse-overlayfs shows other times than it keeps.
	{first: "fuse-overlayfs", then: "plyfs", firstOption: "writeback=0"},
	{first: "plyfs", then: "plyfs", firstOption: "metacopy=on", thenOption: "redirect_dir=follow", rename: true},
	{first: "plyfs", then: "kernel", firstOption: "userxattr", thenOption: "userxattr"},
	{first: "kernel", then: "plyfs", firstOption: "userxattr", thenOption: "userxattr"},
}

// TestOverlayPairs has one implementation write to an upper directory and another go on, and the first again. Whoever
// mounts it must show the same tree, as the upper directory and as a layer below another.
func TestOverlayPairs(t *testing.T) {
	for _, p := range pairs {
		if p.firstOption == "" {
			p.firstOption = "rw"
		}
		if p.thenOption == "" {
			p.thenOption = "rw"
		}
		t.Run(strings.ReplaceAll(strings.Join([]string{p.first, p.firstOption, p.then, p.thenOption}, "_"), ",", "+"), func(t *testing.T) {
			needRoot(t)
			if p.first == "fuse-overlayfs" || p.then == "fuse-overlayfs" {
				needTools(t, "fuse-overlayfs")
			}
			u := newUnion(t, 2)
			u.fillLowers()
			lowers := []map[string]entry{tree(t, u.lowers[0]), tree(t, u.lowers[1])}

			u.mountWith(p.first, p.firstOption)
			u.change()
			if p.rename {
				u.ok(os.Rename(u.path("ren"), u.path("ren2")))
				u.write(u.path("ren2/deep/new"), "new")
				u.ok(os.Rename(u.path("ren2/deep"), u.path("dir/deeper")))
			}
			written := tree(t, u.mnt)
			u.umount()

			u.mountWith(p.then, p.thenOption)
			sameTree(t, written, tree(t, u.mnt))
			u.changeMore()
			if p.then != "fuse-overlayfs" { // to which an opaque directory is EXDEV
				u.ok(os.Rename(u.path("opq"), u.path("opq2")))
			}
			goneOn := tree(t, u.mnt)
			u.umount()

			u.mountWith(p.first, p.firstOption)
			sameTree(t, goneOn, tree(t, u.mnt))
			u.umount()
			for i, l := range u.lowers {
				sameTree(t, lowers[i], tree(t, l))
			}
			u.asLayer(goneOn, p)
		})
	}
}

// fillLowers makes two layers that hide, replace and add to each other.
func (u *union) fillLowers() {
	top, low := u.lowers[0]+"/", u.lowers[1]+"/"
	for _, n := range []string{"dir/f1", "dir/sub/f", "opq/old", "opq/x/old", "ren/deep/f", "gone/f", "chmod", "chown", "write", "rm", "mv", "hidden", "both"} {
		u.write(low+n, n)
	}
	u.write(low+"big", strings.Repeat("0123456789", 20_000))
	for _, n := range []string{"dir/f2", "ren/top", "both"} {
		u.write(top+n, "top "+n)
	}
	u.ok(unix.Mknod(top+"hidden", unix.S_IFCHR, 0))
	u.ok(os.Symlink("dir", low+"link"))
	u.ok(unix.Mknod(low+"null", unix.S_IFCHR|0o622, int(unix.Mkdev(1, 3)))) // #nosec G115 -- small
	u.ok(unix.Lsetxattr(low+"write", "user.a", []byte("b"), 0))
}

// change makes every kind of mark that an upper directory can hold.
func (u *union) change() {
	for _, n := range []string{"rm", "gone", "opq"} {
		u.ok(os.RemoveAll(u.path(n)))
	}
	u.write(u.path("opq/new"), "new")
	u.ok(os.Chmod(u.path("chmod"), 0o4755))
	u.ok(os.Chmod(u.path("big"), 0o600))
	u.ok(os.Lchown(u.path("chown"), 12, 34))
	u.ok(os.Lchown(u.path("link"), 5, 6))
	u.ok(os.WriteFile(u.path("write"), []byte("written"), 0o644))
	u.ok(os.Link(u.path("write"), u.path("dir/hard")))
	u.ok(unix.Lsetxattr(u.path("dir"), "user.c", []byte("d"), 0))
	u.ok(os.Rename(u.path("mv"), u.path("dir/sub/moved")))
	u.write(u.path("fresh/a/b"), "b")
	u.ok(os.Rename(u.path("fresh"), u.path("fresh2")))
	u.ok(os.Symlink("nowhere", u.path("sym")))
	u.ok(unix.Mkfifo(u.path("fifo"), 0o640))
	u.ok(unix.Mknod(u.path("dev"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 8)))) // #nosec G115 -- small
	u.write(u.path("hidden"), "no longer")
	old := []unix.Timespec{{Sec: 1e9, Nsec: 5}, {Sec: 1e9, Nsec: 7}}
	u.ok(unix.UtimesNanoAt(unix.AT_FDCWD, u.path("dir/f1"), old, 0))
	u.ok(os.Remove(u.path("both")))
	u.ok(os.Mkdir(u.path("both"), 0o2775))
}

// changeMore changes what change made.
func (u *union) changeMore() {
	u.ok(os.RemoveAll(u.path("fresh2")))
	u.ok(os.WriteFile(u.path("dir/hard"), []byte("again"), 0o644))
	u.ok(os.Chmod(u.path("chown"), 0o600))
	u.ok(os.Remove(u.path("both")))
	u.write(u.path("rm"), "is back")
	u.write(u.path("gone/g"), "g")
	u.ok(os.Remove(u.path("dir/f2")))
	u.ok(os.Remove(u.path("null")))
	u.ok(os.WriteFile(u.path("big"), []byte("small"), 0o644))
}

// asLayer shows what was written as a layer, below a new upper directory.
func (u *union) asLayer(want map[string]entry, p pair) {
	u.t.Helper()
	layered := *u
	layered.lowers = append([]string{u.upper}, u.lowers...)
	layered.upper, layered.work = u.dir+"/upper2", u.dir+"/work2"
	u.ok(os.Mkdir(layered.upper, 0o755))
	u.ok(os.Mkdir(layered.work, 0o755))
	layered.mountWith("plyfs")
	got := tree(u.t, layered.mnt)
	want["."], got["."] = entry{}, entry{} // the root is that of the new upper directory
	sameTree(u.t, want, got)
	layered.umount()
	if p.thenOption != "rw" || p.then == "plyfs" {
		return
	}
	layered.mountWith(p.then)
	got = tree(u.t, layered.mnt)
	got["."] = entry{}
	sameTree(u.t, want, got)
	layered.umount()
}
