package image

import (
	"encoding/json"
	"fmt"
	"mime"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/layerstore"
)

// Media types of docker's image manifest, version 2, schema 2:
// https://distribution.github.io/distribution/spec/manifest-v2-2/
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList         = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerSchema1      = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSchema1JWS   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerZstd    = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	dockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	ociForeignLayer    = "application/vnd.oci.image.layer.nondistributable.v1.tar"
)

const (
	maxIndexEntries = 4096
	maxIndexDepth   = 4 // an index may name an index
)

// manifestTypes is what a registry is asked for, in a request's Accept headers.
var manifestTypes = []string{
	ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, dockerList, dockerManifest, dockerSchema1JWS, dockerSchema1,
}

var layerTypes = []string{
	ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
	dockerLayer, dockerLayerGzip, dockerLayerZstd,
}

// document is a manifest or an index as it came, with its digest.
type document struct {
	raw       []byte
	mediaType string // one of manifestTypes
	digest    digest.Digest
}

func (d document) isIndex() bool {
	return d.mediaType == ocispec.MediaTypeImageIndex || d.mediaType == dockerList
}

// newDocument tells what a document is: by its own mediaType field, which its digest covers, then by the Content-Type that
// came with it, then by its fields. One that could be read as both manifest and index is refused (CVE-2021-41190).
func newDocument(raw []byte, contentType string) (document, error) {
	var probe struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(raw, &probe); err != nil {
		return document{}, &kindError{kind: ErrContent, msg: "the manifest is not JSON: " + clean(err.Error()), cause: err}
	}
	if probe.SchemaVersion == 1 || probe.FSLayers != nil {
		return document{}, errSchema1()
	}
	if probe.SchemaVersion != 2 {
		return document{}, &kindError{kind: ErrContent, msg: fmt.Sprintf("the manifest has schema version %d; only 2 is known", probe.SchemaVersion)}
	}
	indexLike, manifestLike := probe.Manifests != nil, probe.Config != nil || probe.Layers != nil
	if indexLike && manifestLike {
		return document{}, &kindError{kind: ErrContent, msg: "the manifest claims to be an index too"}
	}
	mt := probe.MediaType
	if mt == "" {
		mt, _, _ = mime.ParseMediaType(contentType)
	}
	if !slices.Contains(manifestTypes, mt) && probe.MediaType == "" {
		mt = ""
	}
	switch {
	case mt == dockerSchema1 || mt == dockerSchema1JWS:
		return document{}, errSchema1()
	case mt == "" && indexLike:
		mt = ocispec.MediaTypeImageIndex
	case mt == "" && manifestLike:
		mt = ocispec.MediaTypeImageManifest
	case !slices.Contains(manifestTypes, mt):
		return document{}, &kindError{kind: ErrUnsupported, msg: fmt.Sprintf("manifests of type %q are not supported", clean(mt))}
	}
	d := document{raw: raw, mediaType: mt, digest: digest.FromBytes(raw)}
	if d.isIndex() && manifestLike || !d.isIndex() && indexLike {
		return document{}, &kindError{kind: ErrContent, msg: fmt.Sprintf("the manifest is not what its type %q says", mt)}
	}
	return d, nil
}

func errSchema1() error {
	return &kindError{kind: ErrUnsupported, msg: "the image is in docker's schema 1 format, which registries gave up in 2019 " +
		"and plyfs does not take: have it pushed again with docker 1.10 or later"}
}

// choose picks the manifest of an index that runs on want. The second result says that it is the very platform asked for.
func choose(raw []byte, want Platform) (ocispec.Descriptor, bool, error) {
	var ix ocispec.Index
	if err := json.Unmarshal(raw, &ix); err != nil {
		return ocispec.Descriptor{}, false, &kindError{kind: ErrContent, msg: "the index is damaged: " + clean(err.Error()), cause: err}
	}
	if len(ix.Manifests) > maxIndexEntries {
		return ocispec.Descriptor{}, false, &kindError{
			kind: ErrContent,
			msg:  fmt.Sprintf("the index has %d entries, more than the %d that are taken", len(ix.Manifests), maxIndexEntries),
		}
	}
	var unnamed []ocispec.Descriptor
	byPlatform := map[Platform]ocispec.Descriptor{}
	var have []string
	for _, d := range ix.Manifests {
		switch {
		case d.MediaType != "" && !slices.Contains(manifestTypes, d.MediaType), d.Annotations["vnd.docker.reference.type"] != "":
			continue // an attestation or another artifact
		case d.Platform == nil || d.Platform.OS == "" && d.Platform.Architecture == "":
			unnamed = append(unnamed, d)
			continue
		}
		p := Platform{d.Platform.OS, d.Platform.Architecture, d.Platform.Variant}.normal()
		if _, ok := byPlatform[p]; !ok && p.OS != "unknown" {
			byPlatform[p] = d
			have = append(have, clean(p.String()))
		}
	}
	for i, p := range want.fitting() {
		if d, ok := byPlatform[p]; ok {
			return d, i == 0, checkDescriptor(d, layerstore.MaxManifestSize)
		}
	}
	if len(unnamed) > 0 { // the config will tell
		return unnamed[0], true, checkDescriptor(unnamed[0], layerstore.MaxManifestSize)
	}
	return ocispec.Descriptor{}, false, errPlatform(want, have)
}

func errPlatform(want Platform, have []string) error {
	msg := fmt.Sprintf("not made for %s: it has ", want)
	if len(have) == 0 {
		msg += "no platform at all"
	} else {
		msg += strings.Join(have[:min(len(have), 32)], ", ") + "; choose one with --platform"
	}
	return &kindError{kind: ErrNoPlatform, msg: msg}
}

// parseManifest checks all that can be checked before the config and the layers are there.
func parseManifest(d document) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(d.raw, &m); err != nil {
		return m, &kindError{kind: ErrContent, msg: "the manifest is damaged: " + clean(err.Error()), cause: err}
	}
	switch m.Config.MediaType {
	case ocispec.MediaTypeImageConfig, dockerConfig:
	default:
		what := m.ArtifactType
		if what == "" {
			what = m.Config.MediaType
		}
		return m, &kindError{kind: ErrUnsupported, msg: fmt.Sprintf("it is no container image but an artifact of type %q", clean(what))}
	}
	if err := checkDescriptor(m.Config, layerstore.MaxConfigSize); err != nil {
		return m, err
	}
	if len(m.Layers) > layerstore.MaxLayers {
		return m, &kindError{
			kind: ErrUnsupported,
			msg:  fmt.Sprintf("the image has %d layers, more than the %d that are taken", len(m.Layers), layerstore.MaxLayers),
		}
	}
	for _, l := range m.Layers {
		if strings.HasPrefix(l.MediaType, dockerForeignLayer) || strings.HasPrefix(l.MediaType, ociForeignLayer) {
			return m, &kindError{kind: ErrUnsupported, msg: fmt.Sprintf("layer %s is a foreign layer (%s), as images of Windows have them, "+
				"which registries do not keep and plyfs does not fetch", short(l.Digest), clean(l.MediaType))}
		}
		if !slices.Contains(layerTypes, l.MediaType) {
			return m, &kindError{kind: ErrUnsupported, msg: fmt.Sprintf("layer %s is of type %q, which is not supported", short(l.Digest), clean(l.MediaType))}
		}
		if err := checkDescriptor(l, layerstore.MaxLayerSize); err != nil {
			return m, err
		}
	}
	return m, nil
}

func checkDescriptor(d ocispec.Descriptor, limit int64) error {
	if err := d.Digest.Validate(); err != nil || d.Digest.Algorithm() != digest.SHA256 {
		return &kindError{kind: ErrContent, msg: fmt.Sprintf("the manifest names content by %q, which is no sha256 digest", clean(string(d.Digest)))}
	}
	if d.Size < 0 || d.Size > limit {
		return &kindError{kind: ErrContent, msg: fmt.Sprintf("the manifest gives %s a size of %d bytes; at most %d are taken", short(d.Digest), d.Size, limit)}
	}
	return nil
}

// config is what Pull and List need of an image's config.
type config struct {
	platform Platform
	diffIDs  []digest.Digest
}

// parseConfig checks the config against its manifest's layers.
func parseConfig(raw []byte, layers int) (config, error) {
	var img struct { // and nothing else of it, so that what other tools add in other types does no harm
		ocispec.Platform
		Created *time.Time     `json:"created"`
		RootFS  ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(raw, &img); err != nil {
		return config{}, &kindError{kind: ErrContent, msg: "the image's config is damaged: " + clean(err.Error()), cause: err}
	}
	if img.RootFS.Type != "layers" {
		return config{}, &kindError{kind: ErrUnsupported, msg: fmt.Sprintf("the image's root filesystem is of type %q, not of layers", clean(img.RootFS.Type))}
	}
	if len(img.RootFS.DiffIDs) != layers {
		return config{}, &kindError{kind: ErrContent, msg: fmt.Sprintf("the manifest has %d layers and the config %d", layers, len(img.RootFS.DiffIDs))}
	}
	for _, d := range img.RootFS.DiffIDs {
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
			return config{}, &kindError{kind: ErrContent, msg: fmt.Sprintf("the config names a layer by %q, which is no sha256 digest", clean(string(d)))}
		}
	}
	p := Platform{img.OS, img.Architecture, img.Variant}
	if p.OS == "" {
		p.OS = "linux"
	}
	return config{platform: p.normal(), diffIDs: img.RootFS.DiffIDs}, nil
}
