package layerstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	refA = "docker.io/library/a:1"
	refB = "docker.io/library/b:1"
	refC = "example.com:5000/team/c:1"
)

func TestPutImage(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	l, top := gzipLayer(t, 20, 3, 5000), plainLayer(t, 21, 2, 100)
	mustIngest(t, s, l, top)
	old := putImage(t, s, refA, time.Unix(100, 0), l)
	if old.Size != int64(len(l.tar)) || old.Layers[0].DiffID != l.spec.DiffID || old.Layers[0].Digest != l.spec.Digest {
		t.Errorf("%+v", old)
	}
	m := makeImage(t, s, time.Unix(200, 0), l, top)
	repo := "docker.io/library/a@" + string(digest.FromString("an index"))
	img, err := s.PutImage(ctx, refA, m, v1.MediaTypeImageManifest, repo)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.TagImage(ctx, refA, refC); err != nil {
		t.Fatal(err)
	}
	images, err := s.Images(ctx)
	if err != nil || len(images) != 2 {
		t.Fatalf("%d images: %v", len(images), err)
	}
	if images[0].ID != img.ID || !slices.Equal(images[0].Names, []string{refA, refC}) || !slices.Equal(images[0].RepoDigests, []string{repo}) {
		t.Errorf("newest: %+v", images[0])
	}
	if images[1].ID != old.ID || len(images[1].Names) != 0 {
		t.Errorf("the image that lost its name: %+v", images[1])
	}
	if !bytes.Equal(images[0].ManifestBytes, m) {
		t.Error("the manifest is not kept as it was")
	}
	id := img.ID.Encoded()
	for _, q := range []string{refA, refC, repo, string(img.ID), id, id[:12], "sha256:" + id[:7], string(img.Manifest)} {
		got, err := s.ResolveImage(ctx, q)
		if err != nil || got.ID != img.ID {
			t.Errorf("%s: %s, %v", q, got.ID, err)
		}
	}
	for _, q := range []string{"", "docker.io/library/a:2", "zzz", "sha256:", strings.Repeat("0", 64), strings.Repeat("0", 99)} {
		if _, err := s.ResolveImage(ctx, q); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", q, err)
		}
	}
	wantWhole(t, s)
}

func TestResolveAmbiguous(t *testing.T) {
	s := openStore(t)
	seen := map[byte]bool{}
	for i := range 17 { // two of 17 IDs begin with the same digit
		img := putImage(t, s, "", time.Unix(int64(i), 0))
		c := img.ID.Encoded()[0]
		if seen[c] {
			if _, err := s.ResolveImage(context.Background(), string(c)); !errors.Is(err, ErrAmbiguous) {
				t.Errorf("%c: %v", c, err)
			}
			return
		}
		seen[c] = true
	}
	t.Error("no two IDs of 17 share a digit")
}

func TestPutImageRefusals(t *testing.T) {
	s := openStore(t)
	l := gzipLayer(t, 22, 2, 100)
	m := makeImage(t, s, time.Unix(1, 0), l)
	put := func(name string, b []byte, mediaType string) error {
		_, err := s.PutImage(context.Background(), name, b, mediaType, "")
		return err
	}
	if err := put(refA, m, v1.MediaTypeImageManifest); !errors.Is(err, ErrNotFound) {
		t.Errorf("without its layer: %v", err)
	}
	mustIngest(t, s, l)
	if err := put(refA, m, mediaDockerManifest); !errors.Is(err, ErrInvalid) {
		t.Errorf("media type: %v", err)
	}
	for _, name := range []string{"a b", "a\nb", "a\x1b[31m", strings.Repeat("a", 2000), "ä"} {
		if err := put(name, m, v1.MediaTypeImageManifest); !errors.Is(err, ErrInvalid) {
			t.Errorf("name %.10q: %v", name, err)
		}
	}
	replace := func(old, with string) []byte { return bytes.Replace(m, []byte(old), []byte(with), 1) }
	for what, b := range map[string][]byte{
		"no JSON":          []byte("{"),
		"null":             []byte("null"),
		"schema 1":         replace(`"schemaVersion":2`, `"schemaVersion":1`),
		"an index too":     replace(`{`, `{"manifests":[],`),
		"artifact":         replace(v1.MediaTypeImageConfig, "application/vnd.example.config"),
		"odd layer":        replace(v1.MediaTypeImageLayerGzip, "application/vnd.in-toto+json"),
		"negative size":    replace(`"size":`, `"size":-`),
		"config too large": replace(`"size":`, `"size":999999999`),
		"layer size":       replace(`"size":`+jsonNumber(l.spec.Size), `"size":1`),
		"traversal":        replace(l.spec.Digest.Encoded(), "../../../../../../etc/passwd"),
		"no layers":        replace(`"layers":[`, `"layers":[],"x":[`),
		"twice the layer":  replace(`"layers":[`, `"layers":[`+jsonLayer(l)+`,`),
		"missing config":   replace(string(configDigest(t, m)), string(digest.FromString("x"))),
		"too long":         append(bytes.Clone(m), bytes.Repeat([]byte(" "), MaxManifestSize)...),
		"501 layers":       replace(`"layers":[`, `"layers":[`+strings.Repeat(jsonLayer(l)+",", 500)),
	} {
		err := put(refA, b, v1.MediaTypeImageManifest)
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if images, err := s.Images(context.Background()); err != nil || len(images) != 0 {
		t.Errorf("%d images: %v", len(images), err)
	}
	wantWhole(t, s)
	if err := put(refA, m, v1.MediaTypeImageManifest); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func jsonNumber(n int64) string { b, _ := json.Marshal(n); return string(b) }

func jsonLayer(l testLayer) string {
	b, _ := json.Marshal(descriptor{MediaType: l.spec.MediaType, Digest: l.spec.Digest, Size: l.spec.Size})
	return string(b)
}

func configDigest(t *testing.T, m []byte) Digest {
	t.Helper()
	var v v1.Manifest
	if err := json.Unmarshal(m, &v); err != nil {
		t.Fatal(err)
	}
	return v.Config.Digest
}

// dockerManifest is the same image as Docker describes it.
func dockerManifest(t *testing.T, s *Store, ls ...testLayer) []byte {
	t.Helper()
	m := string(makeImage(t, s, time.Unix(5, 0), ls...))
	return []byte(strings.NewReplacer(v1.MediaTypeImageManifest, mediaDockerManifest, v1.MediaTypeImageConfig, mediaDockerConfig,
		v1.MediaTypeImageLayerGzip, "application/vnd.docker.image.rootfs.diff.tar.gzip").Replace(m))
}

func TestSkopeoReadsTheStore(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	s := openStore(t)
	l, p := gzipLayer(t, 23, 3, 5000), plainLayer(t, 24, 2, 100)
	mustIngest(t, s, l, p)
	putImage(t, s, refA, time.Unix(1, 0), l, p)
	putImage(t, s, "", time.Unix(2, 0), l)
	if _, err := s.PutImage(context.Background(), refC, dockerManifest(t, s, l), mediaDockerManifest, ""); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]testLayer{refA: p, refC: l} {
		dir := filepath.Join(t.TempDir(), "out")
		cmd := exec.Command(skopeo, "copy", "--insecure-policy", "oci:"+s.Root()+":"+ref, "dir:"+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("skopeo copy of %s: %v\n%s", ref, err, out)
			continue
		}
		got, err := os.ReadFile(filepath.Join(dir, want.spec.Digest.Encoded()))
		if err != nil || !bytes.Equal(got, want.blob) {
			t.Errorf("%s: the layer differs: %v", ref, err)
		}
	}
}

// What another tool puts into index.json stays, and its blobs too.
func TestForeignEntryStays(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	a, b := openStore(t), openStore(t)
	l := gzipLayer(t, 25, 3, 5000)
	mustIngest(t, a, l)
	putImage(t, a, refA, time.Unix(1, 0), l)
	cmd := exec.Command(skopeo, "copy", "--insecure-policy", "oci:"+a.Root()+":"+refA, "oci:"+b.Root()+":foreign")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mustIngest(t, b, gzipLayer(t, 26, 1, 100))
	putImage(t, b, refB, time.Unix(1, 0), gzipLayer(t, 26, 1, 100))
	if _, err := b.Collect(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !b.HasBlob(l.spec.Digest) {
		t.Error("a blob of an image that skopeo put there was collected")
	}
	ix, err := b.readIndex()
	if err != nil || ix.named("foreign") == nil || ix.named(refB) == nil {
		t.Errorf("index.json lost an image: %v", err)
	}
}
