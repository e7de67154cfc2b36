package layerstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plyfs/plyfs/overlay"
)

func overwrite(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, fileMode); err != nil {
		t.Fatal(err)
	}
}

// lookInto opens a layer and finds a file in it.
func lookInto(s *Store, d Digest) error {
	l, err := s.OpenLayer(context.Background(), d)
	if err != nil {
		return err
	}
	it, err := l.Lookup(overlay.RootEntry, "d0")
	if err == nil {
		_, err = l.Lookup(it.Entry, "f0")
	}
	return errors.Join(err, l.Close())
}

func TestOpenLayerRebuilds(t *testing.T) {
	l := gzipLayer(t, 40, 30, 500)
	for name, harm := range map[string]func(idx []byte) []byte{
		"missing":    nil,
		"empty":      func([]byte) []byte { return nil },
		"truncated":  func(b []byte) []byte { return b[:len(b)/2] },
		"version":    func(b []byte) []byte { b[8] ^= 0xff; b[9] ^= 0xff; b[10] ^= 0xff; return b },
		"other tar":  func([]byte) []byte { return nil },
		"all zeroes": func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			var logged bytes.Buffer
			s.log.SetOutput(&logged)
			mustIngest(t, s, l)
			path := s.path(dirLayers, l.spec.DiffID.Encoded()+suffixIdx)
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case harm == nil:
				err = os.Remove(path)
			case name == "other tar":
				o := gzipLayer(t, 41, 5, 700)
				mustIngest(t, s, o)
				err = os.Rename(s.path(dirLayers, o.spec.DiffID.Encoded()+suffixIdx), path)
			default:
				err = os.WriteFile(path, harm(bytes.Clone(good)), fileMode)
			}
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			errs := make([]error, 4)
			for i := range errs {
				wg.Add(1)
				go func() { defer wg.Done(); errs[i] = lookInto(s, l.spec.DiffID) }()
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(logged.String(), "index again"); n != 1 {
				t.Errorf("rebuilt %d times, want 1: %s", n, logged.String())
			}
			if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, good) {
				t.Errorf("the new index differs from the old: %v", err)
			}
			if name != "other tar" {
				wantWhole(t, s)
			}
			if names, _ := os.ReadDir(s.path(dirIngest)); len(names) != 0 {
				t.Errorf("left in ingest: %v", names)
			}
		})
	}
}

func TestOpenLayerErrors(t *testing.T) {
	s, l := openStore(t), gzipLayer(t, 42, 30, 500)
	if _, err := s.OpenLayer(context.Background(), l.spec.DiffID); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	if _, err := s.OpenLayer(context.Background(), "sha256:x"); !errors.Is(err, ErrInvalid) {
		t.Errorf("no digest: %v", err)
	}
	mustIngest(t, s, l)
	overwrite(t, s.path(dirLayers, l.spec.DiffID.Encoded()+suffixTar), bytes.Repeat([]byte("x"), 5000))
	got, err := s.OpenLayer(context.Background(), l.spec.DiffID)
	if !errors.Is(err, ErrCorrupt) || got != nil {
		t.Errorf("a tar that is none: %v, %v", got, err)
	}
	if names, _ := os.ReadDir(s.path(dirIngest)); len(names) != 0 {
		t.Errorf("left in ingest: %v", names)
	}
}

func TestLayerID(t *testing.T) {
	if id := layerID("0123456789abcdef" + strings.Repeat("0", 48)); id != 0x0123456789abcdef {
		t.Errorf("%x", id)
	}
}

// BenchmarkOpenLayer opens and closes one layer of 20,000 files.
func BenchmarkOpenLayer(b *testing.B) {
	s := openStore(b)
	l := gzipLayer(b, 43, 20_000, 100)
	mustIngest(b, s, l)
	for b.Loop() {
		o, err := s.OpenLayer(context.Background(), l.spec.DiffID)
		if err != nil {
			b.Fatal(err)
		}
		if err := o.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIngest takes in a gzip layer of 128 MB.
func BenchmarkIngest(b *testing.B) {
	l := gzipLayer(b, 44, 640, 200_000)
	b.SetBytes(int64(len(l.tar)))
	for b.Loop() {
		s := openStore(b)
		mustIngest(b, s, l)
	}
}

// BenchmarkImages lists 1000 images.
func BenchmarkImages(b *testing.B) {
	s := openStore(b)
	for i := range 1000 {
		putImage(b, s, "docker.io/library/many:"+jsonNumber(int64(i)), time.Unix(int64(i), 0))
	}
	for b.Loop() {
		if images, err := s.Images(context.Background()); err != nil || len(images) != 1000 {
			b.Fatal(len(images), err)
		}
	}
}
