package image

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/layerstore"
)

// multi is a registry with an image for three platforms, multi:latest.
type multi struct {
	*testServer
	amd64, armv6, arm64 pushed
	top                 digest.Digest
}

func newMulti(t *testing.T) multi {
	t.Helper()
	m := multi{testServer: newServer(t)}
	push := func(p ocispec.Platform, seed int) pushed {
		return m.pushImage("multi", p.Architecture+p.Variant, testImage{platform: p, layers: []testLayer{newLayer(t, seed, 100)}})
	}
	m.amd64 = push(ocispec.Platform{OS: "linux", Architecture: "amd64"}, 1)
	m.armv6 = push(ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}, 2)
	m.arm64 = push(ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, 3)
	m.top = m.pushIndex("multi", "latest", m.amd64, m.armv6, m.arm64)
	return m
}

// pull pulls for a platform what must be stored as want.
func (m multi) pull(st *layerstore.Store, tag, platform string, want pushed) layerstore.Image {
	m.t.Helper()
	o, _ := options()
	o.Platform = platform
	img, err := Pull(m.t.Context(), st, m.ref("multi:"+tag), o)
	if err != nil {
		m.t.Fatal(err)
	}
	requireStored(m.t, st, img, want)
	return img
}

func TestPullIndex(t *testing.T) {
	m := newMulti(t)
	for platform, want := range map[string]pushed{"linux/amd64": m.amd64, "linux/arm/v7": m.armv6, "linux/arm64": m.arm64, "linux/amd64/v3": m.amd64} {
		img := m.pull(newStore(t), "latest", platform, want)
		if !slices.Equal(img.RepoDigests, []string{m.ref("multi@" + m.top.String())}) {
			t.Errorf("repo digests %v", img.RepoDigests)
		}
	}
	// Another platform of an image that is there is another image.
	st := newStore(t)
	m.pull(st, "latest", "linux/amd64", m.amd64)
	m.pull(st, "latest", "linux/arm64", m.arm64)
}

// TestPullIndexAgain: of another tag of an image that is there, the index alone is asked for.
func TestPullIndexAgain(t *testing.T) {
	m, st := newMulti(t), newStore(t)
	m.pull(st, "latest", "linux/amd64", m.amd64)
	m.pushIndex("multi", "again", m.amd64, m.armv6)
	m.reset()
	m.pull(st, "again", "linux/amd64", m.amd64)
	if seen := m.seen(); len(seen) == 0 || seen[len(seen)-1].path != "/v2/multi/manifests/again" {
		t.Errorf("more than the index was asked for: %+v", seen)
	}
}

func TestPullIndexInIndex(t *testing.T) {
	m := newMulti(t)
	outer := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	inner := outer
	inner.Manifests = []ocispec.Descriptor{m.amd64.desc}
	d, raw := m.pushManifest("multi", "inner", inner.MediaType, inner)
	outer.Manifests = []ocispec.Descriptor{{MediaType: inner.MediaType, Digest: d, Size: int64(len(raw))}}
	m.pushManifest("multi", "outer", outer.MediaType, outer)
	m.pull(newStore(t), "outer", "linux/amd64", m.amd64)

	// Deeper than anybody needs.
	for range maxIndexDepth {
		d, raw = m.pushManifest("multi", "deep", outer.MediaType, outer)
		outer.Manifests = []ocispec.Descriptor{{MediaType: outer.MediaType, Digest: d, Size: int64(len(raw))}}
	}
	m.pushManifest("multi", "deep", outer.MediaType, outer)
	o, _ := options()
	_, err := Pull(t.Context(), newStore(t), m.ref("multi:deep"), o)
	if requireLine(t, err, "multi:deep", "deep"); !errors.Is(err, ErrContent) {
		t.Error(err)
	}
}

func TestPullIndexErrors(t *testing.T) {
	m, st := newMulti(t), newStore(t)
	o, _ := options()
	o.Platform = "linux/s390x"
	_, err := Pull(t.Context(), st, m.ref("multi"), o)
	requireLine(t, err, "multi:latest", "linux/s390x", "linux/amd64, linux/arm/v6, linux/arm64", "--platform")
	if !errors.Is(err, ErrNoPlatform) {
		t.Errorf("%v is not ErrNoPlatform", err)
	}
	wrong := m.amd64
	wrong.desc.Size++
	m.pushIndex("multi", "wrong", wrong)
	o.Platform = "linux/amd64"
	_, err = Pull(t.Context(), st, m.ref("multi:wrong"), o)
	if requireLine(t, err, "multi:wrong", short(m.amd64.desc.Digest), "bytes"); !errors.Is(err, ErrContent) {
		t.Error(err)
	}
	requireEmpty(t, st)
}

func TestPullPlatformOfSingleManifest(t *testing.T) {
	s, st := newServer(t), newStore(t)
	other := "arm64"
	if hostPlatform().Architecture == other {
		other = "amd64"
	}
	want := s.pushImage("one", "latest", testImage{platform: ocispec.Platform{OS: "linux", Architecture: other}, layers: []testLayer{newLayer(t, 1, 10)}})
	o, _ := options()
	o.Platform = "linux/s390x"
	_, err := Pull(t.Context(), st, s.ref("one"), o)
	if !errors.Is(err, ErrNoPlatform) {
		t.Fatalf("asked for by --platform: %v", err)
	}
	requireEmpty(t, st)
	o.Platform = ""
	log := &recorder{}
	o.Progress = log
	img, err := Pull(t.Context(), st, s.ref("one"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, want)
	if !strings.Contains(log.text(), "Warning: "+s.ref("one:latest")+" is made for linux/"+other) {
		t.Errorf("no warning in %q", log.text())
	}
}
