package container

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/plyfs/plyfs/layerstore"
)

// PruneOptions say what goes.
type PruneOptions struct {
	All       bool      // images that no container uses, not only those without a name
	Until     time.Time // what was made after it stays; zero for no limit
	Labels    []string  // KEY or KEY=VALUE that an image, or a container's image, must have
	NotLabels []string  // …and must not have
}

// Pruned is what went.
type Pruned struct {
	Containers []string // IDs
	Untagged   []string // names of images
	Deleted    []layerstore.Digest
	Freed      int64 // bytes of disk
}

// Prune deletes the containers that are not mounted, with their changes, then images that no container uses, and with no filter
// also what killed commands left, downloads that were broken off included. Errors: those of layerstore; what could not be
// deleted because it is used by now stays.
func Prune(ctx context.Context, st *layerstore.Store, o PruneOptions) (p Pruned, err error) {
	before, err := st.Usage(ctx)
	if err != nil {
		return p, err
	}
	for _, c := range before.Containers {
		if c.Active || !o.takes(ctx, st, c.Created, c.Manifest) {
			continue
		}
		err := Remove(ctx, st, c.ID)
		switch {
		case errors.Is(err, ErrMounted), errors.Is(err, layerstore.ErrNotFound):
		case err != nil:
			return p, err
		default:
			p.Containers = append(p.Containers, c.ID)
			p.Freed += c.Size
		}
	}
	removed, err := st.PruneImages(ctx, func(img layerstore.ImageSummary) (bool, error) {
		return (len(img.Names) == 0 || o.All) && o.takes(ctx, st, img.Created, img.Manifest), nil
	})
	p.Untagged, p.Deleted = removed.Untagged, removed.Deleted
	p.Freed += removed.Freed
	if err != nil {
		return p, err
	}
	if !o.Until.IsZero() || len(o.Labels)+len(o.NotLabels) > 0 {
		return p, nil
	}
	freed, err := st.Collect(ctx)
	p.Freed += freed
	return p, err
}

// takes reports whether the filters let something go.
func (o *PruneOptions) takes(ctx context.Context, st *layerstore.Store, created time.Time, manifest layerstore.Digest) bool {
	if !o.Until.IsZero() && created.After(o.Until) {
		return false
	}
	if len(o.Labels)+len(o.NotLabels) == 0 {
		return true
	}
	img, err := st.ResolveImage(ctx, string(manifest))
	if err != nil {
		return false // of which nothing is known
	}
	var cfg struct {
		Config struct{ Labels map[string]string } `json:"config"`
	}
	if json.Unmarshal(img.Config, &cfg) != nil {
		return false
	}
	has := func(want string) bool {
		key, value, exact := strings.Cut(want, "=")
		got, ok := cfg.Config.Labels[key]
		return ok && (!exact || got == value)
	}
	for _, l := range o.Labels {
		if !has(l) {
			return false
		}
	}
	for _, l := range o.NotLabels {
		if has(l) {
			return false
		}
	}
	return true
}
