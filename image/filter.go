package image

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plyfs/plyfs/layerstore"
)

// Filters choose images, as docker's --filter does: by key, the values given for it.
//   - dangling=BOOL: without a tag; the last value counts
//   - reference=PATTERN (path.Match) of REPOSITORY or REPOSITORY:TAG as docker shortens them; one of several is enough
//   - label=KEY[=VALUE], label!=KEY[=VALUE]: all must hold
//   - before=IMAGE, since=IMAGE: made earlier or later than that image
//   - until=TIME: made no later than a time, or so long ago
type Filters map[string][]string

// Parse adds KEY=VALUE. ErrFilter is one without "=" or key.
func (f Filters) Parse(s string) error {
	key, value, ok := strings.Cut(s, "=")
	key = strings.ToLower(strings.TrimSpace(key))
	if !ok || key == "" {
		return &kindError{kind: ErrFilter, msg: fmt.Sprintf("invalid argument %q: a filter is KEY=VALUE", clean(s))}
	}
	f[key] = append(f[key], strings.TrimSpace(value))
	return nil
}

// The keys that commands take.
var (
	listKeys  = []string{"dangling", "reference", "label", "before", "since", "until"}
	pruneKeys = []string{"dangling", "label", "label!", "until"}
)

// filter is what Filters come to.
type filter struct {
	dangling      *bool
	references    []string
	labels, not   []string
	before, since []time.Time
	until         time.Time
	st            *layerstore.Store
}

func newFilter(ctx context.Context, st *layerstore.Store, f Filters, keys []string) (*filter, error) {
	c := &filter{st: st, references: f["reference"], labels: f["label"], not: f["label!"]}
	for key, values := range f {
		if !slices.Contains(keys, key) {
			return nil, filterErrorf("invalid filter '%s'", clean(key))
		}
		for _, v := range values {
			if err := c.add(ctx, key, v); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

func filterErrorf(format string, args ...any) error {
	return &kindError{kind: ErrFilter, msg: fmt.Sprintf(format, args...)}
}

func (c *filter) add(ctx context.Context, key, value string) error {
	switch key {
	case "dangling":
		b, err := strconv.ParseBool(value)
		if err != nil {
			return filterErrorf("invalid filter 'dangling=%s': true or false", clean(value))
		}
		c.dangling = &b
	case "reference":
		if _, err := path.Match(value, ""); err != nil {
			return filterErrorf("invalid filter 'reference=%s': %v", clean(value), err)
		}
	case "before", "since":
		img, err := Resolve(ctx, c.st, value)
		if err != nil {
			return err
		}
		if key == "before" {
			c.before = append(c.before, img.Created)
		} else {
			c.since = append(c.since, img.Created)
		}
	case "until":
		if !c.until.IsZero() {
			return filterErrorf("more than one until filter specified")
		}
		t, err := ParseUntil(value, time.Now())
		if err != nil {
			return err
		}
		c.until = t
	}
	return nil
}

// takes tells of an image all but whether its references match.
func (c *filter) takes(img layerstore.ImageSummary) (bool, error) {
	if c.dangling != nil && *c.dangling != (len(img.Names) == 0) {
		return false, nil
	}
	for _, t := range c.before {
		if !img.Created.Before(t) {
			return false, nil
		}
	}
	for _, t := range c.since {
		if !img.Created.After(t) {
			return false, nil
		}
	}
	if !c.until.IsZero() && img.Created.After(c.until) {
		return false, nil
	}
	return c.takesLabels(img)
}

func (c *filter) takesLabels(img layerstore.ImageSummary) (bool, error) {
	if len(c.labels)+len(c.not) == 0 {
		return true, nil
	}
	var cfg struct {
		Config struct{ Labels map[string]string } `json:"config"`
	}
	raw, err := c.st.ReadBlob(img.ID, layerstore.MaxConfigSize)
	if err == nil {
		err = json.Unmarshal(raw, &cfg)
	}
	if err != nil {
		return false, fmt.Errorf("image %s: %w", short(img.ID), err)
	}
	has := func(l string) bool {
		key, value, exact := strings.Cut(l, "=")
		v, ok := cfg.Config.Labels[key]
		return ok && (!exact || v == value)
	}
	for _, l := range c.labels {
		if !has(l) {
			return false, nil
		}
	}
	return !slices.ContainsFunc(c.not, has), nil
}

// takesName tells whether a reference filter takes a name; without one all are.
func (c *filter) takesName(n nameParts) bool {
	if len(c.references) == 0 {
		return true
	}
	return slices.ContainsFunc(c.references, func(p string) bool {
		ok, err := n.matches(p)
		return ok && err == nil
	})
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
	return time.Time{}, filterErrorf("%q is no time: write 2026-01-02, 2026-01-02T15:04:05, Unix seconds, or how long ago it is, as 24h", clean(s))
}
