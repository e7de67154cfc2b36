package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/testimage"
)

// engine runs podman and buildah on a storage of the test's own, with plyfs as its mount_program.
type engine struct {
	t    *testing.T
	root string
}

// newEngine has the Debian image as localhost/debian: its first layer alone, since containers/storage cannot unpack the
// odd ones.
func newEngine(t *testing.T) *engine {
	t.Helper()
	needMount(t)
	if testing.Short() {
		t.Skip("works on an image of 60 MB")
	}
	needTools(t, "podman", "buildah", "runc", "mmdebstrap", "umoci", "skopeo")
	img, err := testimage.Debian(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t, t.TempDir()}
	t.Cleanup(e.cleanUp)
	config := "[storage]\ndriver = \"overlay\"\ngraphroot = \"" + e.root + "/root\"\nrunroot = \"" + e.root + "/run\"\n" +
		"[storage.options.overlay]\nmount_program = \"" + plyfsBinary() + "\"\n"
	if err := os.WriteFile(e.root+"/storage.conf", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	e.podman("import", "-q", firstLayer(t, img.Layout), "localhost/debian")
	return e
}

// firstLayer is the file of the lowest layer of the only image in a layout.
func firstLayer(t *testing.T, layout string) string {
	t.Helper()
	type descriptor struct{ Digest string }
	read := func(path string, v any) {
		b, err := os.ReadFile(filepath.Join(layout, path))
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	blob := func(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }
	var index struct{ Manifests []descriptor }
	read("index.json", &index)
	var manifest struct{ Layers []descriptor }
	read(blob(index.Manifests[0]), &manifest)
	return filepath.Join(layout, blob(manifest.Layers[0]))
}

func (e *engine) cleanUp() {
	u := &union{t: e.t, dir: e.root}
	u.cleanUp()
}

func (e *engine) run(name string, args ...string) string {
	e.t.Helper()
	return strings.TrimSpace(tool(e.t, "env", append([]string{"CONTAINERS_STORAGE_CONF=" + e.root + "/storage.conf", name}, args...)...))
}

func (e *engine) podman(args ...string) string {
	e.t.Helper()
	return e.run("podman", append([]string{"--cgroup-manager=cgroupfs", "--events-backend=file"}, args...)...)
}

// limits are what a container may have where the one who runs it cannot have more.
var limits = []string{"--runtime", "runc", "--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000", "--network=host"}

// inContainer runs a script in a new container of an image.
func (e *engine) inContainer(image, script string) string {
	e.t.Helper()
	return e.podman(append(append([]string{"run", "--rm"}, limits...), image, "sh", "-ec", script)...)
}

// TestPodman runs, stops, starts, commits and builds.
func TestPodman(t *testing.T) {
	e := newEngine(t)
	if got := e.inContainer("localhost/debian", "grep -o 'fuse.plyfs' /proc/mounts | head -1; id -u; dpkg --verify; ls /usr/share/doc | wc -l"); !strings.HasPrefix(got, "fuse.plyfs\n0\n") {
		t.Errorf("in the container: %q", got)
	}
	// A container is mounted again with what it wrote, though podman mounts it volatile.
	e.podman(append(append([]string{"create", "--name", "c"}, limits...), "localhost/debian", "sh", "-ec",
		"echo x >> /count; cat /count; if [ -d /usr/share/doc ]; then rm -r /usr/share/doc; mv /etc/apt /etc/apt2; fi")...)
	for _, want := range []string{"x", "x\nx"} {
		if got := e.podman("start", "-a", "c"); got != want {
			t.Errorf("the container says %q, want %q", got, want)
		}
	}
	diff := e.podman("diff", "c")
	for _, want := range []string{"D /usr/share/doc", "A /count", "D /etc/apt", "A /etc/apt2", "A /etc/apt2/sources.list.d"} {
		if !strings.Contains("\n"+diff+"\n", "\n"+want+"\n") {
			t.Errorf("podman diff does not have %s: %q", want, diff)
		}
	}
	e.podman("commit", "-q", "c", "localhost/committed")
	if got := e.inContainer("localhost/committed", "cat /count; ls -d /usr/share/doc /etc/apt 2>/dev/null || true; ls -d /etc/apt2/sources.list.d"); got != "x\nx\n/etc/apt2/sources.list.d" {
		t.Errorf("what was committed: %q", got)
	}
	e.podman("rm", "-f", "c")
}

// TestPodmanBuild builds an image of a few layers.
func TestPodmanBuild(t *testing.T) {
	e := newEngine(t)
	context := t.TempDir()
	for name, text := range map[string]string{
		"file": "from outside\n",
		"Dockerfile": `FROM localhost/debian
RUN echo built > /built && ln /built /built2 && chmod 750 /srv && rm -r /usr/share/locale && useradd -m joe
COPY file /opt/file
RUN cat /built /opt/file > /both && mv /etc/apt /etc/apt2 && touch /etc/apt2/new && chmod u+s /usr/bin/env
USER joe
RUN touch ~/mine
`,
	} {
		if err := os.WriteFile(filepath.Join(context, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e.podman("build", "-q", "--isolation", "chroot", "--layers", "-t", "localhost/built", context)
	got := e.inContainer("localhost/built", `cat /both; stat -c '%a %h' /built /built2 /usr/bin/env; stat -c %a /srv
ls -d /usr/share/locale /etc/apt 2>/dev/null || true; ls /etc/apt2 | grep -c .; stat -c %U ~/mine`)
	if want := "built\nfrom outside\n644 2\n644 2\n4755 1\n750\n7\njoe"; got != want {
		t.Errorf("in the image: %q, want %q", got, want)
	}
}

// TestBuildah works in a container from without and within.
func TestBuildah(t *testing.T) {
	e := newEngine(t)
	buildah := func(args ...string) string { t.Helper(); return e.run("buildah", args...) }
	c := buildah("from", "localhost/debian")
	buildah("run", "--isolation", "chroot", c, "sh", "-ec", "useradd -m joe; su joe -c 'touch ~/mine'; rm /etc/motd")
	m := buildah("mount", c)
	var st unix.Stat_t
	if err := unix.Stat(m+"/home/joe/mine", &st); err != nil || st.Uid != 1000 {
		t.Errorf("joe's file: %+v, %v", st, err)
	}
	if err := os.WriteFile(m+"/from-without", []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
	buildah("umount", c)
	buildah("commit", "-q", c, "localhost/new")
	buildah("rm", c)
	if got := e.inContainer("localhost/new", "cat /from-without; ls /etc/motd 2>/dev/null || true; stat -c %U /home/joe/mine"); got != "xjoe" {
		t.Errorf("in the image: %q", got)
	}
}
