package layerstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"
	"time"
)

func mustLease(t testing.TB, s *Store) *Lease {
	t.Helper()
	lease, err := s.Lease(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

// TestImportLayer takes in a tar of unknown digest, keeps it through a collection while it is leased, and drops it after.
func TestImportLayer(t *testing.T) {
	s, l := openStore(t), plainLayer(t, 1, 30, 50_000)
	lease := mustLease(t, s)
	for range 2 { // the second finds it there
		spec, err := s.ImportLayer(t.Context(), lease, iotest.OneByteReader(bytes.NewReader(l.tar)), ImportOptions{DiffID: l.spec.DiffID})
		if err != nil {
			t.Fatal(err)
		}
		if spec != l.spec {
			t.Fatalf("%+v, want %+v", spec, l.spec)
		}
	}
	if _, err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !s.HasLayer(l.spec) {
		t.Fatal("a leased layer was collected")
	}
	img := putImage(t, s, "docker.io/library/imported:1", time.Unix(1, 0), l)
	if img.Size != int64(len(l.tar)) {
		t.Errorf("size %d", img.Size)
	}
	if err := lease.Release(); err != nil {
		t.Fatal(err)
	}
	if r := wantWhole(t, s); r.Garbage != 0 {
		t.Errorf("%d pieces of garbage", r.Garbage)
	}
	if names, _ := os.ReadDir(s.path(dirIngest)); len(names) != 0 {
		t.Errorf("left in ingest: %v", names)
	}
}

// TestImportLayerRefuses leaves nothing of what is no layer.
func TestImportLayerRefuses(t *testing.T) {
	l, other := plainLayer(t, 1, 30, 5000), plainLayer(t, 2, 3, 100)
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		r    io.Reader
		o    ImportOptions
		want error
	}{
		"no tar":       {bytes.NewReader(bytes.Repeat([]byte("x"), 2000)), ImportOptions{}, ErrCorrupt},
		"cut short":    {bytes.NewReader(l.tar[:len(l.tar)/2+7]), ImportOptions{}, ErrCorrupt},
		"too long":     {bytes.NewReader(l.tar), ImportOptions{MaxSize: 70_000}, ErrTooLarge},
		"another":      {bytes.NewReader(l.tar), ImportOptions{DiffID: other.spec.DiffID}, ErrDigestMismatch},
		"reader fails": {io.MultiReader(bytes.NewReader(l.tar[:70_000]), iotest.ErrReader(broken)), ImportOptions{}, broken},
	} {
		s := openStore(t)
		lease := mustLease(t, s)
		if _, err := s.ImportLayer(t.Context(), lease, c.r, c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err := lease.Release(); err != nil {
			t.Error(err)
		}
		for _, dir := range []string{dirIngest, dirBlobs, dirLayers} {
			if names, _ := os.ReadDir(s.path(dir)); len(names) != 0 {
				t.Errorf("%s: left in %s: %v", name, dir, names)
			}
		}
	}
}

// TestImportLayerBesideCompressed: a layer that came compressed is also there by its own digest then.
func TestImportLayerBesideCompressed(t *testing.T) {
	s, l := openStore(t), gzipLayer(t, 1, 30, 5000)
	mustIngest(t, s, l)
	lease := mustLease(t, s)
	defer lease.Release() //nolint:errcheck // the test's end
	if _, err := s.ImportLayer(t.Context(), lease, bytes.NewReader(l.tar), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	if !s.HasLayer(l.spec) {
		t.Error("the compressed form is gone")
	}
	wantWhole(t, s)
}

func TestTempFile(t *testing.T) {
	s := openStore(t)
	f, err := s.TempFile()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if names, _ := os.ReadDir(s.path(dirIngest)); len(names) != 0 {
		t.Errorf("it has a name: %v", names)
	}
	if _, err := f.WriteAt([]byte("x"), 10); err != nil {
		t.Error(err)
	}
}
