package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/layerstore"
)

// LoadOptions are the choices of a load.
type LoadOptions struct {
	Platform string   // of an image of several platforms, OS/ARCH[/VARIANT]; "" is linux on this machine's processor
	Progress Progress // may be nil
}

// Loaded is an image that Load has put into the store.
type Loaded struct {
	ID    digest.Digest
	Names []string // full references that the archive gave it, sorted
}

// Load takes in all images of an archive, which r reads: a docker-archive or an OCI layout, as a tar that may be compressed
// with gzip, zstd, xz or bzip2. A regular file is read in place, anything else goes through a temporary file of the store.
// OCI images keep their digests. Those of a docker archive, which has none but of configs and uncompressed layers, get a
// manifest of uncompressed layers, unless the store has the image. Images that came before an error stay. Errors: ErrArchive,
// ErrContent, ErrUnsupported, ErrNoPlatform; those of layerstore, r and ctx.
func Load(ctx context.Context, st *layerstore.Store, r io.Reader, o LoadOptions) ([]Loaded, error) {
	t, err := openTar(ctx, st, r)
	if err != nil {
		return nil, err
	}
	return load(ctx, st, t, o)
}

// LoadDir is Load of a directory: an OCI layout, or what skopeo calls dir and podman docker-dir.
func LoadDir(ctx context.Context, st *layerstore.Store, dir string, o LoadOptions) ([]Loaded, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return load(ctx, st, dirFiles{root}, o)
}

// loader is one load.
type loader struct {
	ctx      context.Context
	st       *layerstore.Store
	files    files
	platform Platform
	exact    bool // the platform was asked for
	progress Progress
	lease    *layerstore.Lease
	blobName func(digest.Digest) string
	loaded   []Loaded
}

func load(ctx context.Context, st *layerstore.Store, fl files, o LoadOptions) (_ []Loaded, err error) {
	l := &loader{ctx: ctx, st: st, files: fl, platform: hostPlatform(), exact: o.Platform != "", progress: o.Progress}
	defer func() { err = errors.Join(err, fl.close()) }()
	if o.Platform != "" {
		if l.platform, err = ParsePlatform(o.Platform); err != nil {
			return nil, err
		}
	}
	if l.progress == nil {
		l.progress = noProgress{}
	}
	if l.lease, err = st.Lease(ctx); err != nil {
		return nil, err
	}
	err = l.all()
	return l.loaded, l.release(err)
}

// release leaves nothing of an archive that cannot be loaded.
func (l *loader) release(err error) error {
	if err == nil || l.ctx.Err() != nil {
		return errors.Join(err, l.lease.Release())
	}
	if derr := l.lease.Drop(context.WithoutCancel(l.ctx)); derr != nil {
		logrus.WithError(derr).Warn("what came of the archive stays in the store until an image is removed")
	}
	return err
}

// all tells the format by the files that are there. docker 25 and later writes both: the layout has the exact digests.
func (l *loader) all() error {
	manifest, err := readFile(l.files, "manifest.json", layerstore.MaxManifestSize)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var entries []dockerEntry
	isDocker := err == nil && json.Unmarshal(manifest, &entries) == nil
	switch {
	case hasFile(l.files, ocispec.ImageLayoutFile) && hasFile(l.files, ocispec.ImageIndexFile):
		l.blobName = func(d digest.Digest) string { return ocispec.ImageBlobsDir + "/sha256/" + d.Encoded() }
		return l.layout(entries)
	case isDocker:
		return l.docker(entries)
	case err == nil:
		l.blobName = digest.Digest.Encoded
		doc, err := newDocument(manifest, "")
		if err != nil {
			return err
		}
		return l.image(doc, nil)
	case hasFile(l.files, "repositories"):
		return &kindError{kind: ErrUnsupported, msg: "the archive is in the format of docker before 1.10, which plyfs does not take: " +
			"have it saved again by a later docker"}
	}
	return archiveErrorf("it has neither manifest.json nor an OCI layout: it is no archive of images; make an image of an archive of files with plyfs import")
}

// done records a loaded image.
func (l *loader) done(id digest.Digest, names []string) {
	for i := range l.loaded {
		if l.loaded[i].ID == id {
			l.loaded[i].Names = slices.Compact(slices.Sorted(slices.Values(append(l.loaded[i].Names, names...))))
			return
		}
	}
	l.loaded = append(l.loaded, Loaded{ID: id, Names: names})
}

// put stores a manifest whose config and layers are there, under its names.
func (l *loader) put(doc document, id digest.Digest, names []string) error {
	for _, name := range append([]string{""}, names...) {
		if name == "" && len(names) > 0 {
			continue
		}
		if _, err := l.st.PutImage(l.ctx, name, doc.raw, doc.mediaType, ""); err != nil {
			return err
		}
	}
	l.done(id, names)
	return nil
}

// fullNames are those of an archive that are references, in full and sorted.
func fullNames(names []string) []string {
	var full []string
	for _, n := range names {
		ref, err := ParseReference(n)
		if err != nil || ref.Digest != "" {
			logrus.Warnf("the archive's name %q is no reference by tag: left out", clean(n))
			continue
		}
		full = append(full, ref.String())
	}
	slices.Sort(full)
	return slices.Compact(full)
}

// lacks explains that a file is not there.
func lacks(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return archiveErrorf("it lacks %s: it is cut short, or not made for all that it names", clean(name))
	}
	return err
}

func (l *loader) readBlob(d ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := checkDescriptor(d, limit); err != nil {
		return nil, err
	}
	name := l.blobName(d.Digest)
	b, err := readFile(l.files, name, limit)
	if err != nil {
		return nil, lacks(name, err)
	}
	if got := digest.FromBytes(b); got != d.Digest {
		return nil, &kindError{kind: ErrContent, msg: fmt.Sprintf("%s is damaged: its bytes are %s", clean(name), got)}
	}
	return b, nil
}
