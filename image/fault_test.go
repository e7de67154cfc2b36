package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

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
