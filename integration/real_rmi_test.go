package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRealRemoveInUse refuses to remove an image that a container uses, mounted or not.
func TestRealRemoveInUse(t *testing.T) {
	needMount(t)
	h := newHazard(t)
	m := h.mount("--name", "user", h.good)
	before := h.files()
	h.fails([]string{"good", "user"}, "rmi", h.good)
	h.unchanged(before, nil)
	if _, err := os.Stat(filepath.Join(m, "etc/good")); err != nil {
		t.Error(err)
	}
	h.ok("umount", "user")
	h.fails([]string{"good", "user"}, "rmi", h.good)
	h.ok("rm", "user")
	h.ok("rmi", h.good)
	if got := h.ok("images"); strings.Contains(got, "good") {
		t.Errorf("the removed image is still listed:\n%s", got)
	}
	for name, is := range h.files() {
		if strings.HasPrefix(name, "blobs/") || strings.HasPrefix(name, "layers/") {
			t.Errorf("after the only image was removed %s is left: %s", name, is)
		}
	}
}

// TestRealRemoveShared removes an image one layer of which another image has.
func TestRealRemoveShared(t *testing.T) {
	needMount(t)
	h := newHazard(t)
	shared := noise(t, 1<<20)
	one := h.f.push(t, "one", shared, goodLayer(t, "one"))
	h.ok("pull", "--quiet", one)
	withOne := h.files()
	two := h.f.push(t, "two", shared, goodLayer(t, "two"))
	h.ok("pull", two)
	if n := len(h.f.asked(shared.claimed().digest)); n != 1 {
		t.Errorf("the shared layer was asked for %d times, want once", n)
	}
	m := h.mount("--name", "reader", "--read-only", one)
	before := tree(t, m)
	h.ok("rmi", two)
	sameTree(t, before, tree(t, m))
	h.ok("umount", "reader")
	m = h.mount("reader")
	sameTree(t, before, tree(t, m))
	h.ok("umount", "reader")
	h.ok("rm", "reader")
	h.unchanged(withOne, nil)
	h.ok("rmi", one)
	h.unchanged(h.before, nil)
	h.whole()
}
