package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/plyfs/plyfs/integration/testimage"
)

// mounts is what mounting takes.
type mounts struct {
	few, many series // seconds of `plyfs mount` of 100 layers, of 10 and of 4,000 files each
	rss, pss  series // bytes of each server of 20 mounts of the Debian image, at rest
	walkedRSS series // after find over the first five of them
	walkedPSS series
}

const (
	memoryMounts = 20
	memoryWalked = 5
)

// runMounts measures the whole command, from its start to its end, by which time the mount answers.
func (b *bench) runMounts(ctx context.Context) (m *mounts, err error) {
	if !b.wants("mount") {
		return nil, nil
	}
	m = &mounts{}
	few, err := b.pulled(ctx, "few", func() (testimage.Image, error) { return testimage.ManyLayers(ctx, 10) })
	if err != nil {
		return nil, err
	}
	many, err := b.pulled(ctx, "many", func() (testimage.Image, error) { return testimage.ManyLayers(ctx, 4000) })
	if err != nil {
		return nil, err
	}
	const each = 5 // mounts of a round; they are short
	for range b.rounds * each {
		for _, c := range []struct {
			img  stored
			took *series
		}{{few, &m.few}, {many, &m.many}} {
			name := "bench"
			begin := time.Now()
			if err := c.img.run(b, "mount", "--name", name, c.img.ref); err != nil {
				return nil, err
			}
			*c.took = append(*c.took, time.Since(begin).Seconds())
			if err := errors.Join(c.img.run(b, "umount", name), c.img.run(b, "rm", name)); err != nil {
				return nil, err
			}
		}
	}
	b.say("mount of 100 layers: %s; with 400 times the files: %s", secondsText(m.few), secondsText(m.many))
	return m, b.runMemory(ctx, m)
}

// stored is an image in a store.
type stored struct{ root, ref string }

func (s stored) run(b *bench, args ...string) error {
	return command(b.plyfs, append([]string{"--root", s.root}, args...)...)
}

// pulled puts an image into a store of its own.
func (b *bench) pulled(ctx context.Context, store string, get func() (testimage.Image, error)) (s stored, err error) {
	img, err := get()
	if err != nil {
		return s, err
	}
	registry, err := testimage.StartRegistry(ctx, img.Storage, true)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	s = stored{filepath.Join(b.dir, store), registry.Addr + "/" + img.Name}
	return s, s.run(b, "pull", "--quiet", s.ref)
}

// runMemory measures the servers of 20 mounts of one image.
func (b *bench) runMemory(ctx context.Context, m *mounts) (err error) {
	s, err := b.pulled(ctx, "memory", func() (testimage.Image, error) { return testimage.Debian(ctx) })
	if err != nil {
		return err
	}
	var names, points []string
	defer func() {
		for _, name := range names {
			err = errors.Join(err, s.run(b, "umount", name), s.run(b, "rm", name))
		}
	}()
	for i := range memoryMounts {
		name := fmt.Sprintf("m%d", i)
		out, err := output(b.plyfs, "--root", s.root, "mount", "--name", name, s.ref)
		if err != nil {
			return err
		}
		names, points = append(names, name), append(points, strings.TrimSpace(out))
	}
	pids := make([]int, len(points))
	for i, point := range points {
		if pids[i], err = serverOf(point); err != nil {
			return err
		}
	}
	if m.rss, m.pss, err = residents(pids); err != nil {
		return err
	}
	for _, point := range points[:memoryWalked] {
		if err := exec.CommandContext(ctx, "find", point, "-printf", "").Run(); err != nil {
			return fmt.Errorf("find %s: %w", point, err)
		}
	}
	m.walkedRSS, m.walkedPSS, err = residents(pids[:memoryWalked])
	return err
}

func residents(pids []int) (rss, pss series, err error) {
	for _, pid := range pids {
		r, err := memory(pid, "smaps_rollup", "Rss")
		if err != nil {
			return nil, nil, err
		}
		p, err := memory(pid, "smaps_rollup", "Pss")
		if err != nil {
			return nil, nil, err
		}
		rss, pss = append(rss, r), append(pss, p)
	}
	return rss, pss, nil
}

// serverOf finds the process that serves a mountpoint, which is on its command line.
func serverOf(point string) (int, error) {
	out, err := output("pgrep", "--full", "--exact", "plyfs serve-mount .* -mountpoint "+point+"( .*)?")
	if err != nil {
		return 0, fmt.Errorf("no server of %s: %w", point, err)
	}
	var pid int
	_, err = fmt.Sscan(out, &pid)
	return pid, err
}
