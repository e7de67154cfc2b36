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
	small := map[digest.Digest][]byte{}
	var blobs []digest.Digest
	for _, img := range images {
		small[img.Manifest], small[img.ID] = img.ManifestBytes, img.Config
		blobs = append(blobs, img.Manifest, img.ID)
		for _, l := range img.Layers {
			blobs = append(blobs, l.Digest)
		}
		d := ocispec.Descriptor{MediaType: img.MediaType, Digest: img.Manifest, Size: int64(len(img.ManifestBytes))}
		if cfg, err := parseConfig(img.Config, len(img.Layers)); err == nil && cfg.platform.Architecture != "" {
			d.Platform = &ocispec.Platform{OS: cfg.platform.OS, Architecture: cfg.platform.Architecture, Variant: cfg.platform.Variant}
		}
		if len(img.names) == 0 {
			index.Manifests = append(index.Manifests, d)
		}
		for _, n := range img.names {
			d.Annotations = map[string]string{ocispec.AnnotationRefName: n.String(), annotationContainerd: n.String()}
			index.Manifests = append(index.Manifests, d)
		}
	}
	if err := a.json(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	if err := a.json(ocispec.ImageIndexFile, index); err != nil {
		return err
	}
	for _, name := range []string{ocispec.ImageBlobsDir + "/", ocispec.ImageBlobsDir + "/sha256/"} {
		if err := a.dir(name); err != nil {
			return err
		}
	}
	slices.Sort(blobs)
	for _, d := range slices.Compact(blobs) {
		name := ocispec.ImageBlobsDir + "/sha256/" + d.Encoded()
		if b, ok := small[d]; ok {
			if err := a.bytes(name, b); err != nil {
				return err
			}
			continue
		}
		f, err := a.st.OpenBlob(d)
		if err != nil {
			return err
		}
		if err := a.file(name, f, d); err != nil {
			return err
		}
	}
	return nil
}
