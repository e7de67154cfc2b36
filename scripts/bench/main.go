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

	"github.com/plyfs/plyfs/integration/testimage"
)

// bench is a run of the benchmark.
type bench struct {
	plyfs  string // path of the binary
	dir    string // where everything lies that is measured
	rounds int
	only   *regexp.Regexp // of the rows to measure; nil is all
	on     *regexp.Regexp // of the targets to measure; nil is all
	uring  bool           // measure plyfs over io_uring too
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
	on := flag.String("on", "", "measure only on the targets whose name this regular expression matches; kernel overlayfs is what ratios are made of")
	uring := flag.Bool("uring", false, "measure plyfs over io_uring too")
	out := flag.String("out", "", "write the tables to this file (default docs/benchmarks.md when all rows are measured, else none)")
	dir := flag.String("dir", "", "make the file system to measure on in a file in this directory (default the cache of test images)")
	keep := flag.String("keep", "", "make it in this directory, leave it there with the images, and use what an earlier run left")
	list := flag.Bool("list", false, "list the rows")
	flag.Parse()
	if *list {
		fmt.Println("pull\nmount")
		for i := range workloads {
			fmt.Println(workloads[i].name)
		}
		return nil
	}
	b := &bench{rounds: *rounds, uring: *uring, begun: time.Now()}
	if err := b.choose(*only, *on); err != nil {
		return err
	}
	if *only == "" && *on == "" && *out == "" {
		*out = "docs/benchmarks.md"
	}
	if err := b.check(*plyfs); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	text, err := b.all(ctx, *dir, *keep)
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

// choose takes the regular expressions of the rows and targets to measure, "" being all.
func (b *bench) choose(only, on string) error {
	for _, c := range []struct {
		expr string
		re   **regexp.Regexp
	}{{only, &b.only}, {on, &b.on}} {
		if c.expr == "" {
			continue
		}
		re, err := regexp.Compile(c.expr)
		if err != nil {
			return err
		}
		*c.re = re
	}
	return nil
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

// all measures on a disk made for it, which goes when it is done unless it is to be kept, and returns the document.
func (b *bench) all(ctx context.Context, parent, keep string) (text string, err error) {
	if parent == "" {
		if parent, err = testimage.CacheDir(); err != nil {
			return "", err
		}
	}
	dir := keep
	if keep == "" {
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return "", err
		}
		if dir, err = os.MkdirTemp(parent, "bench"); err != nil {
			return "", err
		}
		defer func() {
			if left := mountsBelow(dir); len(left) > 0 {
				err = errors.Join(err, fmt.Errorf("%s is left: %s is mounted", dir, left[0]))
				return
			}
			err = errors.Join(err, os.RemoveAll(dir))
		}()
	}
	d, err := openDisk(dir)
	if err != nil {
		return "", err
	}
	b.dir = d.dir
	defer func() { err = errors.Join(err, d.close()) }()
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

// wants reports whether a row is to be measured.
func (b *bench) wants(row string) bool { return b.only == nil || b.only.MatchString(row) }

// say tells on stderr how far the benchmark is.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%6.1f s] %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}
