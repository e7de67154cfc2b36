package overlay

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRenameOnFullDisk: what stood at the new name has gone to the old one when the whiteout for that cannot be made.
func TestRenameOnFullDisk(t *testing.T) {
	r := newRigIn(t, smallFS(t, "size=1m,nr_inodes=40"), 1)
	r.low(0, "a/f", "data")
	r.low(0, "b/g", "data")
	r.open()
	r.chmod("a", 0o700)
	r.unlink("b/g")
	free := fillUp(t, r.upper)
	ino := r.attr("a").Ino
	r.want(r.rename("a", "b", 0), unix.ENOSPC)
	for range 2 {
		if now := r.attr("a").Ino; now != ino {
			t.Errorf("a is inode %x, was %x", now, ino)
		}
		r.reads("a/f", "data")
		if names := r.list("b"); len(names) != 0 {
			t.Errorf("b holds %q", names)
		}
		r.drop() // and the same as seen anew
	}
	free(3)
	r.ok(r.rename("a", "b", 0))
	r.absent("a")
	r.reads("b/f", "data")
}

func TestRenameOfLowerDirectory(t *testing.T) {
	r := newRig(t, 2)
	r.low(0, "d/top", "top")
	r.low(1, "d/bottom", "bottom")
	r.low(1, "d/sub/deep", "deep")
	r.low(1, "e/other", "other")
	r.open()
	ino := r.attr("d").Ino
	r.chmod("d/sub/deep", 0o600) // its data stay where they are
	r.ok(r.rename("d", "e/moved", 0))
	r.mkdir("d")
	r.ok(r.rename("e/moved/sub", "d/sub", 0))
	for range 2 {
		r.reads("e/moved/top", "top")
		r.reads("e/moved/bottom", "bottom")
		r.reads("d/sub/deep", "deep")
		r.absent("e/moved/sub")
		if names := r.list("d"); !slices.Equal(names, []string{"sub"}) {
			t.Errorf("d holds %q", names)
		}
		if now := r.attr("e/moved").Ino; now != ino {
			t.Errorf("the directory is inode %x, was %x", now, ino)
		}
		r.reopen()
	}
	r.ok(r.rename("e/moved", "d", unix.RENAME_EXCHANGE))
	for range 2 {
		r.reads("d/top", "top")
		r.reads("e/moved/sub/deep", "deep")
		r.reopen()
	}
}

func TestRenameFlags(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		flags    uint32
		want     error
	}{
		{"lower", "lower2", unix.RENAME_NOREPLACE, unix.EEXIST},
		{"lower", "upper", unix.RENAME_NOREPLACE, unix.EEXIST},
		{"lower", "gone", unix.RENAME_NOREPLACE, nil},
		{"lower", "new", unix.RENAME_EXCHANGE, unix.ENOENT},
		{"lower", "dir", 0, unix.EISDIR},
		{"dir", "lower", 0, unix.ENOTDIR},
		{"dir", "full", 0, unix.ENOTEMPTY},
		{"dir", "lower", unix.RENAME_EXCHANGE, nil},
		{"gone", "new", 0, unix.ENOENT},
		{"lower", "lower", 0, nil},
		{"lower", "new", unix.RENAME_EXCHANGE | unix.RENAME_NOREPLACE, unix.EINVAL},
	} {
		r := newRig(t, 1)
		for _, n := range []string{"lower", "lower2", "gone", "dir/f", "full/f"} {
			r.low(0, n, n)
		}
		r.open()
		r.write("upper", "upper")
		r.unlink("gone")
		if err := r.rename(tt.from, tt.to, tt.flags); !errors.Is(err, tt.want) {
			t.Errorf("rename %s %s flags %d: %v, want %v", tt.from, tt.to, tt.flags, err, tt.want)
		}
	}
}
