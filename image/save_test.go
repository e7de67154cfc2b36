package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/layerstore"
)

// saveStore has two images that share a layer: debian:12, which is also debian:bookworm, and team/app.
func saveStore(t *testing.T) (st *layerstore.Store, debian, app pushed) {
	t.Helper()
	s := newServer(t)
	st = newStore(t)
	shared := newLayer(t, 1, 50_000)
	debian = library(t, st, s, "debian:12", testImage{layers: []testLayer{shared}, docker: true})
	app = library(t, st, s, "team/app", testImage{layers: []testLayer{shared, newLayer(t, 2, 100), newLayer(t, 2, 100)}})
	if err := st.TagImage(t.Context(), debian.config.String(), "docker.io/library/debian:bookworm"); err != nil {
		t.Fatal(err)
	}
	return st, debian, app
}

func save(t *testing.T, st *layerstore.Store, format Format, refs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Save(t.Context(), st, &b, format, refs); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// untar reads an archive and checks that each name comes once.
func untar(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[h.Name]; twice {
			t.Errorf("%s comes twice", h.Name)
		}
		if !h.ModTime.Equal(time.Unix(0, 0)) || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s: %+v", h.Name, h)
		}
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSaveDocker(t *testing.T) {
	st, debian, app := saveStore(t)
	b := save(t, st, DockerArchive, "debian", "team/app")
	files := untar(t, b)
	var entries []dockerEntry
	if err := json.Unmarshal(files["manifest.json"], &entries); err != nil {
		t.Fatal(err)
	}
	tags := map[string]pushed{"debian:12 debian:bookworm": debian, "team/app:latest": app}
	for _, e := range entries {
		im, ok := tags[strings.Join(e.RepoTags, " ")]
		if !ok {
			t.Fatalf("tags %v", e.RepoTags)
		}
		delete(tags, strings.Join(e.RepoTags, " "))
		if e.Config != im.config.Encoded()+".json" || digest.FromBytes(files[e.Config]) != im.config {
			t.Errorf("config %s", e.Config)
		}
		for i, l := range e.Layers {
			if !bytes.Equal(files[l], im.layers[i].tar) {
				t.Errorf("layer %s of %v is another", l, e.RepoTags)
			}
		}
	}
	var repositories map[string]map[string]string
	if err := json.Unmarshal(files["repositories"], &repositories); err != nil || len(repositories["debian"]) != 2 || repositories["team/app"]["latest"] == "" {
		t.Errorf("repositories %v (%v)", repositories, err)
	}
	if len(tags) != 0 || len(files) != 2+2+2 {
		t.Errorf("missing %v; files %d", tags, len(files))
	}
}

func TestSaveIsDeterministic(t *testing.T) {
	st, debian, app := saveStore(t)
	for _, f := range []Format{DockerArchive, OCIArchive} {
		first := save(t, st, f, "debian", "team/app")
		for range 3 {
			if !bytes.Equal(first, save(t, st, f, "team/app:latest", "debian:bookworm", "debian:12", app.config.String())) {
				t.Errorf("%s: saved again, it is another", f)
			}
		}
		byID := save(t, st, f, debian.config.Encoded()[:12])
		if bytes.Contains(byID, []byte("bookworm")) {
			t.Errorf("%s: saved by ID, it has names", f)
		}
	}
}

func TestSaveOCI(t *testing.T) {
	st, debian, app := saveStore(t)
	files := untar(t, save(t, st, OCIArchive, "debian:12", "team/app"))
	var ix ocispec.Index
	if err := json.Unmarshal(files["index.json"], &ix); err != nil {
		t.Fatal(err)
	}
	names := map[string]pushed{"docker.io/library/debian:12": debian, "docker.io/team/app:latest": app}
	for _, d := range ix.Manifests {
		im := names[d.Annotations[ocispec.AnnotationRefName]]
		raw := files["blobs/sha256/"+d.Digest.Encoded()]
		if digest.FromBytes(raw) != d.Digest || d.MediaType != ocispec.MediaTypeImageManifest {
			t.Errorf("manifest %+v", d)
		}
		if im.desc.MediaType == ocispec.MediaTypeImageManifest && !bytes.Equal(raw, im.raw) {
			t.Errorf("an OCI manifest became %s", raw)
		}
		if bytes.Contains(raw, []byte("docker")) {
			t.Errorf("Docker's media types in an OCI layout: %s", raw)
		}
		for _, l := range im.layers {
			if !bytes.Equal(files["blobs/sha256/"+l.digest().Encoded()], l.blob) {
				t.Errorf("layer %s", l.digest())
			}
		}
	}
	if len(ix.Manifests) != 2 || len(files) != 4+2+2+2 {
		t.Errorf("%d manifests, files %d", len(ix.Manifests), len(files))
	}
}

func TestSaveErrors(t *testing.T) {
	st, _, app := saveStore(t)
	var b bytes.Buffer
	err := Save(t.Context(), st, &b, DockerArchive, []string{"debian:12", "nothing"})
	if requireLine(t, err, "no such image: nothing"); b.Len() != 0 || !errors.Is(err, layerstore.ErrNotFound) {
		t.Errorf("%v; %d bytes", err, b.Len())
	}
	if err := Save(t.Context(), st, &b, "zip", []string{"debian:12"}); err == nil || b.Len() != 0 {
		t.Error("unknown format")
	}
	if err := Save(t.Context(), st, &b, OCIArchive, nil); err == nil {
		t.Error("no images")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Save(ctx, st, io.Discard, DockerArchive, []string{"debian:12"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	failing := errors.New("disk full")
	if err := Save(t.Context(), st, writer(func([]byte) (int, error) { return 0, failing }), DockerArchive, []string{"debian:12"}); !errors.Is(err, failing) {
		t.Error(err)
	}
	// A damaged tar must not leave the house.
	path := filepath.Join(st.Root(), "layers", "sha256", digest.FromBytes(app.layers[1].tar).Encoded()+".tar")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[1000] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	err = Save(t.Context(), st, io.Discard, DockerArchive, []string{"team/app"})
	if requireLine(t, err, "damaged"); !errors.Is(err, layerstore.ErrDigestMismatch) {
		t.Error(err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// TestSaveForSkopeo has skopeo read both archives, and checks that every layer arrives.
func TestSaveForSkopeo(t *testing.T) {
	st, debian, app := saveStore(t)
	dir := t.TempDir()
	for format, name := range map[Format]func(string) string{
		DockerArchive: func(familiar string) string { return familiar },
		OCIArchive: func(familiar string) string {
			r, err := ParseReference(familiar)
			if err != nil {
				t.Fatal(err)
			}
			return r.String()
		},
	} {
		file := filepath.Join(dir, string(format)+".tar")
		if err := os.WriteFile(file, save(t, st, format, "debian", "team/app"), 0o600); err != nil {
			t.Fatal(err)
		}
		for familiar, im := range map[string]pushed{"debian:12": debian, "debian:bookworm": debian, "team/app:latest": app} {
			to := filepath.Join(dir, string(format)+"-"+strings.NewReplacer("/", "-", ":", "-").Replace(familiar))
			run(t, "skopeo", "copy", "--insecure-policy", "--dest-decompress", string(format)+":"+file+":"+name(familiar), "dir:"+to)
			for _, l := range im.layers {
				got, err := os.ReadFile(filepath.Join(to, digest.FromBytes(l.tar).Encoded()))
				if err != nil || !bytes.Equal(got, l.tar) {
					t.Errorf("%s %s: layer %s: %v", format, familiar, l.digest(), err)
				}
			}
		}
	}
	// One image alone needs no name; from an OCI archive it comes with the very bytes.
	file := filepath.Join(dir, "one.tar")
	if err := os.WriteFile(file, save(t, st, OCIArchive, "team/app"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "skopeo", "copy", "--insecure-policy", "--preserve-digests", "oci-archive:"+file, "dir:"+filepath.Join(dir, "one"))
	if got, err := os.ReadFile(filepath.Join(dir, "one", "manifest.json")); err != nil || !bytes.Equal(got, app.raw) {
		t.Errorf("the manifest arrives as %s (%v)", got, err)
	}
}

// TestSaveForUmoci unpacks an OCI archive as a layout, and a docker archive converted to one.
func TestSaveForUmoci(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("umoci unpacks owners as root")
	}
	st, _, app := saveStore(t)
	dir := t.TempDir()
	layout, file := filepath.Join(dir, "layout"), filepath.Join(dir, "docker.tar")
	if err := os.Mkdir(layout, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(layout+".tar", save(t, st, OCIArchive, "team/app"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "tar", "-C", layout, "-xf", layout+".tar")
	if err := os.WriteFile(file, save(t, st, DockerArchive, "team/app"), 0o600); err != nil {
		t.Fatal(err)
	}
	converted := filepath.Join(dir, "converted")
	run(t, "skopeo", "copy", "--insecure-policy", "docker-archive:"+file, "oci:"+converted+":x")
	run(t, "umoci", "tag", "--image", layout+":docker.io/team/app:latest", "x")
	for _, l := range []string{layout, converted} {
		run(t, "umoci", "unpack", "--image", l+":x", l+"-bundle")
		var names []string
		for _, i := range []int{0, 1} {
			tr := tar.NewReader(bytes.NewReader(app.layers[i].tar))
			for {
				h, err := tr.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				want, err := io.ReadAll(tr)
				if err != nil {
					t.Fatal(err)
				}
				if h.Typeflag != tar.TypeReg {
					continue
				}
				names = append(names, h.Name)
				got, err := os.ReadFile(filepath.Join(l+"-bundle", "rootfs", h.Name))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %v", h.Name, err)
				}
			}
		}
		if slices.Sort(names); len(names) != 2 {
			t.Errorf("files %v", names)
		}
	}
}
