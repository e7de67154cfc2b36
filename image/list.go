package image

import (
	"context"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/layerstore"
)

// None stands in a Listing for a repository, tag or digest that an image does not have, as in docker.
const None = "<none>"

// Listing is one line of `plyfs images`: an image under one of its names.
type Listing struct {
	Repository string // as docker shortens it: "debian"; None for an image without any name
	Tag        string // None for an image that is known by digest alone
	Digest     string // by which the registry knows it, or None
	ID         digest.Digest
	Created    time.Time // zero when the config does not say
	Size       int64     // bytes, sum of the uncompressed layers
}

// ListOptions are the choices of List.
type ListOptions struct {
	All     bool // images without a name too that are parents of others
	Digests bool // a line for each digest of each tag
	Filters Filters
}

// List lists the store's images, newest first, a line for each name. Errors: ErrFilter; those of Resolve for the images
// that filters name; those of layerstore; ctx's.
func List(ctx context.Context, st *layerstore.Store, o ListOptions) ([]Listing, error) {
	f, err := newFilter(ctx, st, o.Filters, listKeys)
	if err != nil {
		return nil, err
	}
	images, err := st.ImageList(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Listing, 0, len(images))
	for _, img := range images {
		if len(img.Names)+len(img.RepoDigests) == 0 && img.HasChildren && !o.All {
			continue
		}
		ok, err := f.takes(img)
		if err != nil {
			return nil, err
		}
		if ok {
			list = f.listings(list, img, o.Digests)
		}
	}
	return list, nil
}

// listings adds the lines of an image.
func (f *filter) listings(list []Listing, img layerstore.ImageSummary, digests bool) []Listing {
	line := Listing{Repository: None, Tag: None, Digest: None, ID: img.ID, Created: img.Created, Size: img.Size}
	if len(img.Names)+len(img.RepoDigests) == 0 {
		if len(f.references) == 0 {
			list = append(list, line)
		}
		return list
	}
	tagged := map[string]bool{}
	for _, name := range img.Names {
		l := line
		n, ok := splitName(name)
		if !ok { // an index.json that others wrote may hold any name
			n = nameParts{repository: clean(name)}
		}
		if !f.takesName(n) {
			continue
		}
		tagged[n.repository] = true
		l.Repository = n.repository
		if n.tag != "" {
			l.Tag = n.tag
		}
		list = appendDigests(list, l, img.RepoDigests, digests)
	}
	last := ""
	for _, rd := range img.RepoDigests {
		n, ok := splitName(rd)
		if !ok || tagged[n.repository] || !digests && n.repository == last || !f.takesName(n) {
			continue
		}
		last = n.repository
		l := line
		l.Repository, l.Digest = n.repository, n.digest
		list = append(list, l)
	}
	return list
}

// appendDigests adds a tag's line, or one for each digest of its repository.
func appendDigests(list []Listing, l Listing, repoDigests []string, digests bool) []Listing {
	some := false
	for _, rd := range repoDigests {
		if !strings.HasSuffix(rd[:max(0, strings.IndexByte(rd, '@'))], l.Repository) {
			continue
		}
		n, ok := splitName(rd)
		if !ok || n.repository != l.Repository {
			continue
		}
		l.Digest = n.digest
		list = append(list, l)
		some = true
		if !digests {
			break
		}
	}
	if !some {
		list = append(list, l)
	}
	return list
}

// Listings are the lines of an image: one for each name, or one.
func Listings(img layerstore.ImageSummary) []Listing {
	return (&filter{}).listings(nil, img, false)
}
