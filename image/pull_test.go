package image

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/layerstore"
)

func TestPullFormats(t *testing.T) {
	gzipped, other := newLayer(t, 1, 100_000), newLayer(t, 2, 300)
	plain := testLayer{gzipped.tar, gzipped.tar, ocispec.MediaTypeImageLayer}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zstded := testLayer{enc.EncodeAll(gzipped.tar, nil), gzipped.tar, ocispec.MediaTypeImageLayerZstd}
	for name, im := range map[string]testImage{
		"oci gzip":       {layers: []testLayer{gzipped, other}},
		"docker":         {layers: []testLayer{gzipped, other}, docker: true},
		"zstd":           {layers: []testLayer{zstded, other}},
		"uncompressed":   {layers: []testLayer{plain, other}},
		"repeated layer": {layers: []testLayer{other, gzipped, other, other}},
		"no layers":      {},
	} {
		t.Run(name, func(t *testing.T) {
			s, st := newServer(t), newStore(t)
			want := s.pushImage("a/b", "1.0", im)
			o, _ := options()
			log := &recorder{}
			o.Progress = log
			img, err := Pull(t.Context(), st, s.ref("a/b:1.0"), o)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range want.layers {
				if n := strings.Count(log.text(), short(l.digest())+" announced"); n != 1 {
					t.Errorf("a layer was announced %d times", n)
				}
				if !strings.Contains(log.text(), short(l.digest())+" Pull complete\n"+short(l.digest())+" done <nil>") {
					t.Errorf("a layer ended otherwise: %s", log.text())
				}
			}
			requireStored(t, st, img, want)
			if !slices.Equal(img.Names, []string{s.ref("a/b:1.0")}) || !slices.Equal(img.RepoDigests, []string{s.ref("a/b@" + want.desc.Digest.String())}) {
				t.Errorf("names %v, digests %v", img.Names, img.RepoDigests)
			}
			for _, l := range want.layers {
				if c := s.count(l.digest()); c.gets != 1 || c.bytes != int64(len(l.blob)) {
					t.Errorf("layer was served %+v, want once, %d bytes", c, len(l.blob))
				}
			}
		})
	}
}

func TestPullAgain(t *testing.T) {
	s, st := newServer(t), newStore(t)
	base := newLayer(t, 1, 5000)
	first := s.pushImage("app", "latest", testImage{layers: []testLayer{base}})
	o, _ := options()
	if _, err := Pull(t.Context(), st, s.ref("app"), o); err != nil {
		t.Fatal(err)
	}
	s.reset()
	img, err := Pull(t.Context(), st, s.ref("app"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, first)
	for _, r := range s.seen() {
		if r.method == http.MethodGet && r.path != "/v2/" {
			t.Errorf("an image that is there cost %s %s", r.method, r.path)
		}
	}

	// The tag moves: only the new layer comes, and the old image loses its name.
	second := s.pushImage("app", "latest", testImage{layers: []testLayer{base, newLayer(t, 2, 100)}})
	s.reset()
	img, err = Pull(t.Context(), st, s.ref("app"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, second)
	if c := s.count(base.digest()); c.gets != 0 {
		t.Errorf("a layer that is there was fetched: %+v", c)
	}
	old, err := st.ResolveImage(t.Context(), first.config.String())
	if err != nil || len(old.Names) != 0 {
		t.Errorf("the former image has names %v (%v)", old.Names, err)
	}
}

// TestPullMends: an image that has lost a layer is not up to date.
func TestPullMends(t *testing.T) {
	s, st := newServer(t), newStore(t)
	want := s.pushImage("app", "latest", testImage{layers: []testLayer{newLayer(t, 1, 5000)}})
	o, _ := options()
	img, err := Pull(t.Context(), st, s.ref("app"), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"layers/sha256/" + img.Layers[0].DiffID.Encoded() + ".tar", "blobs/sha256/" + img.Layers[0].Digest.Encoded()} {
		if err := os.Remove(st.Root() + "/" + file); err != nil {
			t.Fatal(err)
		}
		if img, err = Pull(t.Context(), st, s.ref("app"), o); err != nil {
			t.Fatal(err)
		}
		requireStored(t, st, img, want)
	}
}

func TestPullByDigest(t *testing.T) {
	s, st := newServer(t), newStore(t)
	want := s.pushImage("app", "1", testImage{layers: []testLayer{newLayer(t, 1, 100)}})
	s.pushImage("app", "2", testImage{layers: []testLayer{newLayer(t, 2, 100)}})
	o, _ := options()
	// The tag is of another image: the digest counts, and no tag is kept.
	ref := s.ref("app:2@" + want.desc.Digest.String())
	img, err := Pull(t.Context(), st, ref, o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, want)
	if len(img.Names) != 0 {
		t.Errorf("names %v", img.Names)
	}
	s.Close() // a digest that is there needs no registry
	if img, err = Pull(t.Context(), st, ref, o); err != nil || img.ID != want.config {
		t.Errorf("second pull: %v", err)
	}
	if img, err = Resolve(t.Context(), st, s.ref("app@"+want.desc.Digest.String())); err != nil || img.ID != want.config {
		t.Errorf("resolve: %v", err)
	}
}

// refusals are manifests that are not taken, what kind of error they are, and words of it.
var refusals = map[string]struct {
	edit  func(*ocispec.Manifest)
	raw   string
	mt    string
	kind  error
	words []string
}{
	"schema 1": {
		raw: `{"schemaVersion":1,"name":"x","fsLayers":[{"blobSum":"sha256:00"}],"history":[]}`, mt: dockerSchema1JWS,
		kind: ErrUnsupported, words: []string{"schema 1"},
	},
	"foreign layer": {
		edit: func(m *ocispec.Manifest) { m.Layers[0].MediaType = dockerForeignLayer + ".gzip" },
		kind: ErrUnsupported, words: []string{"foreign layer", "Windows"},
	},
	"unknown layer type": {
		edit: func(m *ocispec.Manifest) { m.Layers[0].MediaType = "application/x-\x1b[31mevil" },
		kind: ErrUnsupported, words: []string{`"application/x-[31mevil"`},
	},
	"artifact": {
		edit: func(m *ocispec.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" },
		kind: ErrUnsupported, words: []string{"no container image", "helm"},
	},
	"manifest and index at once": {
		raw:  `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{},"layers":[],"manifests":[]}`,
		kind: ErrContent, words: []string{"index too"},
	},
	"not JSON":   {raw: "<html>", kind: ErrContent, words: []string{"not JSON"}},
	"layer path": {edit: func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../x" }, kind: ErrContent, words: []string{"sha256:../../x"}},
	"layer size": {edit: func(m *ocispec.Manifest) { m.Layers[0].Size = -1 }, kind: ErrContent, words: []string{"-1 bytes"}},
	"config size": {
		edit: func(m *ocispec.Manifest) { m.Config.Size = layerstore.MaxConfigSize + 1 },
		kind: ErrContent, words: []string{"bytes"},
	},
	"config longer than said":  {edit: func(m *ocispec.Manifest) { m.Config.Size-- }, kind: ErrContent, words: []string{"longer"}},
	"config shorter than said": {edit: func(m *ocispec.Manifest) { m.Config.Size++ }, kind: ErrContent, words: []string{"bytes"}},
	"too many layers": {
		edit: func(m *ocispec.Manifest) { m.Layers = slices.Repeat(m.Layers, layerstore.MaxLayers+1) },
		kind: ErrUnsupported, words: []string{"501 layers"},
	},
	"layers unlike config": {
		edit: func(m *ocispec.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) },
		kind: ErrContent, words: []string{"2 layers", "config 1"},
	},
	"manifest too long": {
		raw:  `{"schemaVersion":2,"x":"` + strings.Repeat("x", layerstore.MaxManifestSize) + `"}`,
		kind: ErrContent, words: []string{"longer"},
	},
}

func TestPullRefuses(t *testing.T) {
	layer := newLayer(t, 1, 100)
	for name, c := range refusals {
		t.Run(name, func(t *testing.T) {
			s, st := newServer(t), newStore(t)
			if c.raw != "" { // not every document can be pushed
				s.breaks(-1, isManifest, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", c.mt)
					_, _ = w.Write([]byte(c.raw))
				})
			} else {
				s.pushImage("x", "latest", testImage{layers: []testLayer{layer}, edit: c.edit})
			}
			o, _ := options()
			_, err := Pull(t.Context(), st, s.ref("x"), o)
			requireLine(t, err, append(c.words, s.ref("x:latest"))...)
			if !errors.Is(err, c.kind) {
				t.Errorf("%v is not %v", err, c.kind)
			}
			requireEmpty(t, st)
		})
	}
}

func TestPullNoSuchImage(t *testing.T) {
	s, st := newServer(t), newStore(t)
	o, c := options()
	_, err := Pull(t.Context(), st, s.ref("nothing:here"), o)
	requireLine(t, err, "no such image: "+s.ref("nothing:here"))
	if !errors.Is(err, ErrNoSuchImage) || len(c.waits) != 0 {
		t.Errorf("%v after %d waits", err, len(c.waits))
	}
	_, err = Pull(t.Context(), st, "No Reference", o)
	if !errors.Is(err, ErrReference) {
		t.Error(err)
	}
	o.Platform = "windows/amd64"
	_, err = Pull(t.Context(), st, s.ref("nothing:here"), o)
	requireLine(t, err, "windows/amd64", "linux")
}

// TestPullWrongManifest serves another manifest than a digest names.
func TestPullWrongManifest(t *testing.T) {
	s, st := newServer(t), newStore(t)
	want := s.pushImage("x", "1", testImage{layers: []testLayer{newLayer(t, 1, 10)}})
	other, err := json.Marshal(want.manifest.Config)
	if err != nil {
		t.Fatal(err)
	}
	s.breaks(-1, isManifest, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(other) })
	o, _ := options()
	_, err = Pull(t.Context(), st, s.ref("x@"+want.desc.Digest.String()), o)
	requireLine(t, err, want.desc.Digest.String(), digest.FromBytes(other).String())
	if !errors.Is(err, ErrContent) {
		t.Error(err)
	}
	requireEmpty(t, st)
}

// TestPullOneWithoutNetworkSchemes: a registry elsewhere is not spoken to by plain http, though ggcr would for a private
// address.
func TestPullPlainHTTP(t *testing.T) {
	s := newServer(t)
	for domain, allowed := range map[string]bool{"10.1.2.3:5000": false, "registry.local": false, "127.0.0.1:5000": true, "localhost:5000": true} {
		w := &wire{
			base:     roundTripper(func(*http.Request) (*http.Response, error) { return http.Get(s.URL + "/v2/") }),
			registry: domain, allowHTTP: isLoopback(domain), stall: defaultStall,
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+domain+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := w.RoundTrip(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		if (err == nil) != allowed || err != nil && !errors.Is(err, errPlainHTTP) {
			t.Errorf("%s: %v", domain, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
