package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/layerstore"
)

// layout loads the images that index.json lists. Names are those of its annotations, and of the docker manifest beside it.
func (l *loader) layout(entries []dockerEntry) error {
	raw, err := readFile(l.files, ocispec.ImageIndexFile, layerstore.MaxManifestSize)
	if err != nil {
		return err
	}
	var ix ocispec.Index
	if err := json.Unmarshal(raw, &ix); err != nil {
		return archiveErrorf("its index.json is damaged: %s", clean(err.Error()))
	}
	if len(ix.Manifests) > maxIndexEntries {
		return archiveErrorf("its index.json has %d entries, more than the %d that are taken", len(ix.Manifests), maxIndexEntries)
	}
	tags := map[string][]string{} // by the config's digits
	for _, e := range entries {
		id := strings.TrimSuffix(e.Config[strings.LastIndexByte(e.Config, '/')+1:], ".json")
		tags[id] = append(tags[id], e.RepoTags...)
	}
	for _, d := range ix.Manifests {
		if d.Annotations["vnd.docker.reference.type"] != "" {
			continue // an attestation
		}
		doc, err := l.resolve(d)
		if err != nil {
			return err
		}
		if err := l.image(doc, func(id digest.Digest) []string {
			return fullNames(append(layoutNames(d.Annotations), tags[id.Encoded()]...))
		}); err != nil {
			return err
		}
	}
	if len(l.loaded) == 0 {
		return archiveErrorf("its index.json lists no image")
	}
	return nil
}

// layoutNames are the names by which an entry of index.json goes. A ref.name that is a mere tag, as umoci and crane write
// it, says nothing of the repository.
func layoutNames(a map[string]string) []string {
	if n := a[annotationContainerd]; n != "" {
		return []string{n}
	}
	if n := a[ocispec.AnnotationRefName]; strings.ContainsAny(n, "/:") {
		return []string{n}
	}
	return nil
}

// resolve follows an entry to the manifest for the platform.
func (l *loader) resolve(d ocispec.Descriptor) (document, error) {
	for range maxIndexDepth {
		raw, err := l.readBlob(d, layerstore.MaxManifestSize)
		if err != nil {
			return document{}, err
		}
		doc, err := newDocument(raw, d.MediaType)
		if err != nil || !doc.isIndex() {
			return doc, err
		}
		if raw, err = l.present(raw); err != nil {
			return document{}, err
		}
		if d, _, err = choose(raw, l.platform); err != nil {
			return document{}, fmt.Errorf("image %s of the archive is %w", short(doc.digest), err)
		}
	}
	return document{}, &kindError{kind: ErrContent, msg: fmt.Sprintf("indexes lie in indexes more than %d deep", maxIndexDepth)}
}

// present takes the manifests out of an index that the archive does not have, as one saved for a platform has not.
func (l *loader) present(raw []byte) ([]byte, error) {
	var ix ocispec.Index
	if err := json.Unmarshal(raw, &ix); err != nil {
		return nil, &kindError{kind: ErrContent, msg: "an index is damaged: " + clean(err.Error())}
	}
	if len(ix.Manifests) > maxIndexEntries {
		return raw, nil // choose says it
	}
	here := ix.Manifests[:0]
	for _, d := range ix.Manifests {
		if checkDescriptor(d, layerstore.MaxManifestSize) == nil && hasFile(l.files, l.blobName(d.Digest)) {
			here = append(here, d)
		}
	}
	if ix.Manifests = here; len(here) == 0 {
		return raw, nil
	}
	return json.Marshal(ix)
}

// image loads an image by its manifest. names may be nil.
func (l *loader) image(doc document, names func(id digest.Digest) []string) error {
	if doc.isIndex() {
		return &kindError{kind: ErrUnsupported, msg: "the directory holds an index of several images: save one of them, or as an OCI layout"}
	}
	m, err := parseManifest(doc)
	if err != nil {
		return err
	}
	raw, err := l.readBlob(m.Config, layerstore.MaxConfigSize)
	if err != nil {
		return err
	}
	cfg, err := parseConfig(raw, len(m.Layers))
	if err != nil {
		return err
	}
	if l.exact && cfg.platform.Architecture != "" && cfg.platform != l.platform {
		return fmt.Errorf("image %s of the archive is %w", short(m.Config.Digest), errPlatform(l.platform, []string{clean(cfg.platform.String())}))
	}
	pins := append([]digest.Digest{doc.digest, m.Config.Digest}, cfg.diffIDs...)
	for _, d := range m.Layers {
		pins = append(pins, d.Digest)
	}
	if err := l.lease.Pin(pins...); err != nil {
		return err
	}
	for i, d := range m.Layers {
		if err := l.blobLayer(layerstore.LayerSpec{Digest: d.Digest, Size: d.Size, MediaType: d.MediaType, DiffID: cfg.diffIDs[i]}); err != nil {
			return err
		}
	}
	if _, err := l.st.WriteBlob(raw); err != nil {
		return err
	}
	var full []string
	if names != nil {
		full = names(m.Config.Digest)
	}
	return l.put(doc, m.Config.Digest, full)
}

// blobLayer takes in a layer whose compressed digest is known.
func (l *loader) blobLayer(spec layerstore.LayerSpec) (err error) {
	lp := l.progress.Layer(spec.Digest, spec.Size)
	defer func() { lp.Done(err) }()
	if l.st.HasLayer(spec) {
		lp.Status("Already exists")
		return nil
	}
	name := l.blobName(spec.Digest)
	r, size, err := l.files.open(name)
	if err != nil {
		return lacks(name, err)
	}
	defer r.Close() //nolint:errcheck // read only
	if size != spec.Size {
		return &kindError{kind: ErrContent, msg: fmt.Sprintf("%s has %d bytes, its manifest says %d", clean(name), size, spec.Size)}
	}
	in, err := l.st.BeginLayer(l.ctx, spec)
	if errors.Is(err, layerstore.ErrExists) {
		lp.Status("Already exists")
		return nil
	}
	if err == nil && in.Offset() > 0 { // of a broken pull: these bytes are at hand, and none of them is doubtful
		err = in.Restart()
	}
	if err != nil {
		return err
	}
	lp.Start(0)
	if err := feed(in, &ctxReader{l.ctx, r}, lp); err != nil {
		return errors.Join(err, in.Discard())
	}
	return in.Commit()
}

func feed(w io.Writer, r io.Reader, lp LayerProgress) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, &progressReader{r, lp}, make([]byte, copyBuffer))
	return err
}

// progressReader tells of the bytes read.
type progressReader struct {
	r  io.Reader
	lp LayerProgress
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.lp.Add(int64(n))
	return n, err
}
