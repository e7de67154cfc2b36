package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	left, err := st.Usage(ctx)
	if err != nil {
		return p, err
	}
	for _, img := range left.Images {
		if img.Containers > 0 || len(img.Names) > 0 && !o.All || !o.takes(ctx, st, img.Created, img.Manifest) {
			continue
		}
		removed, err := st.RemoveImage(ctx, string(img.Manifest), true)
		if errors.Is(err, layerstore.ErrInUse) || errors.Is(err, layerstore.ErrNotFound) {
			continue
		}
		if err != nil {
			return p, err
		}
		p.Untagged = append(p.Untagged, removed.Untagged...)
		p.Deleted = append(p.Deleted, removed.Deleted...)
		p.Freed += removed.Freed
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

// ParseUntil reads a point in time as docker's filters take it: a time of RFC 3339 or a beginning of one (in the local time zone
// where it names none), Unix seconds, or a duration before now.
func ParseUntil(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", time.DateOnly,
	} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	var sec, nsec int64
	if n, err := fmt.Sscanf(s+" ", "%d.%d ", &sec, &nsec); err == nil && n == 2 && nsec >= 0 && nsec < 1e9 {
		return time.Unix(sec, nsec), nil
	}
	if n, err := fmt.Sscanf(s+" ", "%d ", &sec); err == nil && n == 1 && fmt.Sprint(sec) == s {
		return time.Unix(sec, 0), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time: write 2026-01-02, 2026-01-02T15:04:05, Unix seconds, or how long ago it is, as 24h", s)
}
