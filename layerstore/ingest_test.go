package layerstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/overlay"
)

func TestIngest(t *testing.T) {
	big := makeTar(t, 1, 40, 100_000)
	half := len(big) / 2
	zeros := append(bytes.Clone(big), make([]byte, 3<<20)...)
	for name, l := range map[string]testLayer{
		"gzip":          layerOf(big, gzipped(t, big), v1.MediaTypeImageLayerGzip),
		"gzip members":  layerOf(big, append(gzipped(t, big[:half]), gzipped(t, big[half:])...), v1.MediaTypeImageLayerGzip),
		"zstd":          layerOf(big, zstded(t, big), v1.MediaTypeImageLayerZstd),
		"zstd frames":   layerOf(big, append(zstded(t, big[:half]), zstded(t, big[half:])...), v1.MediaTypeImageLayerZstd),
		"plain":         layerOf(big, big, v1.MediaTypeImageLayer),
		"mislabelled":   layerOf(big, zstded(t, big), v1.MediaTypeImageLayerGzip),
		"zeros at end":  layerOf(zeros, gzipped(t, zeros), v1.MediaTypeImageLayerGzip),
		"no files":      gzipLayer(t, 2, 0, 0),
		"plain, zeroes": layerOf(zeros, zeros, v1.MediaTypeImageLayer),
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			in, err := s.BeginLayer(context.Background(), l.spec)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyBuffer(struct{ io.Writer }{in}, bytes.NewReader(l.blob), make([]byte, 32_111)); err != nil {
				t.Fatal(err)
			}
			if s.HasLayer(l.spec) {
				t.Error("the layer is there before Commit")
			}
			if err := in.Commit(); err != nil {
				t.Fatal(err)
			}
			if !s.HasLayer(l.spec) {
				t.Error("the layer is not there")
			}
			wantWhole(t, s)
			got, err := os.ReadFile(s.path(dirLayers, l.spec.DiffID.Encoded()+suffixTar))
			if err != nil || !bytes.Equal(got, l.tar) {
				t.Errorf("the tar differs: %v", err)
			}
			if names, _ := os.ReadDir(s.path(dirIngest)); len(names) != 0 {
				t.Errorf("left in ingest: %v", names)
			}
			if _, err := s.BeginLayer(context.Background(), l.spec); !errors.Is(err, ErrExists) {
				t.Errorf("a second ingest: %v", err)
			}
			opened, err := s.OpenLayer(context.Background(), l.spec.DiffID)
			if err != nil {
				t.Fatal(err)
			}
			var a overlay.Attr
			if err := opened.Attr(overlay.RootEntry, &a); err != nil {
				t.Error(err)
			}
			if err := opened.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPlainLayerIsOneFile(t *testing.T) {
	s := openStore(t)
	l := plainLayer(t, 3, 4, 1000)
	mustIngest(t, s, l)
	var a, b syscall.Stat_t
	if err := errors.Join(syscall.Stat(s.path(dirBlobs, l.spec.Digest.Encoded()), &a),
		syscall.Stat(s.path(dirLayers, l.spec.DiffID.Encoded()+suffixTar), &b)); err != nil {
		t.Fatal(err)
	}
	if a.Ino != b.Ino {
		t.Error("blob and tar of an uncompressed layer are two files")
	}
	if a.Mode&0o777 != 0o600 {
		t.Errorf("mode %o", a.Mode)
	}
}

// ingestError takes in what must fail and checks that the store is as before.
func ingestError(t *testing.T, s *Store, l testLayer, want ...error) {
	t.Helper()
	err := ingest(s, l)
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("got %v, want %v", err, w)
		}
	}
	if err != nil {
		t.Log(err)
		if bytes.ContainsRune([]byte(err.Error()), '\n') {
			t.Errorf("an error of several lines: %v", err)
		}
	}
	if s.HasLayer(l.spec) {
		t.Error("the layer is there")
	}
	if names, _ := os.ReadDir(s.path(dirIngest)); len(names) != 0 {
		t.Errorf("left in ingest: %v", names)
	}
	wantWhole(t, s)
}

func TestIngestBadContent(t *testing.T) {
	good := gzipLayer(t, 4, 30, 50_000)
	with := func(blob []byte) testLayer { return layerOf(good.tar, blob, v1.MediaTypeImageLayerGzip) }
	flipped := bytes.Clone(good.blob)
	flipped[len(flipped)/2] ^= 1
	crc := bytes.Clone(good.blob)
	crc[len(crc)-6] ^= 1
	wrongDigest, wrongDiff, wrongSize := good, good, good
	wrongDigest.spec.Digest = digest.FromString("other")
	wrongDiff.spec.DiffID = digest.FromString("other")
	wrongSize.spec.Size = good.spec.Size - 1
	notTar := bytes.Repeat([]byte("no tar"), 1000)
	bomb := good
	bomb.spec.MaxUnpacked = int64(len(good.tar)) - 1
	for name, c := range map[string]struct {
		l    testLayer
		want error
	}{
		"digest":           {wrongDigest, ErrDigestMismatch},
		"diffID":           {wrongDiff, ErrDigestMismatch},
		"too long":         {wrongSize, ErrTooLarge},
		"flipped":          {with(flipped), ErrCorrupt},
		"crc":              {with(crc), ErrCorrupt},
		"truncated":        {with(good.blob[:len(good.blob)-20]), ErrCorrupt},
		"truncated member": {with(good.blob[:len(good.blob)-2]), ErrCorrupt},
		"trailing garbage": {with(append(bytes.Clone(good.blob), "garbage"...)), ErrCorrupt},
		"zstd garbage":     {layerOf(good.tar, append(zstded(t, good.tar), "garbage"...), v1.MediaTypeImageLayerZstd), ErrCorrupt},
		"neither":          {with([]byte("something else")), ErrCorrupt},
		"empty":            {with(nil), ErrCorrupt},
		"no tar":           {layerOf(notTar, gzipped(t, notTar), v1.MediaTypeImageLayerGzip), ErrCorrupt},
		"no tar, plain":    {layerOf(notTar, notTar, v1.MediaTypeImageLayer), ErrCorrupt},
		"bomb":             {bomb, ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) { ingestError(t, openStore(t), c.l, c.want) })
	}
}

func TestIngestSpec(t *testing.T) {
	s := openStore(t)
	good := gzipLayer(t, 4, 1, 10).spec
	for name, change := range map[string]func(*LayerSpec){
		"no digest": func(l *LayerSpec) { l.Digest = "" },
		"traversal": func(l *LayerSpec) {
			l.Digest = "sha256:../../../../../../../../../../../../../../../../../../../../../../x"
		},
		"sha512":      func(l *LayerSpec) { l.Digest = Digest("sha512:" + strings.Repeat("a", 128)) },
		"upper case":  func(l *LayerSpec) { l.Digest = "sha256:" + Digest(bytes.ToUpper([]byte(l.Digest.Encoded()))) },
		"no diffID":   func(l *LayerSpec) { l.DiffID = "" },
		"negative":    func(l *LayerSpec) { l.Size = -1 },
		"2^62":        func(l *LayerSpec) { l.Size = 1 << 62 },
		"short diff":  func(l *LayerSpec) { l.DiffID = "sha256:abcd" },
		"other words": func(l *LayerSpec) { l.Digest = "latest" },
	} {
		spec := good
		change(&spec)
		if _, err := s.BeginLayer(context.Background(), spec); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if s.HasLayer(spec) || s.HasBlob(spec.Digest) && name != "negative" && name != "2^62" {
			t.Errorf("%s is there", name)
		}
	}
}

func TestIngestPanicIsAnError(t *testing.T) {
	p := newPipeline()
	p.stage(func() error { panic("boom") })
	p.wg.Wait()
	if err := p.failure(); err == nil || !errors.Is(err, overlay.ErrCorrupt) {
		t.Errorf("%v", err)
	}
}
