package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/testimage"
)

// commandLimit is how long a command of a test may take before it is killed and the test fails.
const commandLimit = 5 * time.Minute

// store is a store of one test, driven by the built binary. When the test ends, whatever happened, nothing of it is left
// mounted or running, and that something was left fails the test.
type store struct {
	t    *testing.T
	root string
}

func newStore(t *testing.T) *store {
	t.Helper()
	return storeAt(t, newRoot(t))
}

// storeAt is newStore in a directory of the caller's.
func storeAt(t *testing.T, root string) *store {
	s := &store{t: t, root: root}
	t.Cleanup(s.cleanUp)
	return s
}

// cleanUp unmounts what a failed test left mounted and reports processes that are left.
func (s *store) cleanUp() {
	if err := cleanUp(s.root); err != nil {
		s.t.Error(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for pids := s.processes(); len(pids) > 0; pids = s.processes() {
		if time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond) // the end of a process that is not ours cannot be awaited otherwise
			continue
		}
		s.t.Errorf("processes %v of the store %s are left", pids, s.root)
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone already: fine
		}
		return
	}
}

// command is a plyfs command on the store, for tests that need more than its output.
func (s *store) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, plyfsBinary(), append([]string{"--root", s.root}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (s *store) run(args ...string) result {
	s.t.Helper()
	return runPlyfs(s.t, s.root, append([]string{"--root", s.root}, args...)...)
}

// ok runs a command that must succeed and returns what it printed, without the last newline.
func (s *store) ok(args ...string) string {
	s.t.Helper()
	r := s.run(args...)
	if r.code != 0 {
		s.t.Fatalf("plyfs %s: exit status %d: %s", strings.Join(args, " "), r.code, r.stderr)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// fails runs a command that must fail with one line that says all of want, and returns the line. Lines that progress
// printed before it do not count.
func (s *store) fails(want []string, args ...string) string {
	s.t.Helper()
	r := s.run(args...)
	line := fmt.Sprintf("plyfs %s", strings.Join(args, " "))
	if r.code <= 0 {
		s.t.Fatalf("%s: exit status %d, want a failure; stdout %q stderr %q", line, r.code, r.stdout, r.stderr)
	}
	if r.stdout != "" {
		s.t.Errorf("%s: a failed command printed %q to stdout", line, r.stdout)
	}
	var said []string
	for text := range strings.Lines(r.stderr) {
		if strings.HasPrefix(text, "plyfs: ") {
			said = append(said, strings.TrimSpace(text))
		}
	}
	if len(said) != 1 || !strings.HasSuffix(strings.TrimSpace(r.stderr), said[0]) {
		s.t.Fatalf("%s: want one line that begins with \"plyfs: \" and ends the output, got %q", line, r.stderr)
	}
	for _, w := range want {
		if !strings.Contains(strings.ToLower(said[0]), strings.ToLower(w)) {
			s.t.Errorf("%s: the error does not say %q: %s", line, w, said[0])
		}
	}
	if strings.Contains(said[0], "goroutine ") || strings.Contains(said[0], "panic") {
		s.t.Errorf("%s: the error is a crash: %s", line, said[0])
	}
	s.t.Logf("exit %d: %s", r.code, said[0])
	return said[0]
}

// mount mounts an image or a container and returns the mountpoint.
func (s *store) mount(args ...string) string {
	s.t.Helper()
	m := s.ok(append([]string{"mount"}, args...)...)
	if !filepath.IsAbs(m) || !slices.Contains(mountsBelow(s.t, m), m) {
		s.t.Fatalf("mount printed %q, which is no mountpoint", m)
	}
	return m
}

// processes are the plyfs processes that work on this store.
func (s *store) processes() []int {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		s.t.Fatal(err)
	}
	var pids []int
	for _, dir := range dirs {
		line, err := os.ReadFile(dir + "/cmdline")
		if err != nil {
			continue // gone meanwhile
		}
		args := strings.Split(string(line), "\x00")
		if filepath.Base(args[0]) == "plyfs" && slices.Contains(args, s.root) {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// server is the process that serves a mount of this store.
func (s *store) server(mountpoint string) int {
	s.t.Helper()
	var found []int
	for _, pid := range s.processes() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && slices.Contains(strings.Split(string(line), "\x00"), mountpoint) {
			found = append(found, pid)
		}
	}
	if len(found) != 1 {
		s.t.Fatalf("%s is served by %v, want one process", mountpoint, found)
	}
	return found[0]
}

// mountsBelow lists the mountpoints at or below a directory, the latest first.
func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var found []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			point := unescapeMount(fields[4])
			if point == dir || strings.HasPrefix(point, dir+"/") {
				found = append(found, point)
			}
		}
	}
	slices.Reverse(found)
	return found
}

// unescapeMount undoes the octal escapes of /proc/self/mountinfo, proc(5).
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// needRoot skips a test that only root can run.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// needTools skips a test when a program that it uses is not installed; CI must have all.
func needTools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := exec.LookPath(name)
		switch {
		case err == nil:
		case os.Getenv("CI") != "":
			t.Fatalf("%s is not installed: add its package to scripts/install-deps.sh", name)
		default:
			t.Skipf("%s is not installed: run scripts/install-deps.sh", name)
		}
	}
}

// tool runs a program that must succeed and returns what it printed to stdout.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	// Killed by the limit, a shell must not leave its children behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v: %s%s", name, strings.Join(args, " "), err, tail(errOut.String()), tail(out.String()))
	}
	return out.String()
}

// tail is the end of a long text.
func tail(s string) string {
	if len(s) > 3000 {
		return "…" + s[len(s)-3000:]
	}
	return s
}

// served starts a registry with an image of the cache and returns the reference to pull.
func served(t *testing.T, img testimage.Image, err error) (*testimage.Registry, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	r, err := testimage.StartRegistry(t.Context(), img.Storage, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, r.Addr + "/" + img.Name
}

// needDebian is what a test of the Debian image begins with.
func needDebian(t *testing.T) (*testimage.Registry, string) {
	t.Helper()
	needRoot(t)
	if testing.Short() {
		t.Skip("works on an image of 240 MB")
	}
	needTools(t, "mmdebstrap", "umoci", "skopeo", "docker-registry", "tar", "setfattr", "setcap")
	img, err := testimage.Debian(t.Context())
	return served(t, img, err)
}
