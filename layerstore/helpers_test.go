package layerstore

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.TempDir() + "/store")
	if err != nil {
		t.Fatal(err)
	}
	s.log = logrus.New()
	s.log.SetOutput(io.Discard)
	return s
}

// testLayer is a layer as a test makes it.
type testLayer struct {
	spec LayerSpec
	blob []byte
	tar  []byte
}

// makeTar makes a tar of n files of about size bytes, half compressible, the same for the same seed.
func makeTar(t testing.TB, seed uint64, n, size int) []byte {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, seed))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range n {
		data := make([]byte, size)
		for j := 0; j < size/2; j++ {
			data[j] = byte(rnd.Uint32())
		}
		h := &tar.Header{Name: fmt.Sprintf("d%d/f%d", i%7, i), Mode: 0o644, Size: int64(size), ModTime: time.Unix(1e9, 0), Uid: i}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

func layerOf(tarBytes, blob []byte, mediaType string) testLayer {
	return testLayer{LayerSpec{Digest: digest.FromBytes(blob), Size: int64(len(blob)), MediaType: mediaType, DiffID: digest.FromBytes(tarBytes)}, blob, tarBytes}
}

func gzipLayer(t testing.TB, seed uint64, n, size int) testLayer {
	b := makeTar(t, seed, n, size)
	return layerOf(b, gzipped(t, b), v1.MediaTypeImageLayerGzip)
}

func plainLayer(t testing.TB, seed uint64, n, size int) testLayer {
	b := makeTar(t, seed, n, size)
	return layerOf(b, b, v1.MediaTypeImageLayer)
}

func ingest(s *Store, l testLayer) error {
	in, err := s.BeginLayer(context.Background(), l.spec)
	if err != nil {
		return err
	}
	if _, err := in.Write(l.blob[in.Offset():]); err != nil {
		_ = in.Abort()
		return err
	}
	return in.Commit()
}

func mustIngest(t testing.TB, s *Store, ls ...testLayer) {
	t.Helper()
	for _, l := range ls {
		if err := ingest(s, l); err != nil {
			t.Fatal(err)
		}
	}
}

// makeImage stores a config and returns the manifest of an image of the layers.
func makeImage(t testing.TB, s *Store, created time.Time, ls ...testLayer) []byte {
	t.Helper()
	c := v1.Image{Created: &created}
	c.Architecture, c.OS = "amd64", "linux"
	c.RootFS.Type = "layers"
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for _, l := range ls {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.spec.DiffID)
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: l.spec.MediaType, Digest: l.spec.Digest, Size: l.spec.Size})
	}
	cb, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.WriteBlob(cb)
	if err != nil {
		t.Fatal(err)
	}
	m.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: d, Size: int64(len(cb))}
	mb, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return mb
}

func putImage(t testing.TB, s *Store, name string, created time.Time, ls ...testLayer) Image {
	t.Helper()
	img, err := s.PutImage(context.Background(), name, makeImage(t, s, created, ls...), v1.MediaTypeImageManifest, "")
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func wantWhole(t testing.TB, s *Store) Report {
	t.Helper()
	r, err := s.Check(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Errorf("the store is not whole: %s: %v", p.Path, p.Err)
	}
	return r
}
