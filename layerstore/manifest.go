package layerstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's image manifest, version 2, schema 2; the OCI ones are in the image-spec's Go package.
const (
	mediaDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// layerMediaTypes are those of filesystem layers. Foreign and nondistributable ones are layers like others once here.
var layerMediaTypes = []string{
	v1.MediaTypeImageLayer, v1.MediaTypeImageLayerGzip, v1.MediaTypeImageLayerZstd,
	"application/vnd.oci.image.layer.nondistributable.v1.tar",
	"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
	"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
	"application/vnd.docker.image.rootfs.diff.tar",
	"application/vnd.docker.image.rootfs.diff.tar.gzip",
	"application/vnd.docker.image.rootfs.diff.tar.zstd",
	"application/vnd.docker.image.rootfs.foreign.diff.tar",
	"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
}

// descriptor is the part of an OCI or Docker content descriptor that the store needs.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    Digest `json:"digest"`
	Size      int64  `json:"size"`
}

// manifest is an image manifest of either kind.
type manifest struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Config        descriptor      `json:"config"`
	Layers        []descriptor    `json:"layers"`
	Manifests     json.RawMessage `json:"manifests"` // an index has it, a manifest must not
	FSLayers      json.RawMessage `json:"fsLayers"`  // schema 1 has it
}

// config is the part of an image config that the store needs.
type config struct {
	Created *time.Time `json:"created"`
	RootFS  struct {
		Type    string   `json:"type"`
		DiffIDs []Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

func invalidf(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrInvalid)...)
}

// parseManifest reads an OCI image manifest or a Docker schema-2 one. mediaType is what the registry called it; a
// mediaType within must agree. No digest of the result is anything but 64 hexadecimal digits.
func parseManifest(b []byte, mediaType string) (manifest, error) {
	var m manifest
	if len(b) > MaxManifestSize {
		return m, fmt.Errorf("manifest has %d bytes: %w: at most %d are taken", len(b), ErrTooLarge, MaxManifestSize)
	}
	switch mediaType {
	case v1.MediaTypeImageManifest, mediaDockerManifest:
	case v1.MediaTypeImageIndex, mediaDockerList:
		return m, invalidf("manifest is an index of several platforms (%s), not an image", mediaType)
	default:
		return m, invalidf("manifest has the media type %.100q, which is no image's", mediaType)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, invalidf("manifest is no JSON of its form (%v)", err)
	}
	switch {
	case m.MediaType != "" && m.MediaType != mediaType:
		return m, invalidf("manifest calls itself %.100q but came as %s", m.MediaType, mediaType)
	case m.SchemaVersion != 2:
		return m, invalidf("manifest has schema version %d, only 2 is known", m.SchemaVersion)
	case m.Manifests != nil || m.FSLayers != nil:
		return m, invalidf("manifest is that of an image and of something else at once")
	case len(m.Layers) > MaxLayers:
		return m, fmt.Errorf("manifest has %d layers: %w: at most %d are taken", len(m.Layers), ErrTooLarge, MaxLayers)
	case m.Config.MediaType != v1.MediaTypeImageConfig && m.Config.MediaType != mediaDockerConfig:
		return m, invalidf("manifest is of an artifact (config %.100q), not of an image", m.Config.MediaType)
	}
	if err := checkDescriptor("config", m.Config, MaxConfigSize); err != nil {
		return m, err
	}
	for i, l := range m.Layers {
		if err := checkDescriptor(fmt.Sprintf("layer %d", i+1), l, MaxLayerSize); err != nil {
			return m, err
		}
		if !slices.Contains(layerMediaTypes, l.MediaType) {
			return m, invalidf("layer %d has the media type %.100q, which is no layer's", i+1, l.MediaType)
		}
	}
	return m, nil
}

func checkDescriptor(what string, d descriptor, limit int64) error {
	if _, err := hexOf(d.Digest); err != nil {
		return fmt.Errorf("manifest: %s: %w", what, err)
	}
	if d.Size < 0 {
		return invalidf("manifest: %s has a size of %d bytes", what, d.Size)
	}
	if d.Size > limit {
		return fmt.Errorf("manifest: %s has %d bytes: %w: at most %d are taken", what, d.Size, ErrTooLarge, limit)
	}
	return nil
}

// parseConfig reads an image config and checks that its diffIDs are those of so many layers.
func parseConfig(b []byte, layers int) (config, error) {
	var c config
	if len(b) > MaxConfigSize {
		return c, fmt.Errorf("config has %d bytes: %w: at most %d are taken", len(b), ErrTooLarge, MaxConfigSize)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, invalidf("config is no JSON of its form (%v)", err)
	}
	if c.RootFS.Type != "layers" {
		return c, invalidf("config has a rootfs of type %.100q, only layers are known", c.RootFS.Type)
	}
	if len(c.RootFS.DiffIDs) != layers {
		return c, invalidf("config lists %d layers (rootfs.diff_ids), its manifest %d", len(c.RootFS.DiffIDs), layers)
	}
	for i, d := range c.RootFS.DiffIDs {
		if _, err := hexOf(d); err != nil {
			return c, fmt.Errorf("config: layer %d: %w", i+1, err)
		}
	}
	return c, nil
}

// newImage puts together what manifest and config say. Names, RepoDigests and Size are the caller's to fill in.
func newImage(manifestBytes, configBytes []byte, mediaType string) (Image, error) {
	m, err := parseManifest(manifestBytes, mediaType)
	if err != nil {
		return Image{}, err
	}
	if int64(len(configBytes)) != m.Config.Size {
		return Image{}, invalidf("manifest says its config has %d bytes, it has %d", m.Config.Size, len(configBytes))
	}
	c, err := parseConfig(configBytes, len(m.Layers))
	if err != nil {
		return Image{}, err
	}
	img := Image{
		ID: m.Config.Digest, Manifest: digest.FromBytes(manifestBytes), MediaType: mediaType,
		Config: configBytes, ManifestBytes: manifestBytes,
	}
	if c.Created != nil {
		img.Created = *c.Created
	}
	for i, l := range m.Layers {
		img.Layers = append(img.Layers, LayerSpec{Digest: l.Digest, Size: l.Size, MediaType: l.MediaType, DiffID: c.RootFS.DiffIDs[i]})
	}
	return img, nil
}

// OCIManifest is the image's manifest as an OCI layout can hold it, as index.json of the store lists it: an OCI manifest as
// it is; of a Docker one, which skopeo, podman and umoci do not read from a layout, one with the same config and layers by
// their OCI names, and so with a digest of its own.
func (img Image) OCIManifest() ([]byte, error) {
	if img.MediaType == v1.MediaTypeImageManifest {
		return img.ManifestBytes, nil
	}
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{}}
	m.SchemaVersion = 2
	m.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: img.ID, Size: int64(len(img.Config))}
	for _, l := range img.Layers {
		t := v1.MediaTypeImageLayer
		switch {
		case strings.HasSuffix(l.MediaType, "gzip"):
			t = v1.MediaTypeImageLayerGzip
		case strings.HasSuffix(l.MediaType, "zstd"):
			t = v1.MediaTypeImageLayerZstd
		}
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: t, Digest: l.Digest, Size: l.Size})
	}
	return json.Marshal(m)
}

// checkRef takes what can be a full reference: not normalised here, only kept from breaking index.json or a terminal.
func checkRef(name string) error {
	if name == "" || len(name) > MaxRefLen || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return invalidf("image name %.100q", name)
	}
	return nil
}

// manifestMediaType tells what a manifest is when its descriptor does not.
func manifestMediaType(b []byte) string {
	var m struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(b, &m) == nil && m.MediaType != "" {
		return m.MediaType
	}
	if bytes.Contains(b, []byte(`"`+mediaDockerConfig+`"`)) {
		return mediaDockerManifest
	}
	return v1.MediaTypeImageManifest
}
