package integration

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// testTime is when all files of the images made here were changed last.
var testTime = time.Unix(1600000000, 0)

// startRegistry starts a registry on loopback that lives as long as the test, and returns its host:port.
func startRegistry(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// file is one entry of a layer's tar; the zero mode is 0644, or 0755 of a directory.
type file struct {
	path   string // a directory ends in "/"
	mode   int64
	data   string
	target string // of a symlink
}

// pushImage makes an image of these layers, bottom first, pushes it as host/repo:tag, and returns its manifest's digest.
func pushImage(t testing.TB, ref string, layers ...[]file) v1.Hash {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, Created: v1.Time{Time: testTime}, RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range layers {
		data := layerTar(t, files)
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func layerTar(t testing.TB, files []file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.path, Mode: f.mode, ModTime: testTime, Format: tar.FormatPAX, Typeflag: tar.TypeReg, Size: int64(len(f.data))}
		switch {
		case f.target != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.target
		case strings.HasSuffix(f.path, "/"):
			h.Typeflag = tar.TypeDir
		}
		switch {
		case h.Mode == 0 && h.Typeflag == tar.TypeDir:
			h.Mode = 0o755
		case h.Mode == 0:
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// smallLower is the lower layer of smallImage.
var smallLower = []file{
	{path: "etc/"},
	{path: "etc/motd", data: "lower\n"},
	{path: "etc/gone", data: "gone\n"},
	{path: "tmp/", mode: 0o1777},
}

// smallImage pushes an image of two layers, the upper of which replaces, deletes and adds, and returns its reference.
func smallImage(t testing.TB, registry string) string {
	t.Helper()
	ref := registry + "/small:1"
	pushImage(t, ref, smallLower, []file{
		{path: "etc/motd", data: "upper\n"},
		{path: "etc/.wh.gone"},
		{path: "etc/new", data: "new\n"},
	})
	return ref
}
