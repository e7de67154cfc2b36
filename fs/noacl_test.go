package fs_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// mountPlain mounts a filesystem without xattrs, so without ACLs, for the length of a test.
func mountPlain(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// TestLowerWithoutACLs has users in at files of others that lie where there are no ACLs.
func TestLowerWithoutACLs(t *testing.T) {
	s := newStage(t, 1)
	mountPlain(t, s.lowers[0])
	lower := &sight{T: t, dir: s.lowers[0]}
	lower.make("d/f", "theirs", 1000, 0o644)
	lower.ok(os.Chmod(lower.at("d"), 0o775)) // #nosec G302 -- others look in
	lower.ok(os.Chown(lower.at("d"), 1000, 1000))
	letIn(t, s.mnt)
	s.mount()
	for _, uid := range []int{0, 2000} {
		as(uid, func() {
			b, err := os.ReadFile(filepath.Join(s.mnt, "d", "f"))
			if err != nil || string(b) != "theirs" {
				t.Errorf("user %d reads %q, %v", uid, b, err)
			}
		})
	}
	for _, name := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
		if _, err := unix.Getxattr(filepath.Join(s.mnt, "d"), name, nil); err != unix.ENODATA {
			t.Errorf("%s: %v, want %v", name, err, unix.ENODATA)
		}
	}
}
