package integration

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverlayNested mounts a union whose directories lie in another one. What the inner one marks must not be taken for
// marks of the outer one, nor show anything else once the outer one is mounted again.
func TestOverlayNested(t *testing.T) {
	needRoot(t)
	outer := newUnion(t, 1)
	for _, n := range []string{"l/gone", "l/dir/f", "l/opq/old", "l/ren/f", "l/mv"} {
		outer.write(outer.lowers[0]+"/"+n, n)
	}
	outer.mount()
	for _, n := range []string{"u", "w", "m"} {
		outer.ok(os.Mkdir(outer.path(n), 0o755))
	}
	inner := *outer
	inner.lowers, inner.upper, inner.work, inner.mnt = []string{outer.path("l")}, outer.path("u"), outer.path("w"), outer.path("m")
	change := func() {
		inner.ok(os.Remove(inner.path("gone")))
		inner.ok(os.RemoveAll(inner.path("opq")))
		inner.write(inner.path("opq/new"), "new")
		inner.ok(os.Rename(inner.path("ren"), inner.path("ren2")))
		inner.ok(unix.Renameat2(unix.AT_FDCWD, inner.path("mv"), unix.AT_FDCWD, inner.path("mv2"), unix.RENAME_WHITEOUT))
		inner.ok(os.Chmod(inner.path("dir/f"), 0o600))
	}
	inner.mount()
	change()
	want := tree(t, inner.mnt)
	if st := inner.stat(inner.path("mv")); st.Mode != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("RENAME_WHITEOUT left mode %o, device %x", st.Mode, st.Rdev)
	}
	inner.umount()
	outside := tree(t, outer.mnt)
	outer.remount()
	sameTree(t, outside, tree(t, outer.mnt))
	inner.mount()
	sameTree(t, want, tree(t, inner.mnt))
	inner.umount()
	outer.umount()
	// Kernel overlayfs takes no upper directory on FUSE, and shows what plyfs wrote there.
	outer.mountWith("kernel")
	defer outer.umount()
	if _, err := os.Lstat(outer.path("u/gone")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a device that shows in plyfs alone: %v", err)
	}
	if got := outer.xattr(outer.path("u/opq"), "trusted.overlay.opaque"); got != "y" {
		t.Errorf("the inner mark is %q in the kernel's union", got)
	}
}
