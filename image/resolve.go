package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/layerstore"
)

// Resolve finds an image of the store by what a user writes, as docker does: a name (completed, "latest" without a tag), a
// name@digest, an ID or the beginning of one. A name goes before an ID that begins like it. Errors: ErrNotFound and
// ErrAmbiguous of layerstore, ErrReference.
func Resolve(ctx context.Context, st *layerstore.Store, nameOrID string) (layerstore.Image, error) {
	key, err := resolveKey(ctx, st, nameOrID)
	if err != nil {
		return layerstore.Image{}, err
	}
	img, err := st.ResolveImage(ctx, key)
	if errors.Is(err, layerstore.ErrNotFound) {
		return img, notFound(nameOrID)
	}
	return img, err
}

// resolveKey turns what a user writes into what the store finds the image by: a full reference or an ID.
func resolveKey(ctx context.Context, st *layerstore.Store, nameOrID string) (string, error) {
	if id, ok := fullID(nameOrID); ok {
		return id.String(), nil
	}
	ref, refErr := ParseReference(nameOrID)
	if refErr == nil {
		if ref.Digest != "" {
			ref.Tag = "" // docker looks at the digest alone
		}
		_, err := st.ResolveImage(ctx, ref.String())
		if err == nil || !errors.Is(err, layerstore.ErrNotFound) {
			return ref.String(), err
		}
	}
	if isShortID(nameOrID) {
		return strings.TrimPrefix(nameOrID, "sha256:"), nil
	}
	if refErr != nil {
		return "", refErr
	}
	return "", notFound(nameOrID)
}

func notFound(nameOrID string) error {
	return &kindError{
		kind: layerstore.ErrNotFound,
		msg:  fmt.Sprintf("no such image: %s: pull it first with plyfs pull %[1]s", clean(nameOrID)),
	}
}

// fullID takes sha256:… and the 64 digits alone.
func fullID(s string) (digest.Digest, bool) {
	if !strings.HasPrefix(s, "sha256:") {
		s = "sha256:" + s
	}
	d, err := digest.Parse(s)
	return d, err == nil
}

func isShortID(s string) bool {
	hex := strings.TrimPrefix(s, "sha256:")
	return hex != "" && len(hex) < 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// Remove takes a name off an image, and with its last name deletes the image; an image given by its ID is deleted if it has
// one name at most. Errors: as for Resolve; ErrInUse and ErrMultipleNames of layerstore.
func Remove(ctx context.Context, st *layerstore.Store, nameOrID string) (layerstore.Removed, error) {
	key, err := resolveKey(ctx, st, nameOrID)
	if err != nil {
		return layerstore.Removed{}, err
	}
	removed, err := st.RemoveImage(ctx, key, false)
	if errors.Is(err, layerstore.ErrNotFound) {
		return removed, notFound(nameOrID)
	}
	return removed, err
}

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

// List lists the store's images, newest first, a line for each name.
func List(ctx context.Context, st *layerstore.Store) ([]Listing, error) {
	images, err := st.ImageList(ctx)
	if err != nil {
		return nil, err
	}
	var list []Listing
	for _, img := range images {
		list = append(list, Listings(img)...)
	}
	return list, nil
}

// Listings are the lines of an image: one for each name, or one.
func Listings(img layerstore.ImageSummary) []Listing {
	line := Listing{Repository: None, Tag: None, Digest: None, ID: img.ID, Created: img.Created, Size: img.Size}
	digests := map[string]string{}
	for _, rd := range img.RepoDigests {
		if name, d, ok := strings.Cut(rd, "@"); ok {
			digests[name] = clean(d)
		}
	}
	var list []Listing
	for _, name := range img.Names {
		l := line
		if ref, err := ParseReference(name); err == nil {
			l.Repository, l.Tag = ref.FamiliarName(), ref.Tag
			if d, ok := digests[ref.Name()]; ok {
				l.Digest = d
			}
		} else { // an index.json that others wrote may hold any name
			l.Repository = clean(name)
		}
		list = append(list, l)
	}
	if len(list) > 0 {
		return list
	}
	for _, rd := range img.RepoDigests {
		if ref, err := ParseReference(rd); err == nil {
			l := line
			l.Repository, l.Digest = ref.FamiliarName(), ref.Digest.String()
			list = append(list, l)
		}
	}
	if len(list) == 0 {
		list = []Listing{line}
	}
	return slices.Clip(list)
}
