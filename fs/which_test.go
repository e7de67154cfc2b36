package fs_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/plyfs/plyfs/fs"
)

func TestWhich(t *testing.T) {
	s := newStage(t, 2)
	write(t, filepath.Join(s.lowers[0], "both"), "top")
	write(t, filepath.Join(s.lowers[1], "both"), "bottom")
	write(t, filepath.Join(s.lowers[1], "low"), "bottom")
	write(t, filepath.Join(s.lowers[1], "changed"), "bottom")
	s.names = []string{"top", "bottom"}
	s.mount()
	write(t, filepath.Join(s.mnt, "changed"), "now")
	write(t, filepath.Join(s.mnt, "new"), "now")
	for path, want := range map[string][]string{
		"both": {"top", "bottom"}, "low": {"bottom"}, "changed": {"upper", "bottom"}, "new": {"upper"},
		".": {"upper", "top", "bottom"},
	} {
		got, err := fs.Which(filepath.Join(s.mnt, path))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s comes from %q, %v; want %q", path, got, err, want)
		}
	}
	if _, err := fs.Which(s.upper); !errors.Is(err, fs.ErrNotOurs) {
		t.Errorf("a path outside: %v, want ErrNotOurs", err)
	}
	if x, err := xattrsOf(filepath.Join(s.mnt, "both")); x != "" || err != nil {
		t.Errorf("the xattrs show in a listing: %s, %v", x, err)
	}
}
