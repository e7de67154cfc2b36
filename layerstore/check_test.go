package layerstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// TestCheckFinds harms a whole store in one way at a time.
func TestCheckFinds(t *testing.T) {
	l, p := gzipLayer(t, 50, 3, 5000), plainLayer(t, 51, 3, 5000)
	diff, blob := l.spec.DiffID.Encoded(), l.spec.Digest.Encoded()
	flip := func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, fileMode)
	}
	for name, c := range map[string]struct {
		harm func(s *Store, img Image, c Container) error
		want string // a part of the path that Check names
	}{
		"blob":        {func(s *Store, _ Image, _ Container) error { return flip(s.path(dirBlobs, blob)) }, blob},
		"tar":         {func(s *Store, _ Image, _ Container) error { return flip(s.path(dirLayers, diff+suffixTar)) }, diff + suffixTar},
		"index":       {func(s *Store, _ Image, _ Container) error { return flip(s.path(dirLayers, diff+suffixIdx)) }, diff + suffixIdx},
		"plain":       {func(s *Store, _ Image, _ Container) error { return flip(s.path(dirBlobs, p.spec.Digest.Encoded())) }, p.spec.Digest.Encoded()},
		"no blob":     {func(s *Store, _ Image, _ Container) error { return os.Remove(s.path(dirBlobs, blob)) }, nameIndex},
		"no tar":      {func(s *Store, _ Image, _ Container) error { return os.Remove(s.path(dirLayers, diff+suffixTar)) }, nameIndex},
		"no pair":     {func(s *Store, _ Image, _ Container) error { return os.Remove(s.path(dirLayers, blob+suffixDiff)) }, nameIndex},
		"no manifest": {func(s *Store, i Image, _ Container) error { return os.Remove(s.path(dirBlobs, i.Manifest.Encoded())) }, nameIndex},
		"config":      {func(s *Store, i Image, _ Container) error { return flip(s.path(dirBlobs, i.ID.Encoded())) }, nameIndex},
		"images":      {func(s *Store, _ Image, _ Container) error { return os.WriteFile(s.path(nameIndex), []byte("["), 0o600) }, nameIndex},
		"layout": {func(s *Store, _ Image, _ Container) error {
			return os.WriteFile(s.path(nameLayout), []byte("{}"), 0o600)
		}, nameLayout},
		"container": {func(s *Store, _ Image, c Container) error {
			return os.WriteFile(s.ContainerDir(c.ID)+"/container.json", nil, 0o600)
		}, "containers/"},
		"upper":      {func(s *Store, _ Image, c Container) error { return os.Remove(s.ContainerDir(c.ID) + "/upper") }, "containers/"},
		"stray blob": {func(s *Store, _ Image, _ Container) error { return os.WriteFile(s.path(dirBlobs, "x"), nil, 0o600) }, "blobs/sha256/x"},
		"blob a symlink": {func(s *Store, _ Image, _ Container) error {
			return os.Symlink("/etc/passwd", s.path(dirBlobs, strings.Repeat("a", 64)))
		}, "aaaa"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			mustIngest(t, s, l, p)
			img := putImage(t, s, refA, time.Unix(1, 0), l, p)
			ct, err := s.CreateContainer(context.Background(), Container{Image: img.ID, Manifest: img.Manifest, Layers: []Digest{l.spec.DiffID}})
			if err != nil {
				t.Fatal(err)
			}
			if r := wantWhole(t, s); r.Images != 1 || r.Containers != 1 || r.Blobs != 4 || r.Layers != 2 || r.Garbage != 0 {
				t.Errorf("%+v", r)
			}
			if err := c.harm(s, img, ct); err != nil {
				t.Fatal(err)
			}
			wantProblem(t, s, c.want)
		})
	}
}

func wantProblem(t *testing.T, s *Store, path string) {
	t.Helper()
	r, err := s.Check(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		if strings.Contains(p.Path, path) {
			return
		}
	}
	t.Errorf("%s is not among the problems: %+v", path, r)
}

func TestCheckStops(t *testing.T) {
	s := openStore(t)
	mustIngest(t, s, plainLayer(t, 52, 3, 5000))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestWriteBlob(t *testing.T) {
	s := openStore(t)
	d, err := s.WriteBlob([]byte("config"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := s.ReadBlob(d, 6); err != nil || !bytes.Equal(b, []byte("config")) {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := s.ReadBlob(d, 5); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v", err)
	}
	overwrite(t, s.path(dirBlobs, d.Encoded()), []byte("confix"))
	if _, err := s.ReadBlob(d, 100); !errors.Is(err, ErrDigestMismatch) {
		t.Errorf("%v", err)
	}
	if _, err := s.WriteBlob([]byte("config")); err != nil { // mends it
		t.Error(err)
	}
	if _, err := s.ReadBlob(d, 100); err != nil {
		t.Error(err)
	}
	if _, err := s.WriteBlob(make([]byte, MaxConfigSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v", err)
	}
	if _, err := s.OpenBlob(Digest("sha256:" + strings.Repeat("0", 64))); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := s.OpenBlob("../../etc/passwd"); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}
