package integration

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestOverlayKernelIndex goes back and forth between kernel overlayfs with index=on and plyfs. The names of a lower file
// stay one file whoever wrote to it, and each sees the links that the other made and took away.
func TestOverlayKernelIndex(t *testing.T) {
	needRoot(t)
	for _, option := range []string{"index=on", "index=on,nfs_export=on"} {
		t.Run(strings.ReplaceAll(option, ",", "+"), func(t *testing.T) {
			u := newUnion(t, 1)
			low := u.lowers[0] + "/"
			for _, n := range []string{"a", "b", "c", "d/e", "gone", "other"} {
				u.write(low+n+"1", n)
				u.ok(os.Link(low+n+"1", low+n+"2"))
				u.ok(os.Link(low+n+"1", low+n+"3"))
			}
			u.mountWith("kernel", option)
			u.ok(os.WriteFile(u.path("a1"), []byte("by the kernel"), 0o644))
			u.ok(os.Chmod(u.path("b2"), 0o600))
			u.ok(os.Remove(u.path("b3")))
			u.ok(os.Rename(u.path("d/e1"), u.path("d/moved")))
			u.ok(os.WriteFile(u.path("gone1"), []byte("changed"), 0o644))
			want := u.links()
			u.umount()

			u.mount()
			u.same("plyfs", want)
			u.ok(os.WriteFile(u.path("a3"), []byte("by plyfs"), 0o644))
			u.ok(os.Remove(u.path("a1")))
			u.ok(os.WriteFile(u.path("c2"), []byte("c by plyfs"), 0o644))
			u.ok(os.Link(u.path("c1"), u.path("c4")))
			u.ok(os.WriteFile(u.path("d/moved"), []byte("moved"), 0o644))
			for _, n := range []string{"gone2", "gone1", "gone3"} {
				u.ok(os.Remove(u.path(n)))
			}
			u.ok(os.Chmod(u.path("other2"), 0o600))
			for _, n := range []string{"other1", "other2", "other3"} {
				u.ok(os.Remove(u.path(n)))
			}
			want = u.links()
			u.remount()
			u.same("plyfs again", want)
			u.umount()

			u.mountWith("kernel", option)
			u.same("the kernel", want)
			u.ok(os.WriteFile(u.path("c1"), []byte("c by the kernel"), 0o644))
			u.ok(os.Remove(u.path("c3")))
			u.ok(os.Remove(u.path("a2")))
			want = u.links()
			u.umount()

			u.mount()
			u.same("plyfs at last", want)
			for n := range want {
				u.ok(os.Remove(u.path(n)))
			}
			u.umount()
			left, err := os.ReadDir(u.work + "/plyfs-index")
			u.ok(err)
			for _, e := range left {
				t.Errorf("%s is in the index, and has no name", e.Name())
			}
			u.mountWith("kernel", option)
			if got := u.links(); len(got) > 0 {
				t.Errorf("in the kernel's union is left %q", got)
			}
			u.umount()
		})
	}
}

// TestOverlayIndexForKernel has plyfs begin with index=on and the kernel go on.
func TestOverlayIndexForKernel(t *testing.T) {
	needRoot(t)
	u := newUnion(t, 2)
	for _, l := range u.lowers {
		for _, n := range []string{"a", "b"} {
			u.write(l+"/"+n+"1", n)
			u.ok(os.Link(l+"/"+n+"1", l+"/"+n+"2"))
		}
	}
	u.mount("index=on")
	u.ok(os.WriteFile(u.path("a1"), []byte("by plyfs"), 0o644))
	u.ok(os.Chmod(u.path("b2"), 0o600))
	u.ok(os.Remove(u.path("b1")))
	want := u.links()
	u.umount()
	u.mountWith("kernel", "index=on")
	u.same("the kernel", want)
	u.ok(os.Remove(u.path("a1")))
	want = u.links()
	u.umount()
	u.mount()
	u.same("plyfs", want)
}

// links says of each file with several names what it holds, its mode, links, and the first name of the same file.
func (u *union) links() map[string]string {
	u.t.Helper()
	files, first := map[string]string{}, map[uint64]string{}
	for _, dir := range []string{"", "d/"} {
		list, err := os.ReadDir(u.path(dir))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		u.ok(err)
		for _, e := range list {
			n := dir + e.Name()
			if e.IsDir() {
				continue
			}
			st := u.stat(u.path(n))
			if first[st.Ino] == "" {
				first[st.Ino] = n
			}
			files[n] = fmt.Sprintf("%q %o links %d as %s", u.read(u.path(n)), st.Mode, st.Nlink, first[st.Ino])
		}
	}
	return files
}

func (u *union) same(who string, want map[string]string) {
	u.t.Helper()
	got := u.links()
	for n := range want {
		if got[n] != want[n] {
			u.t.Errorf("%s shows %s as %s, want %s", who, n, got[n], want[n])
		}
	}
	if len(got) != len(want) {
		u.t.Errorf("%s shows %d names, want %d", who, len(got), len(want))
	}
}
