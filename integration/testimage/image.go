package testimage

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed debian.sh
var debianRecipe string

//go:embed oddities.sh
var odditiesRecipe string

// Image is an image in the cache, as an OCI layout and as the storage of a registry that holds it.
type Image struct {
	Layout  string // directory of an OCI image layout; read only
	Name    string // tag in the layout, and repository in the registry, where the tag is latest
	Storage string // root directory of docker-registry's filesystem driver; read only
}

// Debian is a Debian root filesystem of four layers with python3, git, gcc, make and nginx: about 240 MB compressed and
// 630 MB unpacked. Its upper layers hold whiteouts, an opaque directory, hard links, a sparse file, devices, a fifo,
// extended attributes, file capabilities, set-id bits, odd names and odd times, all of them below /opt/odd. Making it
// takes a minute or two and needs root and a Debian mirror, the one that the machine's apt uses.
func Debian(ctx context.Context) (Image, error) {
	return image(ctx, "debian", debianRecipe+odditiesRecipe, buildDebian)
}

// Bench is Debian with a fifth layer for the filesystem benchmarks: /bench/small with 10,000 small files in 100
// directories, /bench/tree with 12,800 in 320, and /bench/big of 512 MiB.
func Bench(ctx context.Context) (Image, error) {
	base, err := Debian(ctx)
	if err != nil {
		return Image{}, err
	}
	return image(ctx, "bench", debianRecipe+odditiesRecipe+benchRecipe, func(ctx context.Context, dir string) error {
		layout := filepath.Join(dir, "oci")
		if err := run(ctx, "cp", "-a", base.Layout, layout); err != nil {
			return err
		}
		if err := run(ctx, "umoci", "tag", "--image", layout+":"+base.Name, "bench"); err != nil {
			return err
		}
		if err := addLayer(ctx, layout, "bench", "bench", writeBenchLayer); err != nil {
			return err
		}
		if err := run(ctx, "umoci", "rm", "--image", layout+":"+base.Name); err != nil {
			return err
		}
		return run(ctx, "umoci", "gc", "--layout", layout)
	})
}

// ManyLayers is an image of 100 layers. Every layer has filesPerLayer files of its own, replaces a file that all layers
// have, and deletes a file of the layer below.
func ManyLayers(ctx context.Context, filesPerLayer int) (Image, error) {
	name := fmt.Sprintf("layers%d", filesPerLayer)
	return image(ctx, name, manyRecipe+name, func(ctx context.Context, dir string) error {
		layout := filepath.Join(dir, "oci")
		if err := run(ctx, "umoci", "init", "--layout", layout); err != nil {
			return err
		}
		if err := run(ctx, "umoci", "new", "--image", layout+":"+name); err != nil {
			return err
		}
		for i := range manyLayerCount {
			write := func(path string) error { return writeManyLayer(path, i, filesPerLayer) }
			if err := addLayer(ctx, layout, name, name, write); err != nil {
				return err
			}
		}
		return run(ctx, "umoci", "gc", "--layout", layout)
	})
}

// image makes an image by build, which leaves the layout dir/oci with the tag name, and puts it into a registry.
func image(ctx context.Context, name, recipe string, build func(ctx context.Context, dir string) error) (Image, error) {
	dir, err := cached(ctx, name, recipe, func(ctx context.Context, dir string) error {
		if os.Geteuid() != 0 {
			return ErrNeedsRoot
		}
		if err := build(ctx, dir); err != nil {
			return err
		}
		return fillRegistry(ctx, filepath.Join(dir, "oci"), name, filepath.Join(dir, "registry"))
	})
	if err != nil {
		return Image{}, err
	}
	return Image{Layout: filepath.Join(dir, "oci"), Name: name, Storage: filepath.Join(dir, "registry")}, nil
}

func buildDebian(ctx context.Context, dir string) error {
	scripts, err := os.MkdirTemp(dir, "scripts")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scripts) //nolint:errcheck // it goes with the partial directory at the latest
	for name, text := range map[string]string{"debian.sh": debianRecipe, "oddities.sh": odditiesRecipe} {
		if err := os.WriteFile(filepath.Join(scripts, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	sources, suite, err := AptSources(ctx)
	if err != nil {
		return err
	}
	args := []string{filepath.Join(scripts, "debian.sh"), dir, suite}
	if sources != "" {
		list := filepath.Join(scripts, "sources.list")
		if err := os.WriteFile(list, []byte(sources), 0o600); err != nil {
			return err
		}
		args = append(args, list)
	}
	return run(ctx, "sh", args...)
}

// AptSources returns the Debian package sources that this machine's apt uses, as lines for a sources.list, and the name of
// the machine's release. The lines are empty when apt has no lists yet: Debian's tools then use their own default.
func AptSources(ctx context.Context) (sources, suite string, err error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", "", err
	}
	for _, line := range strings.Split(string(release), "\n") {
		if value, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			suite = strings.Trim(value, `"`)
		}
	}
	if suite == "" {
		return "", "", fmt.Errorf("/etc/os-release names no VERSION_CODENAME: the test images are made on Debian")
	}
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "deb $(REPO_URI) $(CODENAME) $(COMPONENT)|$(ORIGIN)",
		"Created-By: Packages").Output()
	if err != nil {
		return "", "", fmt.Errorf("apt-get indextargets: %w", err)
	}
	for _, line := range strings.Split(string(out), "\n") {
		if source, ok := strings.CutSuffix(line, "|Debian"); ok {
			sources += source + "\n"
		}
	}
	return sources, suite, nil
}

// addLayer appends the tar that write makes to an image of a layout.
func addLayer(ctx context.Context, layout, tag, what string, write func(path string) error) error {
	tar := layout + ".layer.tar"
	defer os.Remove(tar) //nolint:errcheck // it goes with the partial directory at the latest
	if err := write(tar); err != nil {
		return err
	}
	return run(ctx, "umoci", "raw", "add-layer", "--history.created_by", what, "--image", layout+":"+tag, tar)
}

// run runs a command and returns an error with the end of what it printed.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		out = bytes.TrimSpace(out)
		if len(out) > 2000 {
			out = out[len(out)-2000:]
		}
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
