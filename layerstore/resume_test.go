package layerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// writePart begins the layer, writes up to the byte end, and leaves the session as stop says.
func writePart(t *testing.T, s *Store, l testLayer, end int, stop func(*LayerIngest) error) {
	t.Helper()
	in, err := s.BeginLayer(context.Background(), l.spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(l.blob[in.Offset():end]); err != nil {
		t.Fatal(err)
	}
	if err := stop(in); err != nil {
		t.Fatal(err)
	}
}

func TestResume(t *testing.T) {
	tarBytes := makeTar(t, 10, 60, 50_000)
	for name, l := range map[string]testLayer{
		"gzip":  layerOf(tarBytes, gzipped(t, tarBytes), v1.MediaTypeImageLayerGzip),
		"zstd":  layerOf(tarBytes, zstded(t, tarBytes), v1.MediaTypeImageLayerZstd),
		"plain": layerOf(tarBytes, tarBytes, v1.MediaTypeImageLayer),
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			for _, end := range []int{1, 300_000, 300_000, len(l.blob) - 1, len(l.blob)} {
				writePart(t, s, l, end, (*LayerIngest).Abort)
				names, _ := os.ReadDir(s.path(dirIngest))
				if len(names) != 1 {
					t.Errorf("after Abort ingest holds %v, want the partial file alone", names)
				}
				in, err := s.BeginLayer(context.Background(), l.spec)
				if err != nil {
					t.Fatal(err)
				}
				if in.Offset() != int64(end) {
					t.Errorf("offset %d, want %d", in.Offset(), end)
				}
				if err := in.Abort(); err != nil {
					t.Error(err)
				}
				wantWhole(t, s)
			}
			mustIngest(t, s, l)
			wantWhole(t, s)
		})
	}
}

func TestResumeRestart(t *testing.T) {
	s, l := openStore(t), gzipLayer(t, 11, 60, 50_000)
	writePart(t, s, l, 500_000, (*LayerIngest).Abort)
	in, err := s.BeginLayer(context.Background(), l.spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Restart(); err != nil || in.Offset() != 0 {
		t.Fatal(err, in.Offset())
	}
	if _, err := in.Write(l.blob); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, s)
}

func TestResumeDamaged(t *testing.T) {
	l := gzipLayer(t, 12, 60, 50_000)
	for name, damage := range map[string]func(b []byte) []byte{
		"flipped":  func(b []byte) []byte { b[len(b)/2] ^= 0x10; return b },
		"flip end": func(b []byte) []byte { b[len(b)-1] ^= 0x10; return b },
		"zeros":    func(b []byte) []byte { clear(b[len(b)/2:]); return b },
		"too long": func([]byte) []byte { return make([]byte, len(l.blob)+1) },
		"no gzip":  func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			part := damage(bytes.Clone(l.blob[:len(l.blob)*3/4]))
			if err := os.WriteFile(s.path(dirIngest, l.spec.Digest.Encoded()+suffixPartial), part, fileMode); err != nil {
				t.Fatal(err)
			}
			err := ingest(s, l)
			if errors.Is(err, ErrPartial) { // what it says to do
				wantWhole(t, s)
				err = ingest(s, l)
			}
			if err != nil {
				t.Fatal(err)
			}
			wantWhole(t, s)
		})
	}
}

func TestIngestDiscardAndShort(t *testing.T) {
	s, l := openStore(t), gzipLayer(t, 13, 60, 50_000)
	writePart(t, s, l, 500_000, (*LayerIngest).Discard)
	if names, _ := os.ReadDir(s.path(dirIngest)); len(names) != 0 {
		t.Errorf("left after Discard: %v", names)
	}
	in, err := s.BeginLayer(context.Background(), l.spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(l.blob[:500_000]); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Commit of a part: %v", err)
	}
	if _, err := in.Write(l.blob); !errors.Is(err, ErrClosed) {
		t.Errorf("Write after Commit: %v", err)
	}
	if err := errors.Join(in.Abort(), in.Discard()); err != nil {
		t.Error(err)
	}
	if in, err = s.BeginLayer(context.Background(), l.spec); err != nil || in.Offset() != 500_000 {
		t.Fatalf("offset %d after a short Commit: %v", in.Offset(), err)
	}
	if err := in.Abort(); err != nil {
		t.Error(err)
	}
}

func TestIngestContext(t *testing.T) {
	s, l := openStore(t), gzipLayer(t, 14, 60, 50_000)
	ctx, cancel := context.WithCancel(context.Background())
	in, err := s.BeginLayer(ctx, l.spec)
	if err != nil {
		t.Fatal(err)
	}
	// Another session of the same layer waits, until its own context ends.
	short, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer stop()
	if _, err := s.BeginLayer(short, l.spec); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a layer: %v", err)
	}
	if _, err := in.Write(l.blob[:300_000]); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-in.p.done
	if _, err := in.Write(l.blob[300_000:]); !errors.Is(err, context.Canceled) {
		t.Errorf("Write: %v", err)
	}
	if err := in.Commit(); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit: %v", err)
	}
	mustIngest(t, s, l)
	wantWhole(t, s)
}

func TestIngestSameLayerAtOnce(t *testing.T) {
	s, l := openStore(t), gzipLayer(t, 15, 60, 50_000)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = ingest(s, l)
		}()
	}
	wg.Wait()
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
		} else if !errors.Is(err, ErrExists) {
			t.Error(err)
		}
	}
	if done != 1 {
		t.Errorf("%d of 8 took the layer in, want 1", done)
	}
	wantWhole(t, s)
}

// Two compressions of one layer share the tar; so do a compressed and an uncompressed one.
func TestIngestOneTarOfSeveralBlobs(t *testing.T) {
	s, a := openStore(t), gzipLayer(t, 16, 10, 1000)
	b := layerOf(a.tar, zstded(t, a.tar), v1.MediaTypeImageLayerZstd)
	c := layerOf(a.tar, a.tar, v1.MediaTypeImageLayer)
	mustIngest(t, s, a, c, b)
	for _, l := range []testLayer{a, b, c} {
		if !s.HasLayer(l.spec) {
			t.Errorf("%s is not there", l.spec.Digest)
		}
	}
	if r := wantWhole(t, s); r.Layers != 1 || r.Blobs != 3 {
		t.Errorf("%d layers of %d blobs", r.Layers, r.Blobs)
	}
	mixed := a.spec
	mixed.DiffID = digest.FromString("other")
	if s.HasLayer(mixed) {
		t.Error("a blob is taken for that of another layer")
	}
}

// A spec that lies about a blob that is there must not harm the blob.
func TestIngestFromBlob(t *testing.T) {
	s, l := openStore(t), gzipLayer(t, 17, 20, 10_000)
	mustIngest(t, s, l)
	lie := l
	lie.spec.DiffID = digest.FromString("other")
	if err := ingest(s, lie); !errors.Is(err, ErrDigestMismatch) || errors.Is(err, ErrPartial) {
		t.Errorf("%v", err)
	}
	lie = l
	lie.spec.DiffID, lie.spec.MaxUnpacked = digest.FromString("other"), 10_000
	if err := ingest(s, lie); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v", err)
	}
	if !s.HasLayer(l.spec) {
		t.Fatal("the layer is gone")
	}
	// Without its tar the layer comes back from the blob, and nothing is fetched.
	if err := os.Remove(s.path(dirLayers, l.spec.DiffID.Encoded()+suffixTar)); err != nil {
		t.Fatal(err)
	}
	in, err := s.BeginLayer(context.Background(), l.spec)
	if err != nil {
		t.Fatal(err)
	}
	if in.Offset() != l.spec.Size {
		t.Errorf("offset %d", in.Offset())
	}
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, s)
	damageBlob(t, s, l)
}

func damageBlob(t *testing.T, s *Store, l testLayer) {
	t.Helper()
	bad := bytes.Clone(l.blob)
	bad[len(bad)/2] ^= 1
	if err := errors.Join(os.WriteFile(s.path(dirBlobs, l.spec.Digest.Encoded()), bad, fileMode),
		os.Remove(s.path(dirLayers, l.spec.DiffID.Encoded()+suffixTar))); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 2 {
		if err = ingest(s, l); err == nil {
			break
		}
	}
	if err != nil {
		t.Error(fmt.Errorf("a damaged blob is not fetched again: %w", err))
	}
	wantWhole(t, s)
}
