package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/testimage"
)

// measured is a row of the filesystem table: a workload's times by the name of the target.
type measured struct {
	*workload
	times map[string]series
	cpu   map[string]series
	peak  map[string]float64
}

// filesystems are the targets, with what they are made of.
type filesystems struct {
	targets []target
	close   func() error
}

// stores are where the benchmark's image lies.
type stores struct {
	Ref    string // of the image in plyfs's store
	Lowers string // its layers as directories, for the others
	Image  string // what it was made of
}

// fill pulls the benchmark's image for plyfs and unpacks it for all others, unless an earlier run has left it.
func (b *bench) fill(ctx context.Context, root, native string) (s stores, err error) {
	img, err := testimage.Bench(ctx)
	if err != nil {
		return s, err
	}
	list := filepath.Join(b.dir, "stores.json")
	if text, err := os.ReadFile(list); err == nil {
		if err := json.Unmarshal(text, &s); err != nil {
			return s, fmt.Errorf("%s: %w", list, err)
		}
		if s.Image != img.Storage {
			return s, fmt.Errorf("%s has another image: delete it", b.dir)
		}
		return s, nil
	}
	podDir := filepath.Join(b.dir, "podman")
	if err := command("rm", "-rf", "--one-file-system", root, native, podDir); err != nil { // what an interrupted run left
		return s, err
	}
	registry, err := testimage.StartRegistry(ctx, img.Storage, true)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	s = stores{Ref: registry.Addr + "/" + img.Name, Image: img.Storage}
	b.say("pulling %s for plyfs", img.Name)
	if err := command(b.plyfs, "--root", root, "pull", "--quiet", s.Ref); err != nil {
		return s, err
	}
	b.say("unpacking %s for the others", img.Name)
	pod, err := newPodman(podDir)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, pod.close()) }()
	if err := command("podman", pod.args("pull", "--quiet", "--tls-verify=false", s.Ref)...); err != nil {
		return s, err
	}
	if s.Lowers, err = pod.lowers(s.Ref); err != nil {
		return s, err
	}
	err = withPristine(b.dir, s.Lowers, func(pristine string) error { return command("cp", "-a", pristine, native) })
	if err != nil {
		return s, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return s, err
	}
	unix.Sync()
	return s, os.WriteFile(list, text, 0o600)
}

// withPristine calls f with the image's files as they are.
func withPristine(dir, lowers string, f func(pristine string) error) error {
	pristine, closeAll, err := mountPristine(dir, lowers)
	if err != nil {
		return err
	}
	return errors.Join(f(pristine), closeAll())
}

func mountPristine(dir, lowers string) (pristine string, closeAll func() error, err error) {
	pristine = filepath.Join(dir, "pristine")
	if err := os.MkdirAll(pristine, 0o755); err != nil {
		return "", nil, err
	}
	if err := unix.Mount("overlay", pristine, "overlay", unix.MS_RDONLY, "lowerdir="+lowers); err != nil {
		return "", nil, fmt.Errorf("mount overlay: %w", err)
	}
	return pristine, func() error { return unmount(pristine) }, nil
}

// openFilesystems returns what to measure on.
func (b *bench) openFilesystems(ctx context.Context) (fs *filesystems, err error) {
	root, native := filepath.Join(b.dir, "plyfs"), filepath.Join(b.dir, "native")
	s, err := b.fill(ctx, root, native)
	if err != nil {
		return nil, err
	}
	pristine, closeAll, err := mountPristine(b.dir, s.Lowers)
	if err != nil {
		return nil, err
	}
	all := []target{nativeTarget(native, pristine), kernelTarget(s.Lowers)}
	for _, fo := range b.fuseOverlays() {
		all = append(all, fuseOverlayTarget(fo[1], fo[0], s.Lowers))
	}
	all = append(all, plyfsTarget(namePlyfs, b.plyfs, root, s.Ref))
	if b.uring {
		all = append(all, plyfsTarget(nameURing, b.plyfs, root, s.Ref, "-o", "io_uring=on"))
	}
	fs = &filesystems{close: closeAll}
	for _, t := range all {
		if b.on == nil || b.on.MatchString(t.name) {
			fs.targets = append(fs.targets, t)
		}
	}
	return fs, nil
}

// fuseOverlays are the names and paths of the fuse-overlayfs binaries: Debian's, and those that FUSE_OVERLAYFS lists.
func (b *bench) fuseOverlays() [][2]string {
	var found [][2]string
	paths := strings.Split(os.Getenv("FUSE_OVERLAYFS"), ":")
	if debian, err := exec.LookPath("fuse-overlayfs"); err == nil {
		paths = append(paths, debian)
	}
	for _, path := range paths {
		if path == "" {
			continue
		}
		version := firstLineWith(path, "fuse-overlayfs:")
		found = append(found, [2]string{strings.TrimSpace("fuse-overlayfs " + version), path})
	}
	return found
}

// firstLineWith returns what follows a prefix in what a program says of its version.
func firstLineWith(binary, prefix string) string {
	out, err := exec.Command(binary, "--version").CombinedOutput()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimPrefix(strings.TrimSpace(rest), "version ")
		}
	}
	return ""
}

// runFilesystems measures every workload on every target, a round of all targets after the other.
func (b *bench) runFilesystems(ctx context.Context) (rows []*measured, names []string, err error) {
	var chosen []*measured
	for i := range workloads {
		if w := &workloads[i]; b.wants(w.name) {
			chosen = append(chosen, &measured{w, map[string]series{}, map[string]series{}, map[string]float64{}})
		}
	}
	if len(chosen) == 0 {
		return nil, nil, nil
	}
	fs, err := b.openFilesystems(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, fs.close()) }()
	for _, t := range fs.targets {
		names = append(names, t.name)
	}
	for _, row := range chosen {
		for round := range b.rounds {
			for i := range fs.targets {
				t := fs.targets[(i+round)%len(fs.targets)]
				if err := ctx.Err(); err != nil {
					return nil, nil, err
				}
				if err := b.measure(ctx, row, t); err != nil {
					return nil, nil, fmt.Errorf("%s on %s: %w", row.name, t.name, err)
				}
			}
		}
		line := ""
		for _, name := range names {
			line += fmt.Sprintf("  %s %s", name, secondsText(row.times[name]))
		}
		b.say("%s:%s", row.name, line)
	}
	return chosen, names, nil
}

// measure runs a workload once on a target that is mounted for it.
func (b *bench) measure(ctx context.Context, row *measured, t target) (err error) {
	dir, err := os.MkdirTemp(b.dir, "run")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, err := t.mount(ctx, dir)
	if err != nil {
		return err
	}
	defer func() {
		if m.restore != nil {
			err = errors.Join(err, m.restore(row.spoils))
		}
		err = errors.Join(err, m.unmount())
	}()
	ws, err := startWorkers(row.workload, m.root)
	if err != nil {
		return err
	}
	unix.Sync() // what was prepared is not written to disk at the cost of what is measured
	if row.cold > 0 {
		if err := dropCaches(row.cold); err != nil {
			return errors.Join(err, ws.kill())
		}
	}
	before, err := m.use()
	if err != nil {
		return errors.Join(err, ws.kill())
	}
	took, err := ws.measure()
	if err != nil {
		return err
	}
	after, err := m.use()
	if err != nil {
		return err
	}
	row.times[t.name] = append(row.times[t.name], took.Seconds())
	if m.pid != 0 {
		row.cpu[t.name] = append(row.cpu[t.name], after.cpu-before.cpu)
		row.peak[t.name] = max(row.peak[t.name], after.peak)
	}
	return nil
}

// podmanStorage is a podman with storage of its own.
type podmanStorage struct{ dir, run string }

// newPodman makes one. Its run directory lies apart because podman takes no long path for it.
func newPodman(dir string) (podmanStorage, error) {
	run, err := os.MkdirTemp("/tmp", "plyfs-bench")
	return podmanStorage{dir, run}, err
}

// close removes the run directory, the storage being the caller's.
func (p podmanStorage) close() error {
	var errs []error
	for _, m := range append(mountsBelow(p.dir), mountsBelow(p.run)...) {
		errs = append(errs, unmount(m))
	}
	return errors.Join(append(errs, command("rm", "-rf", "--one-file-system", p.run))...)
}

func (p podmanStorage) args(args ...string) []string {
	return append([]string{
		"--root", filepath.Join(p.dir, "root"), "--runroot", p.run, "--tmpdir", filepath.Join(p.run, "tmp"),
		"--storage-driver", "overlay", "--cgroup-manager", "cgroupfs",
	}, args...)
}

// lowers is an image's layers as directories, for the lowerdir option of overlayfs, top first.
func (p podmanStorage) lowers(ref string) (string, error) {
	out, err := output("podman", p.args("image", "inspect", "--format",
		"{{.GraphDriver.Data.UpperDir}}{{with .GraphDriver.Data.LowerDir}}:{{.}}{{end}}", ref)...)
	if err != nil {
		return "", err
	}
	lowers := strings.TrimSpace(out)
	for dir := range strings.SplitSeq(lowers, ":") {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return "", fmt.Errorf("podman's layer %q is no directory: %w", dir, err)
		}
	}
	return lowers, nil
}
