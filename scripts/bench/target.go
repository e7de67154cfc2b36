package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// target is a file system that the workloads run on.
type target struct {
	name  string
	mount func(ctx context.Context, dir string) (*mounted, error) // dir is empty and goes afterwards
}

// mounted is a root to work in.
type mounted struct {
	root    string
	pid     int // of the server in user space, 0 when there is none
	unmount func() error
	restore func(spoiled []string) error // makes anew what a workload changed; nil when the next mount is anew anyway
}

// use is what a server has used.
type use struct {
	cpu  float64 // seconds, user and system
	peak float64 // bytes resident at most
}

// clockTick is the unit of /proc/PID/stat, which is 1/100 s on every Linux.
const clockTick = 100

func (m *mounted) use() (use, error) {
	if m.pid == 0 {
		return use{}, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.pid))
	if err != nil {
		return use{}, err
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after) // the first is field 3 of proc(5)
	if len(fields) < 13 {
		return use{}, fmt.Errorf("/proc/%d/stat is %q", m.pid, stat)
	}
	var ticks float64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return use{}, err
		}
		ticks += n
	}
	peak, err := memory(m.pid, "status", "VmHWM")
	return use{ticks / clockTick, peak}, err
}

// memory is a value that a file of /proc/PID gives in KiB, in bytes.
func memory(pid int, file, key string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return n * 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/%s has no %s", pid, file, key)
}

// nativeTarget is a directory with the image's files, on the disk that all others have their layers on. pristine is where
// they come from.
func nativeTarget(root, pristine string) target {
	return target{"native", func(context.Context, string) (*mounted, error) {
		return &mounted{
			root:    root,
			unmount: func() error { return os.RemoveAll(filepath.Join(root, "work")) },
			restore: func(spoiled []string) error {
				for _, path := range spoiled {
					if err := os.RemoveAll(filepath.Join(root, path)); err != nil {
						return err
					}
					if _, err := os.Lstat(filepath.Join(pristine, path)); errors.Is(err, os.ErrNotExist) {
						continue
					}
					if err := command("cp", "-a", filepath.Join(pristine, path), filepath.Join(root, path)); err != nil {
						return err
					}
				}
				unix.Sync()
				return nil
			},
		}, nil
	}}
}

// directories makes those that a mount with an upper layer needs.
func directories(dir string) (upper, work, merged string, err error) {
	upper, work, merged = filepath.Join(dir, "upper"), filepath.Join(dir, "work"), filepath.Join(dir, "merged")
	for _, d := range []string{upper, work, merged} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", "", "", err
		}
	}
	return upper, work, merged, nil
}

// kernelTarget is the kernel's overlayfs with its defaults. lowers is its option, top first.
func kernelTarget(lowers string) target {
	return target{"kernel overlayfs", func(_ context.Context, dir string) (*mounted, error) {
		upper, work, merged, err := directories(dir)
		if err != nil {
			return nil, err
		}
		options := "lowerdir=" + lowers + ",upperdir=" + upper + ",workdir=" + work
		if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
			return nil, fmt.Errorf("mount overlay: %w", err)
		}
		return &mounted{root: merged, unmount: func() error { return unmount(merged) }}, nil
	}}
}

// fuseOverlayTarget is fuse-overlayfs.
func fuseOverlayTarget(binary, name, lowers string) target {
	return target{name, func(ctx context.Context, dir string) (*mounted, error) {
		upper, work, merged, err := directories(dir)
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(binary, "-f", "-o", "dev,suid,lowerdir="+lowers+",upperdir="+upper+",workdir="+work, merged)
		return serve(ctx, cmd, merged, nil)
	}}
}

// plyfsTarget is a container of an image that is in the store.
func plyfsTarget(called, binary, root, image string, options ...string) target {
	return target{called, func(ctx context.Context, dir string) (*mounted, error) {
		merged := filepath.Join(dir, "merged")
		if err := os.Mkdir(merged, 0o755); err != nil {
			return nil, err
		}
		const name = "bench"
		args := append([]string{"--root", root, "mount", "--name", name, "--foreground"}, options...)
		cmd := exec.Command(binary, append(args, image, merged)...)
		return serve(ctx, cmd, merged, func() error { return command(binary, "--root", root, "rm", name) })
	}}
}

// serve starts a server in user space and returns once its mount is there. after runs when it has been unmounted.
func serve(ctx context.Context, cmd *exec.Cmd, merged string, after func() error) (*mounted, error) {
	var said strings.Builder
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for !isMount(merged) {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, said.String())
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), cmd.Process.Kill(), <-ended)
		case <-time.After(2 * time.Millisecond): // the kernel tells of a new mount, but not this simply
		}
	}
	return &mounted{root: merged, pid: cmd.Process.Pid, unmount: func() error {
		err := unmount(merged)
		select {
		case waited := <-ended:
			err = errors.Join(err, waited)
		case <-time.After(30 * time.Second):
			err = errors.Join(err, fmt.Errorf("%s did not end", cmd.Path), cmd.Process.Kill(), <-ended)
		}
		if after != nil {
			err = errors.Join(err, after())
		}
		return err
	}}, nil
}

// isMount reports whether something is mounted at a path.
func isMount(path string) bool {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && fields[4] == path {
			return true
		}
	}
	return false
}

// unmount unmounts, and detaches what cannot be so that a failed benchmark leaves nothing behind.
func unmount(path string) error {
	err := unix.Unmount(path, 0)
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("unmount %s: %w", path, err), unix.Unmount(path, unix.MNT_DETACH))
}

// command runs a command and returns an error with what it printed.
func command(name string, args ...string) error {
	_, err := output(name, args...)
	return err
}

func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}
