// Command bench measures plyfs beside other programs: pulls beside podman's and a pipe of curl, gunzip and sha256sum,
// mounts and their memory, and filesystem workloads beside a native directory, kernel overlayfs and fuse-overlayfs. All
// work on one image from one registry, rounds of all contenders after each other; it prints medians, and a ratio only
// when it is larger than what the runs vary by.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/testimage"
)

// bench is a run of the benchmark.
type bench struct {
	plyfs  string // path of the binary
	dir    string // where everything lies that is measured
	rounds int
	only   *regexp.Regexp // of the rows to measure; nil is all
	begun  time.Time
}

// results is all that was measured; what was not is nil.
type results struct {
	pulls   *pulls
	mounts  *mounts
	rows    []*measured
	targets []string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childCommand {
		if err := runChild(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted; nothing is written")
		}
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	plyfs := flag.String("plyfs", "bin/plyfs", "the plyfs to measure")
	rounds := flag.Int("rounds", 5, "how often each is measured, at least 3 for ratios")
	only := flag.String("run", "", "measure only the rows whose name this regular expression matches: pull, mount, and the names of workloads")
	out := flag.String("out", "", "write the tables to this file (default docs/benchmarks.md when all rows are measured, else none)")
	dir := flag.String("dir", "", "measure in this directory's file system (default the cache of test images)")
	list := flag.Bool("list", false, "list the rows")
	flag.Parse()
	if *list {
		fmt.Println("pull\nmount")
		for i := range workloads {
			fmt.Println(workloads[i].name)
		}
		return nil
	}
	b := &bench{rounds: *rounds, begun: time.Now()}
	if *only != "" {
		var err error
		if b.only, err = regexp.Compile(*only); err != nil {
			return err
		}
	} else if *out == "" {
		*out = "docs/benchmarks.md"
	}
	if err := b.check(*plyfs); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	text, err := b.all(ctx, *dir)
	if err != nil {
		return err
	}
	fmt.Print(text)
	if *out == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(*out, []byte(text), 0o644)
}

// check looks for what the benchmark needs before it begins.
func (b *bench) check(plyfs string) error {
	if os.Geteuid() != 0 {
		return errors.New("mounting overlayfs and dropping caches need root: run `sudo make bench`")
	}
	for _, tool := range []string{"podman", "skopeo", "umoci", "docker-registry", "mmdebstrap", "curl", "gunzip", "sha256sum", "xargs", "pgrep", "find"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is not installed: run scripts/install-deps.sh", tool)
		}
	}
	path, err := filepath.Abs(plyfs)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("no plyfs to measure, run `make build`: %w", err)
	}
	b.plyfs = path
	return nil
}

// all measures in a new directory, which goes when it is done, and returns the document.
func (b *bench) all(ctx context.Context, parent string) (text string, err error) {
	if parent == "" {
		if parent, err = testimage.CacheDir(); err != nil {
			return "", err
		}
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return "", err
		}
	}
	if b.dir, err = os.MkdirTemp(parent, "bench"); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, b.cleanUp()) }()
	var r results
	if r.pulls, err = b.runPulls(ctx); err != nil {
		return "", err
	}
	if r.mounts, err = b.runMounts(ctx); err != nil {
		return "", err
	}
	if r.rows, r.targets, err = b.runFilesystems(ctx); err != nil {
		return "", err
	}
	return b.document(&r)
}

// cleanUp removes all that the benchmark made; what a failure left mounted is detached first, never deleted through.
func (b *bench) cleanUp() error {
	var errs []error
	for _, m := range mountsBelow(b.dir) {
		b.say("unmounting %s", m)
		errs = append(errs, unix.Unmount(m, unix.MNT_DETACH))
	}
	if len(mountsBelow(b.dir)) > 0 {
		return errors.Join(append(errs, fmt.Errorf("%s is left: something is mounted below", b.dir))...)
	}
	return errors.Join(append(errs, command("rm", "-rf", "--one-file-system", b.dir))...)
}

// wants reports whether a row is to be measured.
func (b *bench) wants(row string) bool { return b.only == nil || b.only.MatchString(row) }

// say tells on stderr how far the benchmark is.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%6.1f s] %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}
