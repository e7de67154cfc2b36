// Package integration drives the plyfs binary as a user would, against real servers and tools.
package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

var binary string

// plyfsBinary is the plyfs under test, built once by TestMain as it is released.
func plyfsBinary() string {
	readSources()
	return binary
}

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "plyfs-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a leftover in the temporary directory fails no test
	binary = filepath.Join(dir, "plyfs")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "github.com/plyfs/plyfs/cmd/plyfs")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building plyfs: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// readSources lists the folders that plyfs is built from. go test keeps the result of a test until something changes that
// the test has looked at, and neither sees what a compiler looks at that was started, nor anything before m.Run.
var readSources = sync.OnceFunc(func() {
	err := filepath.WalkDir("..", func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "results of these tests may be kept though plyfs changes:", err)
	}
})

// needMount skips a test where nothing can be mounted; CI must be able to.
func needMount(t testing.TB) {
	t.Helper()
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		err = fuse.Close()
	}
	if err == nil && os.Geteuid() != 0 {
		err = errors.New("not root")
	}
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatalf("nothing can be mounted here: %v", err)
	default:
		t.Skipf("nothing can be mounted here: %v", err)
	}
}

// newRoot makes a place for a store. When the test ends, all its containers are unmounted, wherever they are mounted, and
// their servers have ended; one that had to be killed fails the test.
func newRoot(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "store") // removed after the cleanup below
	t.Cleanup(func() {
		if err := cleanUp(root); err != nil {
			t.Error(err)
		}
	})
	return root
}

// cleanUp ends what serves containers of a store.
func cleanUp(root string) error {
	ids, err := filepath.Glob(filepath.Join(root, "containers", "*"))
	if err != nil {
		return err
	}
	for i, dir := range ids {
		id := filepath.Base(dir)
		ids[i] = "plyfs:" + id[:min(12, len(id))]
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !slices.Contains(ids, m.Source), false
	})
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting %s: %w", m.Mountpoint, err)
		}
	}
	servers, err := serversOf(root)
	for _, pid := range servers {
		err = errors.Join(err, awaitExit(pid))
	}
	return err
}

// serversOf lists the processes that serve containers of a store in the background.
func serversOf(root string) ([]int, error) {
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range processes {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(line), "\x00")
		if len(args) > 1 && args[1] == "serve-mount" && slices.Contains(args, root) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// awaitExit waits until a process has ended, and kills it after a while.
func awaitExit(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is written to it
	deadline := time.Now().Add(20 * time.Second)
	for {
		left := time.Until(deadline).Milliseconds()
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(left, 0)))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n > 0:
			return nil
		}
		return errors.Join(fmt.Errorf("server %d did not end", pid), unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
	}
}

// result is what a run of plyfs came to.
type result struct {
	stdout, stderr string
	code           int
}

// runPlyfs runs plyfs on a store and fails the test only if it cannot be run or hangs.
func runPlyfs(t testing.TB, root string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, plyfsBinary(), args...)
	cmd.Env = append(os.Environ(), "PLYFS_ROOT="+root)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("plyfs %s: %v", strings.Join(args, " "), err)
	}
	return result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}
