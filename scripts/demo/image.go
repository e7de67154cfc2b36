package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// made is when everything in the image was made, so that it is the same image each time.
var made = time.Unix(1700000000, 0)

// entry is one entry of a layer's tar; the zero mode is 0644, or 0755 of a directory.
type entry struct {
	path   string // a directory ends in "/"
	mode   int64
	data   string
	target string // of a symlink
}

// layers are those of the demo's image, bottom first. Upper ones replace and delete what is below by whiteouts, as the
// OCI image specification has them (layer.md).
func layers(userland string) [][]entry {
	base := []entry{
		{path: "bin/"},
		{path: "etc/"},
		{path: "srv/"},
		{path: "srv/www/"},
		{path: "tmp/", mode: 0o1777},
		{path: "bin/userland", mode: 0o755, data: userland},
		{path: "etc/motd", data: "first layer\n"},
		{path: "etc/obsolete", data: "the second layer deletes this\n"},
		{path: "srv/www/old1", data: "old\n"},
		{path: "srv/www/old2", data: "old\n"},
	}
	for _, applet := range []string{"sh", "ls", "cat", "rm", "mkdir", "echo"} {
		base = append(base, entry{path: "bin/" + applet, target: "userland"})
	}
	return [][]entry{
		base,
		{
			{path: "etc/"},
			{path: "etc/motd", data: "second layer\n"},
			{path: "etc/.wh.obsolete"}, // deletes etc/obsolete
		},
		{
			{path: "srv/"},
			{path: "srv/www/"},
			{path: "srv/www/.wh..wh..opq"}, // empties srv/www of what the layers below have
			{path: "srv/www/index.html", data: "<h1>plyfs</h1>\n"},
		},
	}
}

// buildUserland builds the image's only program, static, and returns it.
func buildUserland(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "userland")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./scripts/demo/userland")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the image's userland: %w\n%s", err, out)
	}
	data, err := os.ReadFile(path)
	return string(data), err
}

// serveImage starts a registry on loopback that has the image, and returns the image's reference.
func serveImage(ctx context.Context, userland string) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{
		Handler:           registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		ReadHeaderTimeout: time.Minute,
	}
	go server.Serve(listener) //nolint:errcheck // until the demo ends
	ref := listener.Addr().String() + "/demo:latest"
	img, err := buildImage(userland)
	if err != nil {
		return "", err
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return "", err
	}
	return ref, remote.Write(tag, img, remote.WithContext(ctx))
}

func buildImage(userland string) (v1.Image, error) {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: goarch, Created: v1.Time{Time: made},
		Config: v1.Config{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}},
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	for _, entries := range layers(userland) {
		data, err := layerTar(entries)
		if err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	return img, nil
}

func layerTar(entries []entry) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.path, Mode: e.mode, ModTime: made, Format: tar.FormatPAX, Typeflag: tar.TypeReg, Size: int64(len(e.data))}
		switch {
		case e.target != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.target
		case e.path[len(e.path)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if h.Mode == 0 && h.Typeflag == tar.TypeDir {
			h.Mode = 0o755
		} else if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			return nil, err
		}
	}
	err := w.Close() // which writes the archive's end
	return buf.Bytes(), err
}
