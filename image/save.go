package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/layerstore"
)

// Format is the format of an archive of images.
type Format string

// The formats that Save writes.
const (
	// DockerArchive is what `docker save` writes and every tool loads: manifest.json, configs and uncompressed layers.
	// https://github.com/moby/docker-image-spec/blob/main/spec.md#combined-image-json--filesystem-changeset-format
	DockerArchive Format = "docker-archive"
	// OCIArchive is a tar of an OCI image layout, with configs, layers and OCI manifests byte for byte as pulled.
	// https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
	OCIArchive Format = "oci-archive"
	// OCIDir is the same as a directory: SaveDir writes it.
	OCIDir Format = "oci-dir"
)

// saved is an image of an archive with the names that it gets there, sorted.
type saved struct {
	layerstore.Image
	names []Reference
}

// Save writes images to w as one archive. A repository without a tag stands for all its tags, as in docker; an image given
// by ID or digest gets no name in the archive. The bytes depend on the images and their names alone: saved again they are
// the same. Nothing is written if a reference cannot be resolved. Errors: as for Resolve; ErrNotFound of layerstore for a
// blob that is not kept; those of w; the context's.
func Save(ctx context.Context, st *layerstore.Store, w io.Writer, format Format, refs []string) error {
	images, err := selectImages(ctx, st, refs)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	a := &archive{ctx: ctx, st: st, to: tarSink{tw}, seen: map[string]bool{}}
	switch format {
	case DockerArchive:
		err = a.docker(images)
	case OCIArchive:
		err = a.oci(images)
	default:
		return fmt.Errorf("save: unknown format %q: use %s or %s", clean(string(format)), DockerArchive, OCIArchive)
	}
	if err != nil {
		return err
	}
	return tw.Close()
}

// SaveDir writes images as an OCI layout into an existing, empty directory. Errors: those of Save.
func SaveDir(ctx context.Context, st *layerstore.Store, dir string, refs []string) error {
	images, err := selectImages(ctx, st, refs)
	if err != nil {
		return err
	}
	a := &archive{ctx: ctx, st: st, to: dirSink{dir}, seen: map[string]bool{}}
	return a.oci(images)
}

// selectImages resolves what is to be saved, in a fixed order whatever the order of refs.
func selectImages(ctx context.Context, st *layerstore.Store, refs []string) ([]saved, error) {
	if len(refs) == 0 {
		return nil, errors.New("save: name at least one image")
	}
	byManifest := map[digest.Digest]*saved{}
	add := func(img layerstore.Image, name *Reference) {
		s := byManifest[img.Manifest]
		if s == nil {
			s = &saved{Image: img}
			byManifest[img.Manifest] = s
		}
		if name != nil && !slices.Contains(s.names, *name) {
			s.names = append(s.names, *name)
		}
	}
	for _, r := range refs {
		if err := selectRef(ctx, st, r, add); err != nil {
			return nil, err
		}
	}
	var list []saved
	for _, s := range byManifest {
		slices.SortFunc(s.names, func(a, b Reference) int { return strings.Compare(a.String(), b.String()) })
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b saved) int { return strings.Compare(string(a.Manifest), string(b.Manifest)) })
	return list, nil
}

func selectRef(ctx context.Context, st *layerstore.Store, r string, add func(layerstore.Image, *Reference)) error {
	named, err := reference.ParseNormalizedNamed(r)
	if err == nil && reference.IsNameOnly(named) {
		all, err := st.Images(ctx)
		if err != nil {
			return err
		}
		found := false
		for _, img := range all {
			for _, n := range img.Names {
				if ref, err := ParseReference(n); err == nil && ref.Name() == named.Name() {
					found = true
					add(img, &ref)
				}
			}
		}
		if found {
			return nil
		}
	}
	img, err := Resolve(ctx, st, r)
	if err != nil {
		return err
	}
	if ref, err := ParseReference(r); err == nil && ref.Digest == "" && slices.Contains(img.Names, ref.String()) {
		add(img, &ref)
	} else {
		add(img, nil)
	}
	return nil
}

// archive writes the files of one archive.
type archive struct {
	ctx  context.Context
	st   *layerstore.Store
	to   sink
	seen map[string]bool // names written
}

// sink takes the files of an archive.
type sink interface {
	dir(name string) error
	// file has write give a file's content, which has size bytes.
	file(name string, size int64, write func(io.Writer) error) error
}

// tarSink writes a tar, the same for the same files at any time and on any machine.
type tarSink struct{ tw *tar.Writer }

func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
}

func (s tarSink) dir(name string) error {
	h := header(name, 0)
	h.Typeflag, h.Mode = tar.TypeDir, 0o755
	return s.tw.WriteHeader(h)
}

func (s tarSink) file(name string, size int64, write func(io.Writer) error) error {
	if err := s.tw.WriteHeader(header(name, size)); err != nil {
		return err
	}
	return write(s.tw)
}

// dirSink writes files below a directory. Names are those of archive alone.
type dirSink struct{ root string }

func (s dirSink) dir(name string) error { return os.Mkdir(filepath.Join(s.root, name), 0o755) }

func (s dirSink) file(name string, _ int64, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(filepath.Join(s.root, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := write(f); err != nil {
		return err
	}
	return f.Sync()
}

func (a *archive) bytes(name string, b []byte) error {
	if a.seen[name] {
		return nil
	}
	a.seen[name] = true
	return a.to.file(name, int64(len(b)), func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// file copies a file whose content has digest d, and says so if it has not: an archive is carried elsewhere, where nobody
// could tell what is wrong.
func (a *archive) file(name string, f *os.File, d digest.Digest) (err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return a.to.file(name, fi.Size(), func(w io.Writer) error {
		verifier := d.Verifier()
		n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(w, verifier)}, &ctxReader{a.ctx, f}, make([]byte, copyBuffer))
		if err == nil && (n != fi.Size() || !verifier.Verified()) {
			err = &kindError{
				kind: layerstore.ErrDigestMismatch,
				msg:  fmt.Sprintf("%s of the store is damaged: pull its image again", d),
			}
		}
		return err
	})
}

// ctxReader stops reading when its context ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
