package image

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/layerstore"
)

// testServer is ggcr's registry behind a handler that counts, and breaks what a test wants broken.
type testServer struct {
	*httptest.Server
	t    *testing.T
	next http.Handler

	mu       sync.Mutex
	fault    func(w http.ResponseWriter, r *http.Request) bool // true when it answered
	requests []request
	blobs    map[digest.Digest]*blobCount
}

type request struct {
	method, path, rng, authorization string
}

type blobCount struct {
	gets  int
	bytes int64
}

func newServer(t *testing.T) *testServer {
	t.Helper()
	s := newHandler(t)
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func newHandler(t *testing.T) *testServer {
	return &testServer{t: t, next: registry.New(registry.Logger(log.New(io.Discard, "", 0))), blobs: map[digest.Digest]*blobCount{}}
}

func (s *testServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	fault := s.fault
	s.requests = append(s.requests, request{r.Method, r.URL.Path, r.Header.Get("Range"), r.Header.Get("Authorization")})
	s.mu.Unlock()
	if d, ok := blobOf(r); ok && r.Method == http.MethodGet {
		s.mu.Lock()
		c := s.blobs[d]
		if c == nil {
			c = &blobCount{}
			s.blobs[d] = c
		}
		c.gets++
		s.mu.Unlock()
		w = &countingWriter{w, func(n int) {
			s.mu.Lock()
			c.bytes += int64(n)
			s.mu.Unlock()
		}}
	}
	if fault == nil || !fault(w, r) {
		s.forward(w, r)
	}
}

// forward answers as a good registry does; ggcr's wants an end in each Range.
func (s *testServer) forward(w http.ResponseWriter, r *http.Request) {
	if rng := r.Header.Get("Range"); strings.HasSuffix(rng, "-") {
		rec := httptest.NewRecorder()
		head := r.Clone(r.Context())
		head.Method = http.MethodHead
		head.Header.Del("Range")
		s.next.ServeHTTP(rec, head)
		size, err := strconv.ParseInt(rec.Header().Get("Content-Length"), 10, 64)
		if err == nil {
			r.Header.Set("Range", rng+strconv.FormatInt(size-1, 10))
		}
	}
	s.next.ServeHTTP(w, r)
}

// breaks has every request that match takes answered by f, n times (-1: always).
func (s *testServer) breaks(n int, match func(*http.Request) bool, f http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if !match(r) {
			return false
		}
		s.mu.Lock()
		left := n
		n--
		s.mu.Unlock()
		if left == 0 {
			s.mu.Lock()
			n = 0
			s.mu.Unlock()
			return false
		}
		f(w, r)
		return true
	}
}

func (s *testServer) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = nil
}

// reset forgets what was counted.
func (s *testServer) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.blobs = nil, map[digest.Digest]*blobCount{}
}

func (s *testServer) count(d digest.Digest) blobCount {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.blobs[d]; c != nil {
		return *c
	}
	return blobCount{}
}

func (s *testServer) seen() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.requests...)
}

func (s *testServer) host() string { return s.Listener.Addr().String() }

func (s *testServer) ref(rest string) string { return s.host() + "/" + rest }

func blobOf(r *http.Request) (digest.Digest, bool) {
	_, id, ok := strings.Cut(r.URL.Path, "/blobs/")
	d, err := digest.Parse(id)
	return d, ok && err == nil
}

// isBlob matches GETs of one blob.
func isBlob(d digest.Digest) func(*http.Request) bool {
	return func(r *http.Request) bool {
		got, ok := blobOf(r)
		return ok && got == d && r.Method == http.MethodGet
	}
}

func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

type countingWriter struct {
	http.ResponseWriter
	add func(int)
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.add(n)
	return n, err
}

func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// upTo passes n bytes of a body on and then does what after says; it must not return.
type upTo struct {
	http.ResponseWriter
	n     int
	after func(http.ResponseWriter)
}

func (u *upTo) Write(p []byte) (int, error) {
	take := min(len(p), u.n)
	_, err := u.ResponseWriter.Write(p[:take])
	u.n -= take
	if err == nil && u.n == 0 {
		_ = http.NewResponseController(u.ResponseWriter).Flush()
		u.after(u.ResponseWriter)
	}
	return take, err
}

// resetConnection sends RST.
func resetConnection(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		if c, ok := conn.(*net.TCPConn); ok {
			_ = c.SetLinger(0)
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

// newStore opens a store in a directory of the test.
func newStore(t *testing.T) *layerstore.Store {
	t.Helper()
	return openStore(t, t.TempDir()+"/store")
}

func openStore(t *testing.T, root string) *layerstore.Store {
	t.Helper()
	st, err := layerstore.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// clock counts the waits of a pull instead of waiting.
type clock struct {
	mu    sync.Mutex
	waits []time.Duration
}

func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waits = append(c.waits, d)
	return context.Cause(ctx)
}

// options pull without a login, without waits.
func options() (PullOptions, *clock) {
	c := &clock{}
	return PullOptions{TLSVerify: true, Keychain: noLogins{}, sleep: c.sleep}, c
}

type noLogins struct{}

func (noLogins) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

// requireStored checks that the image is complete and its tars are those that were pushed.
func requireStored(t *testing.T, st *layerstore.Store, img layerstore.Image, want pushed) {
	t.Helper()
	if img.Manifest != want.desc.Digest || img.ID != want.config {
		t.Fatalf("stored manifest %s and config %s, want %s and %s", img.Manifest, img.ID, want.desc.Digest, want.config)
	}
	for i, l := range want.layers {
		if !st.HasLayer(img.Layers[i]) {
			t.Fatalf("layer %d is not in the store", i)
		}
		f, err := st.OpenTar(img.Layers[i].DiffID)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		_ = f.Close()
		if err != nil || !bytes.Equal(got, l.tar) {
			t.Fatalf("layer %d: its tar is not what was pushed (%v)", i, err)
		}
	}
}

// requireEmpty checks that a failed pull left no image and no layer.
func requireEmpty(t *testing.T, st *layerstore.Store) {
	t.Helper()
	images, err := st.Images(t.Context())
	if err != nil || len(images) != 0 {
		t.Fatalf("the store has images %v (%v)", images, err)
	}
	names, err := os.ReadDir(st.Root() + "/layers/sha256")
	if err != nil || len(names) != 0 {
		t.Fatalf("the store has layers %v (%v)", names, err)
	}
}

// requireLine checks a message: one line that has all of the words.
func requireLine(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", words)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Fatalf("more than one line: %v", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Fatalf("error lacks %q: %v", w, err)
		}
	}
}
