package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/plyfs/plyfs/integration/tinyimage"
)

// The unprivileged user of the tests: nobody. fusermount3 wants one who has a name.
const userID = 65534

// TestUser runs the scripts of testdata/user as TestCLI does its own, with two commands more: `user PROGRAM [ARGUMENT…]`
// runs a program as an unprivileged user and `inside` as root, both where /dev/fuse is open to users as on most machines.
func TestUser(t *testing.T) {
	needMount(t)
	needTools(t, "unshare", "nsenter", "setpriv", "fusermount3")
	registry := startRegistry(t)
	small := smallImage(t, registry)
	other := registry + "/other:2"
	pushImage(t, other, smallLower, []tinyimage.Entry{{Path: "etc/other", Data: "other\n"}})
	open := openDir(t)
	ns := fuseNamespace(t, open)
	bin := filepath.Join(open, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(plyfsBinary())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"plyfs":  string(program),
		"inside": fmt.Sprintf("#!/bin/sh\nexec nsenter --mount=%s --wd=\"$PWD\" -- \"$@\"\n", ns),
		"user": fmt.Sprintf("#!/bin/sh\nexec nsenter --mount=%s --wd=\"$PWD\" -- setpriv --reuid %d --regid %[2]d --clear-groups -- \"$@\"\n",
			ns, userID),
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/user",
		RequireExplicitExec: true,
		WorkdirRoot:         open,
		Setup: func(env *testscript.Env) error {
			root := filepath.Join(env.WorkDir, "store")
			env.Defer(func() {
				if err := cleanUp(root); err != nil {
					t.Error(err)
				}
			})
			for name, value := range map[string]string{
				"PLYFS_ROOT": root, "HOME": env.WorkDir, "REGISTRY": registry, "SMALL": small, "OTHER": other,
				"PATH": bin + string(filepath.ListSeparator) + env.Getenv("PATH"),
			} {
				env.Setenv(name, value)
			}
			return os.Chown(env.WorkDir, userID, userID)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"fails": scriptFails,
			"set":   scriptSet,
		},
	})
}

// openDir is a temporary directory that every user can get to.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fuseNamespace makes a mount namespace in which /dev/fuse is open to every user, and returns the path of it. It lives as
// long as the test, and with it what is mounted there.
func fuseNamespace(t *testing.T, dir string) string {
	t.Helper()
	dev := filepath.Join(dir, "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		t.Fatal(err)
	}
	// A file system of its own, since that of dir may have no devices.
	script := `mount -t tmpfs none "$1" && mknod -m 0666 "$1/fuse" c 10 229 && mount --bind "$1/fuse" /dev/fuse && echo ready && exec cat`
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", dev)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // cat ends with it
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // it may have ended
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); strings.TrimSpace(line) != "ready" {
		t.Fatalf("no mount namespace: %q, %v", line, err)
	}
	return fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid)
}
