package image

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layerstore"
)

// TestPullWrongLayer serves bytes of another digest: the layer is fetched twice, then both digests are said.
func TestPullWrongLayer(t *testing.T) {
	s, st, im, l := faulty(t)
	other := newLayer(t, 8, blobSize)
	damaged := bytes.Clone(l.blob)
	damaged[len(damaged)/2] ^= 0xff
	for name, bad := range map[string][]byte{"damaged": damaged, "another layer": other.blob[:min(len(other.blob), len(l.blob))]} {
		s.reset()
		s.breaks(-1, isBlob(l.digest()), func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bad) })
		o, _ := options()
		_, err := Pull(t.Context(), st, s.ref("x"), o)
		requireLine(t, err, s.ref("x:latest"), short(l.digest()), s.host())
		if !errors.Is(err, ErrContent) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "another layer" && len(other.blob) == len(l.blob) {
			requireLine(t, err, other.digest().String(), l.digest().String())
		}
		if n := s.count(l.digest()); n.gets != 2 {
			t.Errorf("%s: fetched %d times", name, n.gets)
		}
		requireEmpty(t, st)
	}
	s.breaks(1, isBlob(l.digest()), func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(damaged) })
	o, _ := options()
	img, err := Pull(t.Context(), st, s.ref("x"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, im)
}

// TestPullTooLong: a blob that goes on past its size is cut off, whether its length is announced or not.
func TestPullTooLong(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		s, st, _, l := faulty(t)
		s.breaks(-1, isBlob(l.digest()), func(w http.ResponseWriter, _ *http.Request) {
			if !chunked {
				w.Header().Set("Content-Length", fmt.Sprint(1<<40))
			}
			for range 1 << 20 { // far more than anybody should read
				if _, err := w.Write(l.blob); err != nil {
					return
				}
			}
		})
		o, _ := options()
		log := &recorder{}
		o.Progress = log
		_, err := Pull(t.Context(), st, s.ref("x"), o)
		requireLine(t, err, short(l.digest()), fmt.Sprintf("more than the %d bytes", len(l.blob)))
		if !chunked && strings.Contains(log.text(), "start") {
			t.Error("a length that is too long is announced, and read all the same")
		}
		if partials, err := filepath.Glob(st.Root() + "/ingest/*.partial"); err != nil || len(partials) != 0 {
			t.Errorf("bytes of a wrong layer are kept: %v (%v)", partials, err)
		}
		if n := s.count(l.digest()); !errors.Is(err, ErrContent) || n.bytes > 20*blobSize {
			t.Errorf("%v after %d bytes", err, n.bytes)
		}
		requireEmpty(t, st)
	}
}

func TestContinues(t *testing.T) {
	for header, want := range map[string]bool{
		"bytes 10-99/100": true, "bytes 10-49/100": true, "bytes 10-99/*": true, "bytes 10-99/101": false, "bytes 1-99/100": false, "bytes 0-99/100": false,
		"bytes 10": false, "bytes */100": false, "": false, "items 10-99/100": false, "bytes  10-99/100": false,
	} {
		if got := continues(header, 10, 100); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}

func TestPullLostLayer(t *testing.T) {
	s, st, _, l := faulty(t)
	s.breaks(-1, isBlob(l.digest()), func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) })
	o, clock := options()
	_, err := Pull(t.Context(), st, s.ref("x"), o)
	requireLine(t, err, "layer "+short(l.digest()), "has lost it")
	if len(clock.waits) != 0 {
		t.Error("a 404 was retried")
	}
}

// TestPullRedirected: blobs lie on another host, as those of most registries do; the login stays at home.
func TestPullRedirected(t *testing.T) {
	s, st, im, l := faulty(t)
	var leaked, ranges []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked = append(leaked, r.Header.Values("Authorization")...)
		ranges = append(ranges, r.Header.Get("Range"))
		r.URL.Path = strings.TrimPrefix(r.URL.Path, "/elsewhere")
		if len(ranges) == 1 {
			w = &upTo{w, 1000, func(http.ResponseWriter) { panic(http.ErrAbortHandler) }}
		}
		s.forward(w, r)
	}))
	defer elsewhere.Close()
	s.breaks(-1, isBlob(l.digest()), func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+"/elsewhere"+r.URL.Path+"?X-Signature=secret", http.StatusTemporaryRedirect)
	})
	o, _ := options()
	o.Keychain = login{"me", "pass"}
	img, err := Pull(t.Context(), st, s.ref("x"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, im)
	if len(leaked) != 0 {
		t.Errorf("the login went to another host: %v", leaked)
	}
	if len(ranges) != 2 || ranges[1] != "bytes=1000-" {
		t.Errorf("ranges %q", ranges)
	}
	for _, r := range s.seen() {
		if r.authorization == "" && strings.Contains(r.path, "/blobs/") {
			t.Errorf("the registry itself was not told the login: %+v", r)
		}
	}
	elsewhere.Close()
	o.Retries = 1
	_, err = Pull(t.Context(), newStore(t), s.ref("x"), o)
	if requireLine(t, err, "refused"); strings.Contains(err.Error(), "secret") {
		t.Errorf("a signed URL is shown: %v", err)
	}
}

func TestRedirectPolicy(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"https://registry.example.com/v2/", "https://cdn.example.net/x", true},
		{"https://registry.example.com/v2/", "http://169.254.169.254/latest", false},
		{"https://registry.example.com/v2/", "http://127.0.0.1:8080/", false},
		{"https://registry.example.com/v2/", "http://[::1]/", false},
		{"https://registry.example.com/v2/", "http://10.0.0.5:9000/", true},
		{"http://127.0.0.1:5000/v2/", "http://127.0.0.1:9000/", true},
	} {
		from, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, c.from, nil)
		to, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, c.to, nil)
		to.Header.Set("Authorization", "x")
		err := checkRedirect(to, []*http.Request{from})
		if (err == nil) != c.ok {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
		if to.Header.Get("Authorization") != "" {
			t.Errorf("%s to %s: login goes along", c.from, c.to)
		}
	}
}

// TestPullOtherContent: the config names another tar than the blob unpacks to.
func TestPullOtherContent(t *testing.T) {
	layer := newLayer(t, 1, 10)
	s, st := newServer(t), newStore(t)
	im := testImage{layers: []testLayer{{blob: layer.blob, tar: []byte("another"), mediaType: ocispec.MediaTypeImageLayerGzip}}}
	s.pushImage("x", "latest", im)
	o, _ := options()
	_, err := Pull(t.Context(), st, s.ref("x"), o)
	requireLine(t, err, short(layer.digest()), "diffID")
	requireEmpty(t, st)
}

// TestPullDamagedPartial damages what an earlier pull left: it is noticed, and the layer fetched anew.
func TestPullDamagedPartial(t *testing.T) {
	s, st, im, l := faulty(t)
	s.breaks(-1, isBlob(l.digest()), func(w http.ResponseWriter, r *http.Request) {
		s.forward(&upTo{w, 300_000, func(w http.ResponseWriter) {
			s.breaks(-1, isBlob(l.digest()), func(w http.ResponseWriter, _ *http.Request) { resetConnection(w) })
			panic(http.ErrAbortHandler)
		}}, r)
	})
	o, _ := options()
	if _, err := Pull(t.Context(), st, s.ref("x"), o); err == nil {
		t.Fatal("no error")
	}
	s.heal()
	partials, err := filepath.Glob(st.Root() + "/ingest/*.partial")
	if err != nil || len(partials) != 1 {
		t.Fatalf("partial files %v (%v)", partials, err)
	}
	b, err := os.ReadFile(partials[0])
	if err != nil || len(b) != 300_000 {
		t.Fatalf("%d bytes are kept (%v)", len(b), err)
	}
	b[150_000] ^= 1
	if err := os.WriteFile(partials[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := Pull(t.Context(), st, s.ref("x"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, im)
}

// TestPullFullDisk fills a small file system, makes room and pulls again.
func TestPullFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	s, _, im, l := faulty(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=2500k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	st := openStore(t, dir+"/store")
	ballast := dir + "/ballast"
	if err := os.WriteFile(ballast, make([]byte, 1_500_000), 0o600); err != nil {
		t.Fatal(err)
	}
	o, clock := options()
	_, err := Pull(t.Context(), st, s.ref("x"), o)
	requireLine(t, err, s.ref("x:latest"), "layer "+short(l.digest()), "no space left", "free some space")
	if !errors.Is(err, layerstore.ErrNoSpace) || len(clock.waits) != 0 {
		t.Errorf("%v after %d waits", err, len(clock.waits))
	}
	requireEmpty(t, st)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	img, err := Pull(t.Context(), st, s.ref("x"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, im)
}
