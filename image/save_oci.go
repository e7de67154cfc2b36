package image

import (
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationContainerd is where containerd and docker look for an image's full name in an OCI layout.
const annotationContainerd = "io.containerd.image.name"

// oci writes an OCI layout: every blob under its digest, sorted, and an index.json that names each image in full, as
// podman and plyfs's own store do.
func (a *archive) oci(images []saved) error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	small := map[digest.Digest][]byte{} // manifests and configs
	var blobs []digest.Digest
	for _, img := range images {
		raw, err := img.OCIManifest()
		if err != nil {
			return err
		}
		manifest := digest.FromBytes(raw)
		small[manifest], small[img.ID] = raw, img.Config
		blobs = append(blobs, manifest, img.ID)
		for _, l := range img.Layers {
			blobs = append(blobs, l.Digest)
		}
		index.Manifests = append(index.Manifests, indexEntries(img, manifest, len(raw))...)
	}
	if err := a.json(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	if err := a.json(ocispec.ImageIndexFile, index); err != nil {
		return err
	}
	for _, name := range []string{ocispec.ImageBlobsDir + "/", ocispec.ImageBlobsDir + "/sha256/"} {
		if err := a.to.dir(name); err != nil {
			return err
		}
	}
	slices.Sort(blobs)
	for _, d := range slices.Compact(blobs) {
		if err := a.blob(d, small[d]); err != nil {
			return err
		}
	}
	return nil
}

// indexEntries are the lines of index.json of one image: one for each name, or one without.
func indexEntries(img saved, manifest digest.Digest, size int) []ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: manifest, Size: int64(size)}
	if cfg, err := parseConfig(img.Config, len(img.Layers)); err == nil && cfg.platform.Architecture != "" {
		d.Platform = &ocispec.Platform{OS: cfg.platform.OS, Architecture: cfg.platform.Architecture, Variant: cfg.platform.Variant}
	}
	if len(img.names) == 0 {
		return []ocispec.Descriptor{d}
	}
	var entries []ocispec.Descriptor
	for _, n := range img.names {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: n.String(), annotationContainerd: n.String()}
		entries = append(entries, d)
	}
	return entries
}

// blob writes content if it is at hand, else the store's blob.
func (a *archive) blob(d digest.Digest, content []byte) error {
	name := ocispec.ImageBlobsDir + "/sha256/" + d.Encoded()
	if content != nil {
		return a.bytes(name, content)
	}
	f, err := a.st.OpenBlob(d)
	if err != nil {
		return err
	}
	return a.file(name, f, d)
}
