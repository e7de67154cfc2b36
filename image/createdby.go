package image

import (
	"encoding/json"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/layerstore"
)

// CreatedBy tells for each layer of an image, bottom first, what made it, as the history in the config says: fit for one line
// of a terminal, "" where it says nothing.
func CreatedBy(img layerstore.Image) []string {
	list := make([]string, len(img.Layers))
	var cfg struct {
		History []ocispec.History `json:"history"`
	}
	if json.Unmarshal(img.Config, &cfg) != nil {
		return list
	}
	i := 0
	for _, h := range cfg.History {
		if h.EmptyLayer {
			continue
		}
		if i == len(list) {
			break
		}
		by := h.CreatedBy
		if by == "" {
			by = h.Comment
		}
		list[i] = clean(by)
		i++
	}
	return list
}
