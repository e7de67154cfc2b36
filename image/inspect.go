package image

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/layerstore"
)

// Inspected is an image as `docker image inspect` shows it. Keys and types are those of the Engine API's ImageInspect:
// https://docs.docker.com/reference/api/engine/ (1.48).
type Inspected struct {
	ID            string `json:"Id"`
	Id            string `json:"-"` // the same for templates, which know both names
	RepoTags      []string
	RepoDigests   []string
	Parent        string
	Comment       string
	Created       string `json:",omitempty"` // RFC 3339
	DockerVersion string
	Author        string
	Config        *InspectedConfig
	Architecture  string
	Variant       string `json:",omitempty"`
	Os            string
	OsVersion     string `json:",omitempty"`
	Size          int64  // bytes of the uncompressed layers
	GraphDriver   GraphDriver
	RootFS        RootFS
	Metadata      Metadata
	Descriptor    ocispec.Descriptor // of the manifest
}

// GraphDriver tells what keeps the layers.
type GraphDriver struct {
	Data map[string]string
	Name string
}

// RootFS lists the layers of an image.
type RootFS struct {
	Type   string
	Layers []string // diffIDs, bottom first
}

// Metadata is what the store knows of an image and its config does not.
type Metadata struct {
	LastTagTime time.Time
}

// InspectedConfig is how a container of the image is run. What an image does not say is left out.
type InspectedConfig struct {
	Hostname     string              `json:",omitempty"`
	Domainname   string              `json:",omitempty"`
	User         string              `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	Healthcheck  *Healthcheck        `json:",omitempty"`
	ArgsEscaped  bool                `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	OnBuild      []string            `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
	Shell        []string            `json:",omitempty"`
}

// Healthcheck is how a container is asked whether it is well. Times are in nanoseconds.
type Healthcheck struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// inspectedConfig is the part of a config that Inspect shows.
type inspectedConfig struct {
	Created       *time.Time        `json:"created"`
	Author        string            `json:"author"`
	Comment       string            `json:"comment"`
	DockerVersion string            `json:"docker_version"`
	Architecture  string            `json:"architecture"`
	Variant       string            `json:"variant"`
	OS            string            `json:"os"`
	OSVersion     string            `json:"os.version"`
	Config        *InspectedConfig  `json:"config"`
	History       []ocispec.History `json:"history"`
}

// Inspect tells what docker tells of an image. ErrContent is a config that is not of its form.
func Inspect(img layerstore.Image) (*Inspected, error) {
	var cfg inspectedConfig
	if err := json.Unmarshal(img.Config, &cfg); err != nil {
		return nil, &kindError{kind: ErrContent, msg: fmt.Sprintf("image %s: its config is damaged: %s", short(img.ID), clean(err.Error())), cause: err}
	}
	if cfg.Config == nil {
		cfg.Config = &InspectedConfig{}
	}
	if cfg.Comment == "" && len(cfg.History) > 0 {
		cfg.Comment = cfg.History[len(cfg.History)-1].Comment
	}
	v := &Inspected{
		ID: img.ID.String(), Id: img.ID.String(), RepoTags: familiarNames(img.Names), RepoDigests: familiarNames(img.RepoDigests), Parent: string(img.Parent),
		Comment: cfg.Comment, DockerVersion: cfg.DockerVersion, Author: cfg.Author, Config: cfg.Config,
		Architecture: cfg.Architecture, Variant: cfg.Variant, Os: cfg.OS, OsVersion: cfg.OSVersion, Size: img.Size,
		GraphDriver: GraphDriver{Name: "plyfs"},
		RootFS:      RootFS{Type: "layers"},
		Metadata:    Metadata{LastTagTime: img.Tagged},
		Descriptor:  ocispec.Descriptor{MediaType: img.MediaType, Digest: img.Manifest, Size: int64(len(img.ManifestBytes))},
	}
	if cfg.Created != nil {
		v.Created = cfg.Created.Format(time.RFC3339Nano)
	}
	for _, l := range img.Layers {
		v.RootFS.Layers = append(v.RootFS.Layers, l.DiffID.String())
	}
	return v, nil
}

func familiarNames(names []string) []string {
	list := []string{}
	for _, name := range names {
		if n, ok := splitName(name); ok {
			list = append(list, n.String())
		} else { // an index.json that others wrote may hold any name
			list = append(list, clean(name))
		}
	}
	return list
}

// HistoryEntry is a step by which an image was made.
type HistoryEntry struct {
	ID        string // of the image that the step made, or "<missing>": only images of the store are known
	Created   time.Time
	CreatedBy string
	Comment   string
	Size      int64    // bytes of the uncompressed layer, 0 for a step that made none
	Tags      []string // of that image, as docker shortens them
}

// missing stands for the ID of a step's image that the store does not have.
const missing = "<missing>"

// History tells how an image was made, the last step first. A config whose history does not fit its layers, or that has
// none, gives a step for each layer. ErrContent is a config that is not of its form.
func History(img layerstore.Image, layerSize func(digest.Digest) int64) ([]HistoryEntry, error) {
	var cfg inspectedConfig
	if err := json.Unmarshal(img.Config, &cfg); err != nil {
		return nil, &kindError{kind: ErrContent, msg: fmt.Sprintf("image %s: its config is damaged: %s", short(img.ID), clean(err.Error())), cause: err}
	}
	history := cfg.History
	full := 0
	for _, h := range history {
		if !h.EmptyLayer {
			full++
		}
	}
	for ; full < len(img.Layers); full++ {
		history = append(history, ocispec.History{Created: cfg.Created})
	}
	list := make([]HistoryEntry, len(history))
	layer := 0
	for i, h := range history {
		e := HistoryEntry{ID: missing, CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			e.Created = *h.Created
		}
		if !h.EmptyLayer && layer < len(img.Layers) {
			e.Size = layerSize(img.Layers[layer].DiffID)
			layer++
		}
		list[len(list)-1-i] = e
	}
	if len(list) > 0 {
		list[0].ID, list[0].Tags = img.ID.String(), familiarNames(img.Names)
	}
	return list, nil
}
