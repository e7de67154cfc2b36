package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
)

// push puts bytes into the registry as they are, by the requests of the distribution spec.
func (s *testServer) push(method, path, contentType string, body []byte) {
	s.t.Helper()
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	s.next.ServeHTTP(w, r)
	if w.Code != http.StatusCreated {
		s.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
}

func (s *testServer) pushBlob(repo string, b []byte) digest.Digest {
	s.t.Helper()
	d := digest.FromBytes(b)
	s.push(http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), "application/octet-stream", b)
	return d
}

func (s *testServer) pushManifest(repo, tag, mediaType string, v any) (digest.Digest, []byte) {
	s.t.Helper()
	b, ok := v.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(v); err != nil {
			s.t.Fatal(err)
		}
	}
	s.push(http.MethodPut, "/v2/"+repo+"/manifests/"+tag, mediaType, b)
	return digest.FromBytes(b), b
}

// testLayer is a layer in both forms.
type testLayer struct {
	blob, tar []byte
	mediaType string
}

func (l testLayer) digest() digest.Digest { return digest.FromBytes(l.blob) }

var layerCache sync.Map // of [2]int to testLayer

// newLayer makes a layer with one file of size bytes that do not compress.
func newLayer(t *testing.T, seed, size int) testLayer {
	t.Helper()
	cached, _ := layerCache.Load([2]int{seed, size})
	if l, ok := cached.(testLayer); ok {
		return l
	}
	l := makeLayer(t, seed, size)
	layerCache.Store([2]int{seed, size}, l)
	return l
}

func makeLayer(t *testing.T, seed, size int) testLayer {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(r.Uint32())
	}
	var plain bytes.Buffer
	tw := tar.NewWriter(&plain)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755, ModTime: time.Unix(1e9, 0)},
		{Typeflag: tar.TypeReg, Name: fmt.Sprintf("etc/file%d", seed), Mode: 0o644, Size: int64(size), ModTime: time.Unix(1e9, 0)},
	} {
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tw.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	if _, err := gz.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return testLayer{packed.Bytes(), plain.Bytes(), ocispec.MediaTypeImageLayerGzip}
}

// testImage is what a test pushes.
type testImage struct {
	platform ocispec.Platform
	docker   bool
	layers   []testLayer
	edit     func(*ocispec.Manifest)
}

// pushed is what the registry has of it.
type pushed struct {
	desc     ocispec.Descriptor
	config   digest.Digest
	raw      []byte
	layers   []testLayer
	manifest ocispec.Manifest
}

func (s *testServer) pushImage(repo, tag string, im testImage) pushed {
	s.t.Helper()
	if im.platform.OS == "" {
		h := hostPlatform()
		im.platform = ocispec.Platform{OS: h.OS, Architecture: h.Architecture, Variant: h.Variant}
	}
	created := time.Unix(1_600_000_000, 0).UTC()
	cfg := ocispec.Image{Platform: im.platform, Created: &created, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	configType := ocispec.MediaTypeImageConfig
	if im.docker {
		m.MediaType, configType = dockerManifest, dockerConfig
	}
	for _, l := range im.layers {
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, digest.FromBytes(l.tar))
		mt := l.mediaType
		if im.docker {
			mt = dockerLayerGzip
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: mt, Digest: s.pushBlob(repo, l.blob), Size: int64(len(l.blob))})
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	m.Config = ocispec.Descriptor{MediaType: configType, Digest: s.pushBlob(repo, raw), Size: int64(len(raw))}
	if im.edit != nil {
		im.edit(&m)
	}
	d, b := s.pushManifest(repo, tag, m.MediaType, m)
	return pushed{
		desc:   ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(b)), Platform: &im.platform},
		config: m.Config.Digest, raw: b, layers: im.layers, manifest: m,
	}
}

func (s *testServer) pushIndex(repo, tag string, images ...pushed) digest.Digest {
	s.t.Helper()
	ix := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, im := range images {
		ix.Manifests = append(ix.Manifests, im.desc)
	}
	d, _ := s.pushManifest(repo, tag, ix.MediaType, ix)
	return d
}
