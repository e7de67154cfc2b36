package fs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestIDMappedMount looks at a mount through a clone of it that maps user 1000 to 0 and on.
func TestIDMappedMount(t *testing.T) {
	s := newStage(t, 1)
	write(t, filepath.Join(s.lowers[0], "d/of-1000"), "x")
	for _, p := range []string{"d", "d/of-1000"} {
		if err := os.Chown(filepath.Join(s.lowers[0], p), 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	s.mount()
	clone := t.TempDir()
	tree, err := unix.OpenTree(unix.AT_FDCWD, s.mnt, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tree) //nolint:errcheck // a mount
	ns := userNamespace(t, syscall.SysProcIDMap{ContainerID: 1000, HostID: 0, Size: 1000})
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)} // #nosec G115 -- a descriptor
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		t.Fatal(err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, clone, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(clone, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if uid := stat(t, filepath.Join(clone, "d/of-1000")).Uid; uid != 0 {
		t.Errorf("the file of user 1000 is %d's in the mapped mount, want 0", uid)
	}
	write(t, filepath.Join(clone, "d/new"), "by root")
	if uid := stat(t, filepath.Join(s.mnt, "d/new")).Uid; uid != 1000 {
		t.Errorf("what root makes in the mapped mount is %d's, want 1000", uid)
	}
	write(t, filepath.Join(clone, "d/of-1000"), "changed")
	if got := read(t, filepath.Join(s.mnt, "d/of-1000")); got != "changed" {
		t.Errorf("read %q, want what was written in the mapped mount", got)
	}
}

// userNamespace returns a descriptor of a user namespace with a mapping, for the length of the test.
func userNamespace(t *testing.T, m syscall.SysProcIDMap) int {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, Pdeathsig: unix.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{m}, GidMappings: []syscall.SysProcIDMap{m},
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no user namespaces here: %v", err)
	}
	defer func() {
		_ = cmd.Process.Kill() // ends with an error, as it should
		_ = cmd.Wait()
	}()
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) }) // a namespace
	return fd
}
