package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/layerstore"
)

func loadOK(t *testing.T, st *layerstore.Store, archive []byte) []Loaded {
	t.Helper()
	loaded, err := Load(t.Context(), st, bytes.NewReader(archive), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantWhole(t, st)
	return loaded
}

func wantWhole(t testing.TB, st *layerstore.Store) {
	t.Helper()
	r, err := st.Check(t.Context())
	if err != nil || len(r.Problems) > 0 || r.Garbage > 0 {
		t.Errorf("the store is not whole: %+v, %v", r, err)
	}
}

// TestLoadSaved takes in what Save wrote: the same images under the same names, and saved again the same bytes.
func TestLoadSaved(t *testing.T) {
	st, debian, app := saveStore(t)
	for _, format := range []Format{DockerArchive, OCIArchive} {
		b := save(t, st, format, "debian", "team/app")
		to := newStore(t)
		loaded := loadOK(t, to, b)
		slices.SortFunc(loaded, func(a, b Loaded) int { return strings.Compare(a.Names[0], b.Names[0]) })
		want := []Loaded{
			{debian.config, []string{"docker.io/library/debian:12", "docker.io/library/debian:bookworm"}},
			{app.config, []string{"docker.io/team/app:latest"}},
		}
		if len(loaded) != 2 || loaded[0].ID != want[0].ID || !slices.Equal(loaded[0].Names, want[0].Names) || loaded[1].ID != want[1].ID {
			t.Errorf("%s: loaded %v, want %v", format, loaded, want)
		}
		again := save(t, to, format, "debian", "team/app")
		a, c := untar(t, b), untar(t, again)
		for n, content := range a {
			if n != "manifest.json" && !bytes.Equal(c[n], content) {
				t.Errorf("%s: %s differs when it is saved again", format, n)
			}
		}
		// Where the images are already, nothing comes twice and no image loses its manifest.
		before, err := st.ResolveImage(t.Context(), debian.config.String())
		if err != nil {
			t.Fatal(err)
		}
		loadOK(t, st, b)
		if after, err := st.ResolveImage(t.Context(), "docker.io/library/debian:12"); err != nil || format == DockerArchive && after.Manifest != before.Manifest {
			t.Errorf("%s: the manifest became %s, was %s (%v)", format, after.Manifest, before.Manifest, err)
		}
	}
}

func TestLoadSavedDir(t *testing.T) {
	st, debian, _ := saveStore(t)
	dir, to := t.TempDir(), newStore(t)
	if err := SaveDir(t.Context(), st, dir, []string{"debian:12"}); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadDir(t.Context(), to, dir, LoadOptions{})
	if err != nil || len(loaded) != 1 || loaded[0].ID != debian.config {
		t.Fatalf("%v, %v", loaded, err)
	}
	wantWhole(t, to)
}

// TestLoadGGCR takes in what crane's library writes: a docker archive of compressed layers, and a layout without names.
func TestLoadGGCR(t *testing.T) {
	st, debian, _ := saveStore(t)
	layoutDir, dir := t.TempDir(), t.TempDir()
	if err := SaveDir(t.Context(), st, layoutDir+"/x", nil); err == nil {
		t.Fatal("saved nothing")
	}
	if err := SaveDir(t.Context(), st, layoutDir, []string{"debian:12"}); err != nil {
		t.Fatal(err)
	}
	ix, err := layout.ImageIndexFromPath(layoutDir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ix.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var img v1.Image
	if img, err = ix.Image(m.Manifests[0].Digest); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("example.com/crane:1")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "crane.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	to := newStore(t)
	if loaded := loadOK(t, to, b); loaded[0].ID != debian.config || loaded[0].Names[0] != "example.com/crane:1" {
		t.Errorf("%v", loaded)
	}
}

// archiveOf makes a tar of named contents.
func archiveOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for n, data := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: n, Size: int64(len(data)), Mode: 0o644}
		if target, ok := strings.CutPrefix(data, "→"); ok {
			h.Typeflag, h.Linkname, h.Size, data = tar.TypeSymlink, target, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const (
	noLayersConfig = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`
	emptyTarID     = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef" // of 1024 zeros
	oneLayerConfig = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + emptyTarID + `"]}}`
)

// TestLoadLegacy: docker before 25 wrote a layer once more as a symlink, and paths with "./".
func TestLoadLegacy(t *testing.T) {
	st := newStore(t)
	loaded := loadOK(t, st, archiveOf(t, map[string]string{
		"./manifest.json": `[{"Config":"c.json","RepoTags":null,"Layers":["b/layer.tar"]}]`,
		"c.json":          oneLayerConfig, "a/layer.tar": strings.Repeat("\x00", 1024), "b/layer.tar": "→../a/layer.tar",
	}))
	if len(loaded) != 1 || len(loaded[0].Names) != 0 || loaded[0].ID != digest.FromString(oneLayerConfig) {
		t.Errorf("%v", loaded)
	}
}

// TestLoadRefuses: what is wrong is said in one line, and nothing of it stays.
func TestLoadRefuses(t *testing.T) {
	manifest := `[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]`
	bomb := func() []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		zeros := make([]byte, 1<<20)
		for range 2100 { // more than the 2 GiB that any archive may unpack to
			_, _ = w.Write(zeros)
		}
		_ = w.Close()
		return b.Bytes()
	}
	for what, c := range map[string]struct {
		archive []byte
		want    error
		say     string
	}{
		"nothing":       {nil, ErrArchive, "neither"},
		"text":          {bytes.Repeat([]byte("text "), 500), ErrArchive, "no tar"},
		"a rootfs":      {archiveOf(t, map[string]string{"etc/passwd": "x"}), ErrArchive, "plyfs import"},
		"old docker":    {archiveOf(t, map[string]string{"repositories": "{}"}), ErrUnsupported, "1.10"},
		"no config":     {archiveOf(t, map[string]string{"manifest.json": manifest}), ErrArchive, "lacks c.json"},
		"no layer":      {archiveOf(t, map[string]string{"manifest.json": manifest, "c.json": oneLayerConfig}), ErrArchive, "lacks l.tar"},
		"other layer":   {archiveOf(t, map[string]string{"manifest.json": manifest, "c.json": oneLayerConfig, "l.tar": strings.Repeat("\x00", 2048)}), layerstore.ErrDigestMismatch, "l.tar"},
		"layers differ": {archiveOf(t, map[string]string{"manifest.json": manifest, "c.json": noLayersConfig, "l.tar": ""}), ErrContent, "1 layers"},
		"a ring":        {archiveOf(t, map[string]string{"manifest.json": manifest, "c.json": "→d", "d": "→c.json"}), ErrArchive, "link"},
		"outside":       {archiveOf(t, map[string]string{"manifest.json": manifest, "c.json": "→/etc/passwd"}), ErrArchive, "lacks"},
		"no entries":    {archiveOf(t, map[string]string{"manifest.json": "[]"}), ErrArchive, "0 images"},
		"empty layout":  {archiveOf(t, map[string]string{"oci-layout": "{}", "index.json": `{"manifests":[]}`}), ErrArchive, "no image"},
		"huge manifest": {archiveOf(t, map[string]string{"manifest.json": strings.Repeat(" ", layerstore.MaxManifestSize+1)}), layerstore.ErrTooLarge, "manifest.json"},
		"broken gzip":   {[]byte("\x1f\x8b\x08 and then nothing of the kind"), ErrArchive, "compression"},
		"broken xz":     {[]byte("\xfd7zXZ\x00 and then nothing of the kind"), ErrArchive, "compression"},
		"bomb":          {bomb(), layerstore.ErrTooLarge, "bomb"},
	} {
		t.Run(what, func(t *testing.T) {
			st := newStore(t)
			_, err := Load(t.Context(), st, bytes.NewReader(c.archive), LoadOptions{})
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			requireLine(t, err, c.say)
			requireEmpty(t, st)
			wantWhole(t, st)
		})
	}
}

// TestLoadDirStaysInside: a directory's own symlinks lead nowhere else.
func TestLoadDirStaysInside(t *testing.T) {
	dir, st := t.TempDir(), newStore(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte(`[]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, dir+"/manifest.json"); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadDir(t.Context(), st, dir, LoadOptions{}); err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("a symlink was followed out of the directory: %v", err)
	}
}

// FuzzLoad gives any bytes as an archive: an error in one line, a whole store, nothing outside of it.
func FuzzLoad(f *testing.F) {
	logrus.SetLevel(logrus.ErrorLevel)
	layer := strings.Repeat("\x00", 1024)
	docker := map[string]string{"manifest.json": `[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]`, "c.json": oneLayerConfig, "l.tar": layer}
	config, layerID := digest.FromString(oneLayerConfig), digest.Digest(emptyTarID)
	m, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": len(oneLayerConfig)},
		"layers": []any{map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layerID, "size": 1024}},
	})
	if err != nil {
		f.Fatal(err)
	}
	blob := func(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }
	f.Add(archiveOf(f, docker))
	f.Add(archiveOf(f, map[string]string{
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, blob(config): oneLayerConfig, blob(layerID): layer, blob(digest.FromBytes(m)): string(m),
		"index.json": `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` +
			digest.FromBytes(m).String() + `","size":` + "500" + `}]}`,
	}))
	f.Add(archiveOf(f, map[string]string{"manifest.json": "→../../etc/passwd", "../x": "y"}))
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(archiveOf(f, docker))
	_ = w.Close()
	f.Add(packed.Bytes())
	f.Add([]byte("BZh91AY&SY"))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04"))
	f.Add([]byte("\x28\xb5\x2f\xfd\x00"))
	// One store for all: making it takes longer than a load. In memory, for it is synced again and again.
	dir := f.TempDir()
	if shm, err := os.MkdirTemp("/dev/shm", "fuzz-load-"); err == nil {
		f.Cleanup(func() { _ = os.RemoveAll(shm) })
		dir = shm
	}
	st, err := layerstore.Open(dir + "/store")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Load(context.Background(), st, bytes.NewReader(b), LoadOptions{}); err != nil && strings.ContainsAny(err.Error(), "\n\r\x1b") {
			t.Errorf("not one line: %q", err)
		}
		wantWhole(t, st)
	})
}
