// Command demo runs plyfs's main path on a registry and an image made on the spot, prints each step, and fails loudly
// where what is seen differs from what must be seen.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/tinyimage"
)

func main() {
	binary := flag.String("plyfs", "bin/plyfs", "the plyfs to show")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: FAILED: %v\n", err)
		os.Exit(1)
	}
	fmt.Println("\ndemo: passed")
}

func run(ctx context.Context, binary string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("mounting and chroot need root here: run `sudo make demo`")
	}
	if fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		return fmt.Errorf("plyfs serves its mounts through /dev/fuse: %w; load the kernel's fuse module (modprobe fuse)", err)
	} else if err := fuse.Close(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "plyfs-demo-")
	if err != nil {
		return err
	}
	d := &demo{ctx: ctx, dir: dir}
	defer func() { err = errors.Join(err, d.cleanUp()) }()
	if d.binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	userland, err := buildUserland(ctx, dir)
	if err != nil {
		return err
	}
	registry, stop, err := tinyimage.Serve(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	ref := registry + "/demo:latest"
	if err := tinyimage.Push(ctx, ref, layers(userland)...); err != nil {
		return err
	}
	if d.mountpoint, err = d.makeMountpoint(); err != nil {
		return err
	}
	fmt.Printf("A registry on loopback has %s: 3 layers, of which the upper ones replace and delete\nfiles of the first. The store is in %s/store.\n", ref, dir)
	return d.steps(ref)
}

// demo is one run.
type demo struct {
	ctx        context.Context
	binary     string // plyfs
	dir        string // holds the store and all else; goes at the end
	mountpoint string
}

func (d *demo) makeMountpoint() (string, error) {
	path := filepath.Join(d.dir, "root")
	return path, os.Mkdir(path, 0o755)
}

// cleanUp leaves no mount, no process and no file, also after a failure.
func (d *demo) cleanUp() error {
	// Gone is what it should be after all steps; after a failure it may be mounted, its server alive or dead.
	for {
		err := unix.Unmount(d.mountpoint, unix.MNT_DETACH)
		if err != nil {
			break
		}
	}
	return os.RemoveAll(d.dir)
}

// show prints a command as a user would type it, runs it and prints its output; stdout is returned.
func (d *demo) show(typed string, cmd *exec.Cmd) (string, error) {
	fmt.Printf("\n$ %s\n", typed)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	err := cmd.Run()
	fmt.Print(indent(stderr.String()), indent(stdout.String()))
	fmt.Printf("  (%d ms)\n", time.Since(begin).Milliseconds())
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", typed, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), err
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}

// plyfs runs plyfs on the demo's store.
func (d *demo) plyfs(args ...string) (string, error) {
	cmd := exec.CommandContext(d.ctx, d.binary, args...)
	cmd.Env = append(os.Environ(), "PLYFS_ROOT="+filepath.Join(d.dir, "store"))
	return d.show("plyfs "+strings.Join(args, " "), cmd)
}

// chroot runs a shell command of the image's userland in the mount.
func (d *demo) chroot(script string) (string, error) {
	cmd := &exec.Cmd{
		Path:        "/bin/sh",
		Args:        []string{"sh", "-c", script},
		Dir:         "/",
		SysProcAttr: &syscall.SysProcAttr{Chroot: d.mountpoint},
	}
	return d.show("chroot "+d.mountpoint+" sh -c '"+script+"'", cmd)
}
