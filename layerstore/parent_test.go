package layerstore

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// An image from which another was made stays until that one goes, and goes with it when nothing else holds it.
func TestParents(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	low, mid, top := gzipLayer(t, 60, 2, 500), gzipLayer(t, 61, 2, 500), gzipLayer(t, 62, 2, 500)
	mustIngest(t, s, low, mid, top)
	a := putImage(t, s, refA, time.Unix(1, 0), low)
	b := putImage(t, s, "", time.Unix(2, 0), low, mid)
	c := putImage(t, s, refC, time.Unix(3, 0), low, mid, top)
	if err := s.SetParent(ctx, a.ID, b.ID); !errors.Is(err, ErrInvalid) {
		t.Errorf("a parent with more layers: %v", err)
	}
	for _, pair := range [][2]Digest{{b.ID, a.ID}, {c.ID, b.ID}} {
		if err := s.SetParent(ctx, pair[0], pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	if img, err := s.ResolveImage(ctx, refC); err != nil || img.Parent != b.ID {
		t.Errorf("the parent is %s, %v", img.Parent, err)
	}
	for _, force := range []bool{false, true} {
		if _, err := s.RemoveImage(ctx, string(a.ID), RemoveOptions{Force: force}); !errors.Is(err, ErrParent) {
			t.Errorf("a parent by its ID: %v", err)
		}
	}
	if rm, err := s.PruneImages(ctx, func(ImageSummary) (bool, error) { return false, nil }); err != nil || len(rm.Deleted) != 0 {
		t.Errorf("%+v, %v", rm, err)
	}
	dangling := func(img ImageSummary) (bool, error) { return len(img.Names) == 0, nil }
	if rm, err := s.PruneImages(ctx, dangling); err != nil || len(rm.Deleted) != 0 {
		t.Errorf("a parent was pruned: %+v, %v", rm, err)
	}
	rm, err := s.RemoveImage(ctx, refA, RemoveOptions{})
	if err != nil || !slices.Equal(rm.Untagged, []string{refA}) || len(rm.Deleted) != 0 {
		t.Errorf("a parent by its name: %+v, %v", rm, err)
	}
	list, err := s.ImageList(ctx)
	if err != nil || len(list) != 3 || list[0].HasChildren || !list[1].HasChildren || !list[2].HasChildren {
		t.Errorf("%+v, %v", list, err)
	}
	if err := s.TagImage(ctx, string(b.ID), refB); err != nil {
		t.Fatal(err)
	}
	rm, err = s.RemoveImage(ctx, refC, RemoveOptions{})
	if err != nil || !slices.Equal(rm.Deleted, []Digest{c.ID, top.spec.DiffID}) {
		t.Errorf("%+v, %v", rm, err)
	}
	rm, err = s.RemoveImage(ctx, refB, RemoveOptions{NoPrune: true})
	if err != nil || !slices.Equal(rm.Deleted, []Digest{b.ID, mid.spec.DiffID}) {
		t.Errorf("%+v, %v", rm, err)
	}
	mustIngest(t, s, mid)
	b = putImage(t, s, refB, time.Unix(2, 0), low, mid)
	if err := s.SetParent(ctx, b.ID, a.ID); err != nil {
		t.Fatal(err)
	}
	rm, err = s.RemoveImage(ctx, refB, RemoveOptions{})
	if err != nil || !slices.Equal(rm.Deleted, []Digest{b.ID, mid.spec.DiffID, a.ID, low.spec.DiffID}) {
		t.Errorf("with its parents: %+v, %v", rm, err)
	}
	if r := wantWhole(t, s); r.Garbage+r.Blobs+r.Layers != 0 {
		t.Errorf("%+v", r)
	}
}

func TestPruneImages(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	low, own, used := gzipLayer(t, 63, 2, 500), gzipLayer(t, 64, 2, 500), gzipLayer(t, 65, 2, 500)
	mustIngest(t, s, low, own, used)
	a := putImage(t, s, refA, time.Unix(1, 0), low)
	b := putImage(t, s, "", time.Unix(2, 0), low, own)
	c := putImage(t, s, "", time.Unix(3, 0), used)
	if _, err := s.CreateContainer(ctx, Container{Name: "user", Image: c.ID, Manifest: c.Manifest, Layers: []Digest{used.spec.DiffID}}); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("failure")
	if _, err := s.PruneImages(ctx, func(ImageSummary) (bool, error) { return true, failure }); !errors.Is(err, failure) {
		t.Error(err)
	}
	rm, err := s.PruneImages(ctx, func(img ImageSummary) (bool, error) { return len(img.Names) == 0, nil })
	if err != nil || !slices.Equal(rm.Deleted, []Digest{b.ID, own.spec.DiffID}) || rm.Freed == 0 {
		t.Errorf("%+v, %v", rm, err)
	}
	rm, err = s.PruneImages(ctx, func(ImageSummary) (bool, error) { return true, nil })
	if err != nil || !slices.Equal(rm.Untagged, []string{refA}) || !slices.Equal(rm.Deleted, []Digest{a.ID, low.spec.DiffID}) {
		t.Errorf("%+v, %v", rm, err)
	}
	if r := wantWhole(t, s); r.Images != 1 || r.Garbage != 0 {
		t.Errorf("%+v", r)
	}
}

// The digests of a repository go with its last tag, and one by one by themselves.
func TestRemoveDigests(t *testing.T) {
	ctx := context.Background()
	s, l := openStore(t), gzipLayer(t, 66, 2, 500)
	mustIngest(t, s, l)
	img := putImage(t, s, "docker.io/library/x:1", time.Unix(1, 0), l)
	digest := "docker.io/library/x@" + string(img.Manifest)
	for _, name := range []string{"docker.io/library/x:2", "r.example.org/y:1"} {
		if _, err := s.PutImage(ctx, name, img.ManifestBytes, img.MediaType, digest); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name     string
		untagged []string
		deleted  int
	}{
		{"docker.io/library/x:1", []string{"docker.io/library/x:1"}, 0},
		{"docker.io/library/x:2", []string{"docker.io/library/x:2", digest}, 0},
		{"r.example.org/y:1", []string{"r.example.org/y:1"}, 2},
	} {
		rm, err := s.RemoveImage(ctx, step.name, RemoveOptions{})
		if err != nil || !slices.Equal(rm.Untagged, step.untagged) || len(rm.Deleted) != step.deleted {
			t.Errorf("%s: %+v, %v", step.name, rm, err)
		}
	}
	mustIngest(t, s, l)
	img = putImage(t, s, "", time.Unix(1, 0), l)
	if _, err := s.PutImage(ctx, "", img.ManifestBytes, img.MediaType, digest); err != nil {
		t.Fatal(err)
	}
	if rm, err := s.RemoveImage(ctx, digest, RemoveOptions{}); err != nil || len(rm.Deleted) != 2 {
		t.Errorf("%+v, %v", rm, err)
	}
	wantWhole(t, s)
}
