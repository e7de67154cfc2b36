package integration

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// union is a stack of directories that a test mounts, with whatever implementation.
type union struct {
	t      *testing.T
	dir    string
	lowers []string // top first
	upper  string
	work   string
	mnt    string
}

func newUnion(t *testing.T, lowers int) *union {
	t.Helper()
	needMount(t)
	dir := t.TempDir()
	u := &union{t: t, dir: dir, upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work"), mnt: filepath.Join(dir, "mnt")}
	for i := range lowers {
		u.lowers = append(u.lowers, filepath.Join(dir, "lower"+strconv.Itoa(i)))
	}
	for _, d := range append([]string{u.upper, u.work, u.mnt}, u.lowers...) {
		u.ok(os.Mkdir(d, 0o755))
	}
	t.Cleanup(u.cleanUp)
	return u
}

// cleanUp unmounts what is left and sees every server end.
func (u *union) cleanUp() {
	for _, m := range mountsBelow(u.t, u.dir) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			u.t.Errorf("unmounting %s: %v", m, err)
		}
	}
	u.awaitServers()
}

// awaitServers waits until no plyfs serves anything below the union's directory.
func (u *union) awaitServers() {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	u.ok(err)
	for _, l := range lines {
		text, err := os.ReadFile(l)
		if err != nil || !strings.Contains(string(text), u.dir) || !strings.Contains(string(text), "serve-overlay") {
			continue // it has ended, or is another
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(l)))
		u.ok(err)
		if err := awaitExit(pid); err != nil {
			u.t.Error(err)
		}
	}
}

func (u *union) ok(err error) {
	u.t.Helper()
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *union) path(name string) string { return filepath.Join(u.mnt, name) }

// write makes a file and the directories above it.
func (u *union) write(path, text string) {
	u.t.Helper()
	u.ok(os.MkdirAll(filepath.Dir(path), 0o755))
	u.ok(os.WriteFile(path, []byte(text), 0o644))
}

func (u *union) read(path string) string {
	u.t.Helper()
	b, err := os.ReadFile(path)
	u.ok(err)
	return string(b)
}

func (u *union) stat(path string) unix.Stat_t {
	u.t.Helper()
	var st unix.Stat_t
	u.ok(unix.Lstat(path, &st))
	return st
}

// options are those of the whole union with more behind them.
func (u *union) options(more ...string) string {
	return strings.Join(append([]string{
		"lowerdir=" + strings.Join(u.lowers, ":"), "upperdir=" + u.upper, "workdir=" + u.work,
	}, more...), ",")
}

// plyfs runs the binary under a name.
func (u *union) plyfs(name string, args ...string) result {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, plyfsBinary(), args...)
	cmd.Args[0] = name
	cmd.Dir = u.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		u.t.Fatalf("%s %q: %v", name, args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// mount mounts with plyfs overlay.
func (u *union) mount(more ...string) {
	u.t.Helper()
	if r := u.plyfs("plyfs", "overlay", "-o", u.options(more...), u.mnt); r.code != 0 || r.stdout+r.stderr != "" {
		u.t.Fatalf("plyfs overlay -o %q: %+v", more, r)
	}
}

// refused sees a mount fail with one line that has every text.
func (u *union) refused(texts []string, more ...string) {
	u.t.Helper()
	r := u.plyfs("plyfs", "overlay", "-o", u.options(more...), u.mnt)
	if r.code == 0 {
		u.t.Errorf("%q: is accepted", more)
		u.umount()
		return
	}
	if err := oneError(r.stderr); err != nil || strings.Count(r.stderr, "\n") != 1 {
		u.t.Errorf("%q: %v: %q", more, err, r.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(r.stderr, text) {
			u.t.Errorf("%q: %q does not say %q", more, r.stderr, text)
		}
	}
	if m := mountsBelow(u.t, u.dir); len(m) > 0 {
		u.t.Errorf("%q: failed, and %q is mounted", more, m)
	}
}

// mountWith mounts with one of the implementations there are.
func (u *union) mountWith(kind string, more ...string) {
	u.t.Helper()
	switch kind {
	case "plyfs":
		u.mount(more...)
	case "kernel":
		tool(u.t, "mount", "-t", "overlay", "-o", u.options(more...), "overlay", u.mnt)
	case "fuse-overlayfs":
		tool(u.t, "fuse-overlayfs", "-o", u.options(more...), u.mnt)
	default:
		u.t.Fatalf("no implementation %s", kind)
	}
}

func (u *union) umount() {
	u.t.Helper()
	u.ok(unix.Unmount(u.mnt, 0))
}

func (u *union) remount(more ...string) {
	u.t.Helper()
	u.umount()
	u.mount(more...)
}

// foreground runs plyfs overlay in the foreground and returns when it answers. wait says how it ended.
func (u *union) foreground(args ...string) (cmd *exec.Cmd, wait func() error) {
	u.t.Helper()
	cmd = exec.Command(plyfsBinary(), append(append([]string{"overlay"}, args...), u.mnt)...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	table, err := os.Open("/proc/self/mountinfo")
	u.ok(err)
	defer table.Close()
	u.ok(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for len(mountsBelow(u.t, u.mnt)) == 0 {
		select {
		case err := <-ended:
			u.t.Fatalf("plyfs overlay %q: %v: %s", args, err, log.String())
		default:
		}
		// A change of the mount table wakes poll (proc(5)); it wakes every second to see if the server has ended.
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(table.Fd()), Events: unix.POLLPRI}}, 1000) // #nosec G115 -- a descriptor
		if err != nil && !errors.Is(err, unix.EINTR) {
			u.t.Fatal(err)
		}
	}
	u.stat(u.path(".")) // which the server answers
	return cmd, func() error {
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			return errors.Join(errors.New("it does not end"), cmd.Process.Kill())
		}
	}
}

// debug mounts with -d and returns what unmounts and gives the log.
func (u *union) debug(more ...string) (stop func() string) {
	u.t.Helper()
	cmd, wait := u.foreground("-d", "-o", u.options(more...))
	return func() string {
		u.t.Helper()
		u.umount()
		u.ok(wait())
		return cmd.Stderr.(*bytes.Buffer).String() //nolint:errcheck // foreground made it so
	}
}

// xattr is the value of an xattr, "" when there is none.
func (u *union) xattr(path, name string) string {
	u.t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Lgetxattr(path, name, buf)
	if errors.Is(err, unix.ENODATA) {
		return ""
	}
	u.ok(err)
	return string(buf[:n])
}

func (u *union) wantErrno(want, err error, what string) {
	u.t.Helper()
	if !errors.Is(err, want) {
		u.t.Errorf("%s: %v, want %v", what, err, want)
	}
}
