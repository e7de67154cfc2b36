package layerstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRemoveImage(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	shared, own := gzipLayer(t, 30, 3, 5000), gzipLayer(t, 31, 3, 5000)
	mustIngest(t, s, shared, own)
	a := putImage(t, s, refA, time.Unix(1, 0), shared, own)
	b := putImage(t, s, refB, time.Unix(2, 0), shared)
	if err := s.TagImage(ctx, refA, refC); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RemoveImage(ctx, "docker.io/library/none:1", RemoveOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := s.RemoveImage(ctx, a.ID.Encoded()[:12], RemoveOptions{}); !errors.Is(err, ErrMultipleNames) {
		t.Errorf("by ID with two names: %v", err)
	} else if !strings.Contains(err.Error(), "image is referenced in multiple repositories") {
		t.Error(err)
	}
	rm, err := s.RemoveImage(ctx, refC, RemoveOptions{})
	if err != nil || !slices.Equal(rm.Untagged, []string{refC}) || len(rm.Deleted) != 0 {
		t.Errorf("one of two names: %+v, %v", rm, err)
	}
	rm, err = s.RemoveImage(ctx, refA, RemoveOptions{})
	if err != nil || !slices.Equal(rm.Untagged, []string{refA}) || !slices.Equal(rm.Deleted, []Digest{a.ID, own.spec.DiffID}) || rm.Freed <= 0 {
		t.Errorf("the last name: %+v, %v", rm, err)
	}
	if s.HasBlob(own.spec.Digest) || s.HasBlob(a.ID) || s.HasBlob(a.Manifest) || !s.HasLayer(shared.spec) {
		t.Error("not what only the image had was deleted")
	}
	if r := wantWhole(t, s); r.Garbage != 0 {
		t.Errorf("%d pieces of garbage", r.Garbage)
	}
	if err := s.TagImage(ctx, refB, refC); err != nil {
		t.Fatal(err)
	}
	rm, err = s.RemoveImage(ctx, string(b.ID), RemoveOptions{Force: true})
	if err != nil || len(rm.Untagged) != 2 || len(rm.Deleted) != 2 {
		t.Errorf("forced by ID: %+v, %v", rm, err)
	}
	if r := wantWhole(t, s); r.Garbage+r.Blobs+r.Layers != 0 {
		t.Errorf("%+v", r)
	}
}

func TestRemoveImageInUse(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	l := gzipLayer(t, 32, 3, 5000)
	mustIngest(t, s, l)
	img := putImage(t, s, refA, time.Unix(1, 0), l)
	c, err := s.CreateContainer(ctx, Container{Name: "user", Image: img.ID, Manifest: img.Manifest, Layers: []Digest{l.spec.DiffID}})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{refA, string(img.ID)} {
		if _, err := s.RemoveImage(ctx, q, RemoveOptions{}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "user") {
			t.Errorf("%s: %v", q, err)
		}
	}
	if err := s.TagImage(ctx, refA, refB); err != nil {
		t.Fatal(err)
	}
	if rm, err := s.RemoveImage(ctx, refB, RemoveOptions{}); err != nil || len(rm.Untagged) != 1 || len(rm.Deleted) != 0 {
		t.Errorf("one of two names: %+v, %v", rm, err)
	}
	rm, err := s.RemoveImage(ctx, refA, RemoveOptions{Force: true})
	if err != nil || len(rm.Untagged) != 1 || len(rm.Deleted) != 0 || !s.HasLayer(l.spec) {
		t.Errorf("forced: %+v, %v", rm, err)
	}
	if _, err := s.RemoveImage(ctx, string(img.ID), RemoveOptions{Force: true}); !errors.Is(err, ErrInUse) {
		t.Errorf("dangling, forced: %v", err)
	}
	if _, err := s.Collect(ctx); err != nil || !s.HasLayer(l.spec) {
		t.Errorf("collected what a container uses: %v", err)
	}
	if err := s.RemoveContainer(ctx, c.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RemoveImage(ctx, string(img.ID), RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if r := wantWhole(t, s); r.Garbage+r.Blobs+r.Layers != 0 {
		t.Errorf("%+v", r)
	}
}

func TestCollectSparesRunningIngest(t *testing.T) {
	ctx := context.Background()
	s, l := openStore(t), gzipLayer(t, 33, 60, 50_000)
	other, err := Open(s.Root())
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.BeginLayer(ctx, l.spec)
	if err != nil {
		t.Fatal(err)
	}
	collect := func() {
		t.Helper()
		if _, err := other.Collect(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.Write(l.blob[:len(l.blob)/2]); err != nil {
		t.Fatal(err)
	}
	collect()
	if _, err := io.Copy(struct{ io.Writer }{in}, bytes.NewReader(l.blob[len(l.blob)/2:])); err != nil {
		t.Fatal(err)
	}
	lease, err := s.Lease(ctx, l.spec.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Pin(l.spec.DiffID); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	collect()
	if !s.HasLayer(l.spec) {
		t.Fatal("a leased layer was collected")
	}
	// An image of the same layer comes and goes: the lease still holds.
	putImage(t, s, refA, time.Unix(1, 0), l)
	if _, err := other.RemoveImage(ctx, refA, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if !s.HasLayer(l.spec) {
		t.Fatal("a leased layer was removed with an image")
	}
	if err := errors.Join(lease.Release(), lease.Release()); err != nil {
		t.Fatal(err)
	}
	if err := lease.Pin(l.spec.DiffID); !errors.Is(err, ErrClosed) {
		t.Errorf("Pin after Release: %v", err)
	}
	collect()
	if r := wantWhole(t, s); r.Garbage+r.Blobs+r.Layers != 0 {
		t.Errorf("%+v", r)
	}
}

// Collect deletes nothing on a guess.
func TestCollectRefusesDamagedImage(t *testing.T) {
	s, l := openStore(t), gzipLayer(t, 34, 3, 5000)
	mustIngest(t, s, l)
	img := putImage(t, s, refA, time.Unix(1, 0), l)
	overwrite(t, s.path(dirBlobs, img.Manifest.Encoded()), []byte("{}"))
	if _, err := s.Collect(context.Background()); !errors.Is(err, ErrDigestMismatch) || !strings.Contains(err.Error(), refA) {
		t.Errorf("%v", err)
	}
	if !s.HasLayer(l.spec) {
		t.Error("the layer is gone")
	}
	if _, err := s.RemoveImage(context.Background(), refA, RemoveOptions{}); err != nil {
		t.Errorf("a damaged image cannot be removed: %v", err)
	}
	if _, err := s.Collect(context.Background()); err != nil {
		t.Error(err)
	}
	if r := wantWhole(t, s); r.Garbage+r.Blobs+r.Layers != 0 {
		t.Errorf("%+v", r)
	}
}
