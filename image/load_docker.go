package image

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/layerstore"
)

// docker loads the images of a docker archive.
func (l *loader) docker(entries []dockerEntry) error {
	if len(entries) == 0 || len(entries) > maxIndexEntries {
		return archiveErrorf("its manifest.json lists %d images; 1 to %d are taken", len(entries), maxIndexEntries)
	}
	for _, e := range entries {
		if err := l.dockerImage(e); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) dockerImage(e dockerEntry) error {
	if len(e.Layers) > layerstore.MaxLayers {
		return &kindError{kind: ErrUnsupported, msg: fmt.Sprintf("the image has %d layers, more than the %d that are taken", len(e.Layers), layerstore.MaxLayers)}
	}
	raw, err := readFile(l.files, e.Config, layerstore.MaxConfigSize)
	if err != nil {
		return lacks(e.Config, err)
	}
	cfg, err := parseConfig(raw, len(e.Layers))
	if err != nil {
		return err
	}
	if l.exact && cfg.platform.Architecture != "" && cfg.platform != l.platform {
		return fmt.Errorf("image %s of the archive is %w", short(digest.FromBytes(raw)), errPlatform(l.platform, []string{clean(cfg.platform.String())}))
	}
	id := digest.FromBytes(raw)
	if err := l.lease.Pin(append([]digest.Digest{id}, cfg.diffIDs...)...); err != nil {
		return err
	}
	if img, ok := l.has(id); ok {
		return l.put(document{raw: img.ManifestBytes, mediaType: img.MediaType}, id, fullNames(e.RepoTags))
	}
	var layers []ocispec.Descriptor
	for i, name := range e.Layers {
		spec, err := l.tarLayer(name, cfg.diffIDs[i])
		if err != nil {
			return err
		}
		layers = append(layers, ocispec.Descriptor{MediaType: spec.MediaType, Digest: spec.Digest, Size: spec.Size})
	}
	doc, err := l.manifestOf(raw, layers)
	if err != nil {
		return err
	}
	return l.put(doc, id, fullNames(e.RepoTags))
}

// has finds a complete image by its ID: with the digests that a registry gave it, which are worth more than new ones.
func (l *loader) has(id digest.Digest) (layerstore.Image, bool) {
	img, err := l.st.ResolveImage(l.ctx, id.String())
	if err != nil || slices.ContainsFunc(img.Layers, func(s layerstore.LayerSpec) bool { return !l.st.HasLayer(s) }) {
		return img, false
	}
	return img, l.lease.Pin(img.Manifest) == nil
}

// tarLayer takes in a layer of which the archive tells only what it is uncompressed.
func (l *loader) tarLayer(name string, diffID digest.Digest) (spec layerstore.LayerSpec, err error) {
	r, size, err := l.files.open(name)
	if err != nil {
		return spec, lacks(name, err)
	}
	defer r.Close() //nolint:errcheck // read only
	lp := l.progress.Layer(diffID, size)
	defer func() { lp.Done(err) }()
	spec = layerstore.LayerSpec{Digest: diffID, DiffID: diffID, Size: size, MediaType: ocispec.MediaTypeImageLayer}
	if l.st.HasLayer(spec) {
		lp.Status("Already exists")
		return spec, nil
	}
	lp.Start(0)
	u, err := newUnpacker(&progressReader{&ctxReader{l.ctx, r}, lp})
	if err != nil {
		return spec, fmt.Errorf("%s: %w", clean(name), err)
	}
	defer u.Close() //nolint:errcheck // it holds memory only
	if spec, err = l.st.ImportLayer(l.ctx, l.lease, u, layerstore.ImportOptions{DiffID: diffID}); err != nil {
		err = fmt.Errorf("%s: %w", clean(name), err)
	}
	return spec, err
}

// manifestOf stores a config and makes the manifest of it and its layers.
func (l *loader) manifestOf(config []byte, layers []ocispec.Descriptor) (document, error) {
	doc, err := newManifest(config, layers)
	if err != nil {
		return doc, err
	}
	if err := l.lease.Pin(doc.digest); err != nil {
		return doc, err
	}
	_, err = l.st.WriteBlob(config)
	return doc, err
}

// newManifest is the OCI manifest of an image that has none yet. The same image always gets the same.
func newManifest(config []byte, layers []ocispec.Descriptor) (document, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:    append([]ocispec.Descriptor{}, layers...),
	}
	raw, err := json.Marshal(m)
	return document{raw: raw, mediaType: m.MediaType, digest: digest.FromBytes(raw)}, err
}
