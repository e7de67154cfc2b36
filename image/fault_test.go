package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/layerstore"
)

const blobSize = 700_000

// faulty is a registry with an image of one layer.
func faulty(t *testing.T) (*testServer, *layerstore.Store, pushed, testLayer) {
	t.Helper()
	s, l := newServer(t), newLayer(t, 7, blobSize)
	im := s.pushImage("x", "latest", testImage{layers: []testLayer{l}})
	s.reset()
	return s, newStore(t), im, l
}

// TestPullCarriesOn breaks the connection in each way that can be mended: no byte is fetched twice.
func TestPullCarriesOn(t *testing.T) {
	_, _, _, l := faulty(t)
	cut := func(n int, after func(http.ResponseWriter)) func(*testServer) http.HandlerFunc {
		return func(s *testServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { s.forward(&upTo{w, n, after}, r) }
		}
	}
	const slack = 2 << 20 // what the kernel's socket buffers can swallow before a reset
	for name, c := range map[string]struct {
		fault func(*testServer) http.HandlerFunc
		times int
		waste int64 // bytes served twice at most
	}{
		"ended early": {fault: cut(100_000, func(http.ResponseWriter) { panic(http.ErrAbortHandler) }), times: 3},
		"reset":       {fault: cut(100_000, resetConnection), times: 3, waste: slack},
		"length too long": {times: 1, fault: func(s *testServer) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { // it promises the layer and sends the half of it
				w.Header().Set("Content-Length", fmt.Sprint(len(l.blob)))
				_, _ = w.Write(l.blob[:len(l.blob)/2])
			}
		}},
		"length too short": {times: 1, fault: func(s *testServer) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				_, _ = w.Write(l.blob[:1000])
			}
		}},
		"500": {times: 2, fault: func(*testServer) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", http.StatusInternalServerError) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, st, im, l := faulty(t)
			s.breaks(c.times, isBlob(l.digest()), c.fault(s))
			o, clock := options()
			img, err := Pull(t.Context(), st, s.ref("x"), o)
			if err != nil {
				t.Fatal(err)
			}
			requireStored(t, st, img, im)
			if n := s.count(l.digest()); n.gets != c.times+1 || len(clock.waits) != c.times || name != "500" && n.bytes > int64(len(l.blob))+c.waste {
				t.Errorf("%d requests, %d waits, %d bytes for a layer of %d", n.gets, len(clock.waits), n.bytes, len(l.blob))
			}
		})
	}
}

func TestPullStalls(t *testing.T) {
	s, st, im, l := faulty(t)
	s.breaks(1, isBlob(l.digest()), func(w http.ResponseWriter, r *http.Request) {
		s.forward(&upTo{w, 1000, func(http.ResponseWriter) { <-r.Context().Done(); panic(http.ErrAbortHandler) }}, r)
	})
	o, clock := options()
	o.StallTimeout = 50 * time.Millisecond
	log := &recorder{}
	o.Progress = log
	img, err := Pull(t.Context(), st, s.ref("x"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, im)
	if len(clock.waits) == 0 || !strings.Contains(log.text(), "stalled") || !strings.Contains(log.text(), "start 1000") {
		t.Errorf("%d waits, told %s", len(clock.waits), log.text())
	}
}

// TestPullHangs: a registry that takes connections and never answers.
func TestPullHangs(t *testing.T) {
	s, st, _, _ := faulty(t)
	s.breaks(-1, func(*http.Request) bool { return true }, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	o, clock := options()
	o.StallTimeout = 30 * time.Millisecond
	_, err := Pull(t.Context(), st, s.ref("x"), o)
	requireLine(t, err, s.ref("x:latest"), "stalled")
	if !errors.Is(err, ErrRegistry) || len(clock.waits) != defaultRetries-1 {
		t.Errorf("%v after %d waits", err, len(clock.waits))
	}
}

// TestPullGivesUp: the message of a layer that never comes whole, and the next pull, which carries on.
func TestPullGivesUp(t *testing.T) {
	s, st, im, l := faulty(t)
	first := true
	s.breaks(-1, isBlob(l.digest()), func(w http.ResponseWriter, r *http.Request) {
		if !first {
			resetConnection(w)
		}
		first = false
		s.forward(&upTo{w, 300_000, func(http.ResponseWriter) { panic(http.ErrAbortHandler) }}, r)
	})
	o, clock := options()
	o.Retries = 3
	_, err := Pull(t.Context(), st, s.ref("x"), o)
	requireLine(t, err, s.ref("x:latest"), "layer "+short(l.digest()), s.host(), "reset", "3 tries", "run the command again: it carries on from 300kB")
	if !errors.Is(err, ErrRegistry) || len(clock.waits) != 3-1 {
		t.Errorf("%v after waits %v", err, clock.waits)
	}
	requireEmpty(t, st)
	s.heal()
	s.reset()
	img, err := Pull(t.Context(), st, s.ref("x"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, im)
	if got, want := s.count(l.digest()), int64(len(l.blob)-300_000); got.bytes != want || got.gets != 1 {
		t.Errorf("the second pull was served %+v, want %d bytes at once", got, want)
	}
}

// TestPullProgressResetsTries: a connection that breaks more often than there are tries, but always later.
func TestPullProgressResetsTries(t *testing.T) {
	s, st, im, l := faulty(t)
	s.breaks(20, isBlob(l.digest()), func(w http.ResponseWriter, r *http.Request) {
		s.forward(&upTo{w, 30_000, func(http.ResponseWriter) { panic(http.ErrAbortHandler) }}, r)
	})
	o, clock := options()
	o.Retries = 2
	img, err := Pull(t.Context(), st, s.ref("x"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, im)
	if len(clock.waits) != 20 {
		t.Errorf("%d waits", len(clock.waits))
	}
	for _, w := range clock.waits {
		if w > firstDelay {
			t.Errorf("a wait of %s after progress", w)
		}
	}
}

func TestPullBackoff(t *testing.T) {
	s, st, _, _ := faulty(t)
	s.breaks(-1, isManifest, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"errors":[{"code":"UNAVAILABLE","message":"out\nfor \u001b[31mlunch"}]}`, http.StatusServiceUnavailable)
	})
	o, clock := options()
	_, err := Pull(t.Context(), st, s.ref("x"), o)
	requireLine(t, err, "503 Service Unavailable", "(out for [31mlunch)")
	for i, w := range clock.waits {
		if full := firstDelay << i; w < full/2 || w > full {
			t.Errorf("wait %d is %s", i, w)
		}
	}
	if len(clock.waits) != defaultRetries-1 {
		t.Errorf("waits %v", clock.waits)
	}
}

func TestPullRetryAfter(t *testing.T) {
	for after, wantWait := range map[string]time.Duration{
		"7": 7 * time.Second, "3600": 0, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): 0,
	} {
		s, st, _, l := faulty(t)
		s.breaks(1, isBlob(l.digest()), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", after)
			http.Error(w, "", http.StatusTooManyRequests)
		})
		o, clock := options()
		_, err := Pull(t.Context(), st, s.ref("x"), o)
		if wantWait == 0 {
			requireLine(t, err, "429 Too Many Requests", "asks to wait")
			if len(clock.waits) != 0 {
				t.Errorf("Retry-After %s: waited %v", after, clock.waits)
			}
			continue
		}
		if err != nil || len(clock.waits) != 1 || clock.waits[0] != wantWait {
			t.Errorf("Retry-After %s: waited %v (%v)", after, clock.waits, err)
		}
	}
}

// TestPullWithoutRanges: the server sends the whole layer again, or an error, or another part, when asked for the rest.
func TestPullWithoutRanges(t *testing.T) {
	for name, rest := range map[string]func(*testServer, http.ResponseWriter, *http.Request){
		"whole": func(s *testServer, w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			s.forward(w, r)
		},
		"416": func(_ *testServer, w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "", http.StatusRequestedRangeNotSatisfiable)
		},
		"another part": func(_ *testServer, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-9/%d", blobSize))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("12345"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, st, im, l := faulty(t)
			n := 0
			s.breaks(-1, isBlob(l.digest()), func(w http.ResponseWriter, r *http.Request) {
				n++
				switch {
				case n == 1:
					s.forward(&upTo{w, 200_000, func(http.ResponseWriter) { panic(http.ErrAbortHandler) }}, r)
				case r.Header.Get("Range") != "":
					rest(s, w, r)
				default:
					s.forward(w, r)
				}
			})
			o, _ := options()
			img, err := Pull(t.Context(), st, s.ref("x"), o)
			if err != nil {
				t.Fatal(err)
			}
			requireStored(t, st, img, im)
		})
	}
}

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

func TestPullRefused(t *testing.T) {
	s, st, _, _ := faulty(t)
	s.Close()
	o, clock := options()
	_, err := Pull(t.Context(), st, s.ref("x"), o)
	requireLine(t, err, s.host(), "refused")
	if !errors.Is(err, ErrRegistry) || len(clock.waits) != defaultRetries-1 {
		t.Errorf("%v after %d waits", err, len(clock.waits))
	}
}

// TestPullInterrupted ends the context in the midst of a layer; the next pull carries on.
func TestPullInterrupted(t *testing.T) {
	s, st, im, l := faulty(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.breaks(1, isBlob(l.digest()), func(w http.ResponseWriter, r *http.Request) {
		s.forward(&upTo{w, 400_000, func(http.ResponseWriter) { <-r.Context().Done(); panic(http.ErrAbortHandler) }}, r)
	})
	var got int64
	log := &recorder{}
	log.on = func(line string) {
		var name string
		var n int64
		if _, err := fmt.Sscanf(line, "%s add %d", &name, &n); err == nil {
			if got += n; got == 400_000 {
				cancel()
			}
		}
	}
	o, _ := options()
	o.Progress = log
	_, err := Pull(ctx, st, s.ref("x"), o)
	requireLine(t, err, s.ref("x:latest"), "interrupted")
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	requireEmpty(t, st)
	s.reset()
	o.Progress = nil
	img, err := Pull(t.Context(), st, s.ref("x"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, im)
	// The last pieces may have been on their way to the disk when it ended.
	if n := s.count(l.digest()); n.bytes >= int64(len(l.blob)) {
		t.Errorf("nothing was carried on: %d of %d bytes were served again", n.bytes, len(l.blob))
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
