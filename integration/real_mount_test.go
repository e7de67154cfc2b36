package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/testimage"
)

// TestRealTree compares the tree of a read-only mount, entry by entry, with what umoci unpacks and what kernel overlayfs
// shows of the layers that podman unpacks.
func TestRealTree(t *testing.T) {
	_, ref := needDebian(t)
	s := newStore(t)
	s.ok("pull", "--quiet", ref)
	m := s.mount("--name", "tree", "--read-only", ref)
	got := tree(t, m)

	t.Run("umoci", func(t *testing.T) {
		img, err := testimage.Debian(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		bundle := filepath.Join(t.TempDir(), "bundle")
		tool(t, "umoci", "unpack", "--image", img.Layout+":"+img.Name, bundle)
		sameTree(t, tree(t, filepath.Join(bundle, "rootfs")), got)
	})
	t.Run("podman", func(t *testing.T) {
		needTools(t, "podman")
		pod := newPodman(t)
		pod.run("pull", "--quiet", "--tls-verify=false", ref)
		want := tree(t, strings.TrimSpace(pod.run("image", "mount", ref)))
		want["."] = got["."] // podman makes the root 0555, whatever the layer says
		sameTree(t, want, likePodman(want, got))
	})
	t.Run("written", func(t *testing.T) {
		writable := s.mount("--name", "untouched", ref)
		sameTree(t, got, tree(t, writable))
		s.ok("umount", "untouched")
		s.ok("rm", "untouched")
	})
	t.Run("tar", func(t *testing.T) {
		first := tarHash(t, m)
		if second := tarHash(t, m); second != first {
			t.Errorf("tar of the mount made twice differs: %s, %s", first, second)
		}
		s.ok("umount", "tree")
		again := s.mount("tree")
		if third := tarHash(t, again); third != first {
			t.Errorf("tar of the mount differs after it was mounted again: %s, %s", first, third)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		m := mountsBelow(t, s.root)[0]
		if err := os.WriteFile(filepath.Join(m, "x"), nil, 0o600); err == nil {
			t.Error("a file was made in a read-only mount")
		}
		if err := unix.Chmod(filepath.Join(m, "etc/passwd"), 0o600); err == nil {
			t.Error("a file's mode was changed in a read-only mount")
		}
	})
	s.ok("umount", "tree")
	s.ok("rm", "tree")
}

// likePodman gives a tree what podman makes of two things where it does not keep to the layers: a directory that a layer
// implies but does not list is new, of the time of the pull, and a time before 1970 becomes 0.
func likePodman(podman, got map[string]entry) map[string]entry {
	adapted := maps.Clone(got)
	for name, e := range adapted {
		p := podman[name]
		if p.mode&e.mode&unix.S_IFMT == unix.S_IFDIR && p.mtime > e.mtime {
			adapted[name] = p
		}
		if strings.HasPrefix(e.mtime, "-") && p.mtime == "0.000000000" {
			e.mtime = p.mtime
			adapted[name] = e
		}
	}
	return adapted
}

// tarHash is the hash of a tar of a tree in the order in which its directories are listed.
func tarHash(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	cmd := exec.CommandContext(t.Context(), "tar", "--create", "--file=-", "--format=posix", "--pax-option=delete=atime,delete=ctime",
		"--numeric-owner", "--xattrs", "--xattrs-include=*", "--directory", dir, ".")
	var errOut strings.Builder
	cmd.Stdout, cmd.Stderr = h, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("tar: %v: %s", err, errOut.String())
	}
	return hex.EncodeToString(h.Sum(nil))
}

// podman is a podman with storage of its own that goes with the test.
type podman struct {
	t    *testing.T
	args []string
}

func newPodman(t *testing.T) *podman {
	t.Helper()
	dir := t.TempDir()
	graph := filepath.Join(dir, "graph")
	p := &podman{t, []string{
		"--root", graph, "--runroot", filepath.Join(dir, "run"), "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs",
		"--tmpdir", filepath.Join(dir, "tmp"),
	}}
	t.Cleanup(func() {
		for _, m := range mountsBelow(t, dir) {
			if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", m, err)
			}
		}
	})
	return p
}

func (p *podman) run(args ...string) string {
	p.t.Helper()
	return tool(p.t, "podman", append(p.args[:len(p.args):len(p.args)], args...)...)
}
