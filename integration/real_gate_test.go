package integration

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// gate stands before a registry. It counts what goes through and can hold the blobs back at a point, which a test waits
// for.
type gate struct {
	addr string
	next http.Handler

	mu      sync.Mutex
	passed  int64          // bytes of blobs that went through
	fetched map[string]int // how often the body of a blob was asked for
	ranges  []string       // the Range headers of those requests that had one
	limit   int64          // passed may grow to this; 0 is no limit
	reached chan struct{}  // closed when it has
	open    chan struct{}  // closed when it no longer binds
}

// newGate puts a gate before a registry, which is an address or a handler.
func newGate(t *testing.T, addr string, handler http.Handler) *gate {
	t.Helper()
	if handler == nil {
		proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
		proxy.ErrorLog = log.New(io.Discard, "", 0) // killed clients are what the gate is for
		handler = proxy
	}
	g := &gate{next: handler, fetched: map[string]int{}}
	server := httptest.NewServer(g)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	g.addr = strings.TrimPrefix(server.URL, "http://")
	return g
}

// hold lets n more bytes of blobs through and then holds them back until release. The channel is closed at that point.
func (g *gate) hold(n int64) (reached <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = g.passed + n
	g.reached, g.open = make(chan struct{}), make(chan struct{})
	return g.reached
}

// release lets everything through.
func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = 0
	close(g.open)
}

// count returns the bytes of blobs that went through and the Range headers seen since it was called last.
func (g *gate) count() (passed int64, ranges []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	passed, ranges = g.passed, g.ranges
	g.passed, g.ranges = 0, nil
	return passed, ranges
}

// ServeHTTP hands a request on.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, digest, ok := strings.Cut(r.URL.Path, "/blobs/"); ok && r.Method == http.MethodGet {
		g.mu.Lock()
		g.fetched[digest]++
		if value := r.Header.Get("Range"); value != "" {
			g.ranges = append(g.ranges, value)
		}
		g.mu.Unlock()
		w = &gateWriter{ResponseWriter: w, gate: g, ctx: r.Context()}
	}
	g.next.ServeHTTP(w, r)
}

// gateWriter is a response that passes a gate.
type gateWriter struct {
	http.ResponseWriter
	gate *gate
	ctx  context.Context
}

func (w *gateWriter) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		part := p[written:min(len(p), written+32<<10)]
		if open := w.gate.take(int64(len(part))); open != nil {
			_ = http.NewResponseController(w.ResponseWriter).Flush()
			select {
			case <-open:
			case <-w.ctx.Done():
				return written, w.ctx.Err()
			}
			continue
		}
		n, err := w.ResponseWriter.Write(part)
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Unwrap is for http.ResponseController.
func (w *gateWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// take counts n bytes, or returns what to wait for when they may not pass.
func (g *gate) take(n int64) (open <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limit > 0 && g.passed+n > g.limit {
		select {
		case <-g.reached:
		default:
			close(g.reached)
		}
		return g.open
	}
	g.passed += n
	return nil
}
