package image

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/layerstore"
)

// library pulls images under names of Docker Hub, by putting them into the store as a pull would.
func library(t *testing.T, st *layerstore.Store, s *testServer, name string, im testImage) pushed {
	t.Helper()
	p := s.pushImage("tmp", "latest", im)
	o, _ := options()
	img, err := Pull(t.Context(), st, s.ref("tmp"), o)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.PutImage(t.Context(), ref.String(), img.ManifestBytes, img.MediaType, ref.Name()+"@"+img.Manifest.String()); err != nil {
		t.Fatal(err)
	}
	if _, err := Remove(t.Context(), st, s.ref("tmp"), layerstore.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestResolve(t *testing.T) {
	s, st := newServer(t), newStore(t)
	debian := library(t, st, s, "debian:12", testImage{layers: []testLayer{newLayer(t, 1, 10)}})
	team := library(t, st, s, "team/app", testImage{layers: []testLayer{newLayer(t, 2, 10)}, docker: true})
	id := debian.config.Encoded()
	for in, want := range map[string]pushed{
		"debian:12": debian, "docker.io/debian:12": debian, "docker.io/library/debian:12": debian, "index.docker.io/library/debian:12": debian,
		"team/app": team, "team/app:latest": team,
		id: debian, "sha256:" + id: debian, id[:12]: debian, "sha256:" + id[:12]: debian, id[:40]: debian,
		"debian@" + debian.desc.Digest.String(): debian, "debian:other@" + debian.desc.Digest.String(): debian,
	} {
		if img, err := Resolve(t.Context(), st, in); err != nil || img.ID != want.config {
			t.Errorf("%s: %s (%v)", in, img.ID, err)
		}
	}
	for _, in := range []string{"debian", "debian:13", "library/debian:12x", "ffffffffffff", "sha256:" + strings.Repeat("0", 64), "debian@" + someDigest, "ghcr.io/library/debian:12"} {
		_, err := Resolve(t.Context(), st, in)
		requireLine(t, err, "no such image: "+in, "plyfs pull "+in)
		if !errors.Is(err, layerstore.ErrNotFound) {
			t.Errorf("%s: %v", in, err)
		}
	}
	if _, err := Resolve(t.Context(), st, "Not A Name"); !errors.Is(err, ErrReference) {
		t.Error(err)
	}
}

// TestResolveAmbiguous makes IDs until two begin alike.
func TestResolveAmbiguous(t *testing.T) {
	s, st := newServer(t), newStore(t)
	seen := map[byte]bool{}
	for i := 0; ; i++ {
		p := library(t, st, s, "x:"+strings.Repeat("a", i+1), testImage{layers: []testLayer{newLayer(t, i, 5)}})
		first := p.config.Encoded()[0]
		if !seen[first] {
			seen[first] = true
			continue
		}
		if _, err := Resolve(t.Context(), st, string(first)); !errors.Is(err, layerstore.ErrAmbiguous) {
			t.Error(err)
		}
		// A name goes before an ID.
		name := string(first)
		if err := st.TagImage(t.Context(), p.config.String(), "docker.io/library/"+name+":latest"); err != nil {
			t.Fatal(err)
		}
		if img, err := Resolve(t.Context(), st, name); err != nil || img.ID != p.config {
			t.Errorf("%s: %s (%v)", name, img.ID, err)
		}
		return
	}
}

func TestListAndRemove(t *testing.T) {
	s, st := newServer(t), newStore(t)
	shared := newLayer(t, 1, 1000)
	first := library(t, st, s, "debian:12", testImage{layers: []testLayer{shared}})
	if err := st.TagImage(t.Context(), first.config.String(), "ghcr.io/me/debian:mine"); err != nil {
		t.Fatal(err)
	}
	second := s.pushImage("y", "latest", testImage{layers: []testLayer{shared, newLayer(t, 2, 10)}})
	o, _ := options()
	if _, err := Pull(t.Context(), st, s.ref("y@"+second.desc.Digest.String()), o); err != nil {
		t.Fatal(err)
	}
	list, err := List(t.Context(), st, ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(shared.tar))
	created := time.Unix(1_600_000_000, 0).UTC()
	want := map[Listing]bool{
		{"debian", "12", first.desc.Digest.String(), first.config, created, size}:                                          true,
		{"ghcr.io/me/debian", "mine", None, first.config, created, size}:                                                   true,
		{s.ref("y"), None, second.desc.Digest.String(), second.config, created, size + int64(len(newLayer(t, 2, 10).tar))}: true,
	}
	for _, l := range list {
		if !want[l] {
			t.Errorf("line %+v", l)
		}
		delete(want, l)
	}
	if len(want) != 0 {
		t.Errorf("missing %v", want)
	}

	if _, err := Remove(t.Context(), st, first.config.Encoded()[:12], layerstore.RemoveOptions{}); !errors.Is(err, layerstore.ErrMultipleNames) {
		t.Error(err)
	}
	removed, err := Remove(t.Context(), st, "debian:12", layerstore.RemoveOptions{})
	if err != nil || !slices.Equal(removed.Untagged, []string{"docker.io/library/debian:12", "docker.io/library/debian@" + first.desc.Digest.String()}) || len(removed.Deleted) != 0 {
		t.Errorf("%+v %v", removed, err)
	}
	removed, err = Remove(t.Context(), st, first.config.Encoded()[:12], layerstore.RemoveOptions{})
	if err != nil || len(removed.Untagged) != 1 || len(removed.Deleted) != 1 || removed.Deleted[0] != first.config {
		t.Errorf("%+v %v", removed, err)
	}
	_, err = Remove(t.Context(), st, "debian:12", layerstore.RemoveOptions{})
	if requireLine(t, err, "no such image: debian:12"); !errors.Is(err, layerstore.ErrNotFound) {
		t.Error(err)
	}
	img, err := Resolve(t.Context(), st, second.config.String())
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, second) // the layer they shared is kept
}
