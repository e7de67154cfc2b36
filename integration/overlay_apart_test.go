package integration

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverlayLayersUnmount unmounts the filesystems that the layers lie on, while the union is in use: kernel overlayfs
// keeps none of them busy, and scripts unmount them right after the union.
func TestOverlayLayersUnmount(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"kernel", "plyfs"} {
		t.Run(kind, func(t *testing.T) {
			u := newUnion(t, 1)
			low, up := filepath.Join(u.dir, "lowfs"), filepath.Join(u.dir, "upfs")
			for _, d := range []string{low, up} {
				u.ok(os.Mkdir(d, 0o755))
				u.ok(unix.Mount("tmpfs", d, "tmpfs", 0, "mode=755"))
				u.ok(unix.Mount("", d, "", unix.MS_PRIVATE, ""))
			}
			u.lowers, u.upper, u.work = []string{low + "/l"}, up+"/u", up+"/w"
			for _, d := range []string{u.lowers[0], u.upper, u.work} {
				u.ok(os.Mkdir(d, 0o755))
			}
			u.write(u.lowers[0]+"/d/f", "lower")
			u.mountWith(kind)
			u.write(u.path("d/g"), "upper")
			for _, d := range []string{low, up} {
				if err := unix.Unmount(d, 0); err != nil {
					t.Errorf("unmount %s: %v", filepath.Base(d), err)
				}
			}
			u.write(u.path("new/h"), "later")
			u.ok(os.Rename(u.path("d/f"), u.path("d/e")))
			if got := u.read(u.path("d/e")) + u.read(u.path("d/g")) + u.read(u.path("new/h")); got != "lowerupperlater" {
				t.Errorf("reads %q", got)
			}
			u.umount()
		})
	}
}
