// Package tinyimage makes small images of a few files in memory and serves them from a registry in this process, where
// a real one would only cost time: for tests of the command line and for the demo.
package tinyimage

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// made is when an image and everything in it was made, so that it is the same image each time.
var made = time.Unix(1700000000, 0)

// Entry is one entry of a layer's tar, owned by root. Names of whiteouts are those of the OCI image specification
// (layer.md): ".wh.NAME" deletes NAME, ".wh..wh..opq" all that the layers below have in its directory.
type Entry struct {
	Path   string // a directory ends in "/"
	Mode   int64  // permission bits; 0 is 0644, or 0755 of a directory
	Data   string // of a regular file
	Target string // makes it a symlink
}

// Serve starts an empty registry on a free port of 127.0.0.1 and returns its host:port. stop ends it.
func Serve(ctx context.Context) (address string, stop func() error, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{
		Handler:           registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		ReadHeaderTimeout: time.Minute,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	return listener.Addr().String(), func() error {
		err := server.Close()
		if serveErr := <-ended; !errors.Is(serveErr, http.ErrServerClosed) {
			err = errors.Join(err, serveErr)
		}
		return err
	}, nil
}

// Push makes an image for this machine's processor of these layers, bottom first, and pushes it as ref, HOST/REPO:TAG.
func Push(ctx context.Context, ref string, layers ...[]Entry) error {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, Created: v1.Time{Time: made},
		Config: v1.Config{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}},
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return err
	}
	for _, entries := range layers {
		data, err := layerTar(entries)
		if err != nil {
			return err
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			return err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return err
		}
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	return remote.Write(tag, img, remote.WithContext(ctx))
}

func layerTar(entries []Entry) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.Path, Mode: e.Mode, ModTime: made, Format: tar.FormatPAX, Typeflag: tar.TypeReg, Size: int64(len(e.Data))}
		switch {
		case e.Target != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
		case strings.HasSuffix(e.Path, "/"):
			h.Typeflag = tar.TypeDir
		}
		switch {
		case h.Mode == 0 && h.Typeflag == tar.TypeDir:
			h.Mode = 0o755
		case h.Mode == 0:
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, e.Data); err != nil {
			return nil, err
		}
	}
	err := w.Close() // which writes the archive's end
	return buf.Bytes(), err
}
