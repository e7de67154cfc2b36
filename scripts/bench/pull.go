package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/testimage"
)

// pulls is what taking one image from one registry took.
type pulls struct {
	compressed int64             // bytes of the layers in the registry
	unpacked   int64             // of their tars
	layers     int               // how many
	alone      map[string]series // until the command ended
	synced     map[string]series // until all it wrote was on disk
}

const (
	byPlyfs  = "plyfs pull"
	byPodman = "podman pull"
	byPipe   = "curl, gunzip, sha256sum"
)

// runPulls measures pulls into stores that are empty, from a registry whose files are in memory.
func (b *bench) runPulls(ctx context.Context) (p *pulls, err error) {
	if !b.wants("pull") {
		return nil, nil
	}
	img, err := testimage.Debian(ctx)
	if err != nil {
		return nil, err
	}
	registry, err := testimage.StartRegistry(ctx, img.Storage, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	p = &pulls{alone: map[string]series{}, synced: map[string]series{}}
	urls, err := p.describe(registry.Addr, img.Name)
	if err != nil {
		return nil, err
	}
	ref := registry.Addr + "/" + img.Name
	contenders := []struct {
		name string
		cmd  func(pod podmanStorage) *exec.Cmd
	}{
		{byPlyfs, func(pod podmanStorage) *exec.Cmd {
			return exec.CommandContext(ctx, b.plyfs, "--root", filepath.Join(pod.dir, "store"), "pull", "--quiet", ref)
		}},
		{byPodman, func(pod podmanStorage) *exec.Cmd {
			return exec.CommandContext(ctx, "podman", pod.args("pull", "--quiet", "--tls-verify=false", ref)...)
		}},
		{byPipe, func(podmanStorage) *exec.Cmd {
			cmd := exec.CommandContext(ctx, "xargs", "-P2", "-n1", "sh", "-c", `curl --silent --show-error --fail "$1" | gunzip | sha256sum`, "sh")
			cmd.Stdin = strings.NewReader(strings.Join(urls, "\n") + "\n")
			return cmd
		}},
	}
	for round := range b.rounds {
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			alone, synced, err := b.pull(img.Storage, c.cmd)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			p.alone[c.name] = append(p.alone[c.name], alone)
			p.synced[c.name] = append(p.synced[c.name], synced)
			b.say("%s: %.2f s, synced %.2f s", c.name, alone, synced)
		}
	}
	return p, nil
}

// pull runs one command in a new directory and returns how long it took, and how long until the disk had all.
func (b *bench) pull(storage string, build func(pod podmanStorage) *exec.Cmd) (alone, synced float64, err error) {
	dir, err := os.MkdirTemp(b.dir, "pull")
	if err != nil {
		return 0, 0, err
	}
	pod, err := newPodman(dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() {
		err = errors.Join(err, pod.close(), command("rm", "-rf", "--one-file-system", dir)) // podman leaves directories that os.RemoveAll cannot enter
		unix.Sync()
	}()
	if err := readAll(storage); err != nil {
		return 0, 0, err
	}
	unix.Sync()
	cmd := build(pod)
	var said strings.Builder
	cmd.Stderr = &said
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, said.String())
	}
	alone = time.Since(begin).Seconds()
	unix.Sync()
	synced = time.Since(begin).Seconds()
	return alone, synced, nil
}

// mountsBelow lists what a command left mounted in a directory.
func mountsBelow(dir string) []string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			found = append([]string{fields[4]}, found...)
		}
	}
	return found
}

// readAll has the kernel hold every file below a directory in memory.
func readAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		return errors.Join(err, f.Close())
	})
}

// describe asks the registry what the image is made of and returns the addresses of its layers.
func (p *pulls) describe(addr, name string) (urls []string, err error) {
	raw, err := output("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+addr+"/"+name)
	if err != nil {
		return nil, err
	}
	var manifest struct {
		Layers []struct {
			Digest string
			Size   int64
		}
	}
	if err := json.Unmarshal([]byte(raw), &manifest); err != nil {
		return nil, err
	}
	for _, l := range manifest.Layers {
		url := "http://" + addr + "/v2/" + name + "/blobs/" + l.Digest
		size, err := output("sh", "-c", `curl --silent --fail "$1" | gunzip | wc -c`, "sh", url)
		if err != nil {
			return nil, err
		}
		var n int64
		if _, err := fmt.Sscan(size, &n); err != nil {
			return nil, err
		}
		p.compressed += l.Size
		p.unpacked += n
		urls = append(urls, url)
	}
	p.layers = len(urls)
	return urls, nil
}
