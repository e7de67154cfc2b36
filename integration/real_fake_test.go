package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociConfig   = "application/vnd.oci.image.config.v1+json"
	ociGzip     = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// fakeRegistry serves images that no registry would take and fails in ways that none can be asked to.
type fakeRegistry struct {
	addr string

	mu        sync.Mutex
	manifests map[string][]byte // by "name/tag" and "name/digest"
	blobs     map[string][]byte // by digest
	faults    map[string]fault  // by digest or by "manifest"
	requests  []string          // "METHOD path range"
}

// fault answers a request in place of the registry, or returns false to let the registry do so. try counts from 1.
type fault func(w http.ResponseWriter, r *http.Request, try int) bool

// fakeLayer is a layer as a manifest and a config claim it to be. What is zero is what is true.
type fakeLayer struct {
	tar    []byte
	blob   []byte // gzip of tar
	digest string
	size   int64
	diffID string
}

func newFakeRegistry(t *testing.T) *fakeRegistry {
	t.Helper()
	f := &fakeRegistry{manifests: map[string][]byte{}, blobs: map[string][]byte{}, faults: map[string]fault{}}
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	f.addr = strings.TrimPrefix(server.URL, "http://")
	return f
}

// push adds an image and returns the reference to pull.
func (f *fakeRegistry) push(t *testing.T, name string, layers ...fakeLayer) string {
	t.Helper()
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	var descs []descriptor
	diffIDs := []string{}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range layers {
		l := layers[i].claimed()
		descs = append(descs, descriptor{ociGzip, l.digest, l.size})
		diffIDs = append(diffIDs, l.diffID)
		f.blobs[l.digest] = l.blob
	}
	config := marshal(t, map[string]any{
		"architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z",
		"config": map[string]any{"Labels": map[string]string{"name": name}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	f.blobs[digestOf(config)] = config
	manifest := marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest,
		"config": descriptor{ociConfig, digestOf(config), int64(len(config))}, "layers": descs,
	})
	f.manifests[name+"/latest"] = manifest
	f.manifests[name+"/"+digestOf(manifest)] = manifest
	return f.addr + "/" + name
}

// claimed fills in what the layer does not claim otherwise.
func (l fakeLayer) claimed() fakeLayer {
	if l.blob == nil {
		l.blob = gzipped(l.tar)
	}
	if l.digest == "" {
		l.digest = digestOf(l.blob)
	}
	if l.size == 0 {
		l.size = int64(len(l.blob))
	}
	if l.diffID == "" {
		l.diffID = digestOf(l.tar)
	}
	return l
}

// fail sets a fault for the blob with that digest, or for "manifest".
func (f *fakeRegistry) fail(what string, with fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[what] = with
}

// asked lists the requests whose path ends in the suffix.
func (f *fakeRegistry) asked(suffix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []string
	for _, r := range f.requests {
		if strings.HasSuffix(strings.Fields(r)[1], suffix) {
			found = append(found, r)
		}
	}
	return found
}

// ServeHTTP is the part of the distribution API that a pull uses.
func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	name, kind, id := "", "", ""
	for _, k := range []string{"manifests", "blobs"} {
		if before, after, ok := strings.Cut(path, "/"+k+"/"); ok {
			name, kind, id = before, k, after
		}
	}
	key := id
	if kind == "manifests" {
		key = "manifest"
	}
	f.mu.Lock()
	f.requests = append(f.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
	try := 0
	for _, req := range f.requests {
		if strings.HasPrefix(req, r.Method+" "+r.URL.Path) {
			try++
		}
	}
	with, manifest, blob := f.faults[key], f.manifests[name+"/"+id], f.blobs[id]
	f.mu.Unlock()

	switch {
	case kind != "" && with != nil && with(w, r, try):
	case path == "":
		w.WriteHeader(http.StatusOK)
	case kind == "manifests" && manifest != nil:
		w.Header().Set("Content-Type", ociManifest)
		w.Header().Set("Docker-Content-Digest", digestOf(manifest))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(manifest))
	case kind == "blobs" && blob != nil:
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
	}
}

// answer is a fault that answers a status for the first n requests, for ever when n is 0.
func answer(status, n int, header ...string) fault {
	return func(w http.ResponseWriter, _ *http.Request, try int) bool {
		if n > 0 && try > n {
			return false
		}
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		return true
	}
}

// cut is a fault that sends the blob's bytes up to a point, counted from its beginning, and then ends the connection, for
// the first n requests or for ever. With reset the client sees ECONNRESET, else an early end.
func cut(blob []byte, at, n int, reset bool) fault {
	return func(w http.ResponseWriter, r *http.Request, try int) bool {
		if n > 0 && try > n || r.Method != http.MethodGet {
			return false
		}
		from := 0
		w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && from > 0 && from < len(blob) {
			w.Header().Set("Content-Length", strconv.Itoa(len(blob)-from))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(blob)-1, len(blob)))
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(blob[from:max(from, at)])
		_ = http.NewResponseController(w).Flush()
		if !reset {
			panic(http.ErrAbortHandler) // ends the connection
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
		return true
	}
}

// hang is a fault that says nothing more for the first n requests, or for ever, until the client goes away.
func hang(n int) fault {
	return func(w http.ResponseWriter, r *http.Request, try int) bool {
		if n > 0 && try > n {
			return false
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func gzipped(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, _ = w.Write(b) // a bytes.Buffer does not fail
	_ = w.Close()
	return buf.Bytes()
}

// tarOf makes a tar of headers, each with as many bytes of data as its size says.
func tarOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range headers {
		if err := w.WriteHeader(&headers[i]); err != nil {
			t.Fatal(err)
		}
		if headers[i].Typeflag == tar.TypeReg {
			if _, err := w.Write(bytes.Repeat([]byte("x"), int(headers[i].Size))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// regular is the header of a regular file.
func regular(name string, size int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(1_700_000_000, 0)}
}
