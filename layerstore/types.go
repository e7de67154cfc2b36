package layerstore

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Digest names content by its SHA-256: "sha256:" and 64 lower-case hexadecimal digits. The store takes no other algorithm.
type Digest = digest.Digest

// LayerSpec is a layer as a manifest and a config describe it together.
type LayerSpec struct {
	Digest    Digest // of the bytes as the registry keeps them; the same as DiffID for an uncompressed layer
	Size      int64  // of those bytes, 0 or more
	MediaType string // as the manifest says; the content decides between gzip, zstd and plain tar
	DiffID    Digest // of the uncompressed tar, from the config's rootfs.diff_ids
	// MaxUnpacked limits the uncompressed tar, bytes. 0 is DefaultMaxUnpacked(Size). MaxLayerSize is the limit of limits.
	MaxUnpacked int64
}

// Image is one manifest of the store with its config. Two manifests that share a config are two Images of one ID.
type Image struct {
	ID            Digest // of the config: docker's image ID
	Manifest      Digest
	Names         []string // full references, sorted: "docker.io/library/debian:12"; none for a dangling image
	RepoDigests   []string // "docker.io/library/debian@sha256:…", sorted
	Created       time.Time
	Tagged        time.Time   // when it was given a name last, zero if it never was or another tool did it
	Parent        Digest      // ID of the image that it was made from, "" if that is not known
	Size          int64       // sum of the uncompressed tars, bytes
	Layers        []LayerSpec // bottom first
	Config        []byte      // raw JSON
	ManifestBytes []byte      // raw JSON, exactly as pulled
	MediaType     string      // of the manifest
}

// ImageSummary is what a list shows of an image: index.json has it all. The fields are those of Image.
type ImageSummary struct {
	ID          Digest
	Manifest    Digest
	Names       []string
	RepoDigests []string
	Created     time.Time
	Size        int64
	Parent      Digest
	HasChildren bool // another image has it as its parent; ImageList fills it in
}

// Removed is what RemoveImage did.
type Removed struct {
	Untagged []string // names and repo digests that were taken away
	Deleted  []Digest // of each image its ID, then the diffIDs of layers that no other image has, top first
	Freed    int64    // bytes of disk
}

// Container is a container as containers/<id>/container.json keeps it. It pins its image's blobs and layers.
type Container struct {
	ID         string    `json:"id"`   // 64 hexadecimal digits
	Name       string    `json:"name"` // [a-zA-Z0-9][a-zA-Z0-9_.-]+, unique, at most MaxNameLen bytes
	Created    time.Time `json:"created"`
	Image      Digest    `json:"image"`               // of the config
	ImageName  string    `json:"imageName,omitempty"` // as the user gave it
	Manifest   Digest    `json:"manifest"`
	Layers     []Digest  `json:"layers"` // diffIDs, bottom first
	ReadOnly   bool      `json:"readOnly,omitempty"`
	Mountpoint string    `json:"mountpoint,omitempty"` // where it was mounted last, absolute
}

// Report is what Check found.
type Report struct {
	Images     int
	Containers int
	Blobs      int
	Layers     int
	Bytes      int64     // hashed
	Garbage    int       // files that nothing refers to, as a killed pull leaves them; Collect frees them
	Problems   []Problem // none in a whole store
}

// Problem is one thing that is wrong in the store.
type Problem struct {
	Path  string // below the store's root
	Image Digest // the manifest of the image that index.json lists and that is concerned; "" in other files
	Err   error  // wraps ErrCorrupt, ErrDigestMismatch, ErrNotFound…
}

// Limits of what the store takes in.
const (
	MaxManifestSize = 4 << 20  // bytes of a manifest
	MaxConfigSize   = 8 << 20  // bytes of a config
	MaxLayers       = 500      // layers of an image
	MaxNameLen      = 255      // bytes of a container's name
	MaxRefLen       = 1024     // bytes of an image's name
	MaxLayerSize    = 1 << 40  // bytes of an uncompressed layer, whatever LayerSpec.MaxUnpacked says
	maxIndexSize    = 64 << 20 // bytes of index.json
	maxContainer    = 4 << 20  // bytes of a container.json
	minMaxUnpacked  = 2 << 30
	maxUnpackRatio  = 256
)

// DefaultMaxUnpacked is how long the tar of a layer may be whose compressed size is size and for which no other limit is
// given: 256 times that, at least 2 GiB and at most MaxLayerSize. A manifest tells the compressed size only, and gzip
// can pack 1032 to 1.
func DefaultMaxUnpacked(size int64) int64 {
	if size > MaxLayerSize/maxUnpackRatio {
		return MaxLayerSize
	}
	return max(size*maxUnpackRatio, minMaxUnpacked)
}
