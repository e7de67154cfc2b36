package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/reference"

	"github.com/plyfs/plyfs/layerstore"
)

// Remove takes a name off an image, and with its last name deletes the image; an image given by its ID is deleted if it has
// one name at most or Force is set. Errors: as for Resolve; ErrInUse, ErrParent and ErrMultipleNames of layerstore.
func Remove(ctx context.Context, st *layerstore.Store, nameOrID string, o layerstore.RemoveOptions) (layerstore.Removed, error) {
	key, err := resolveKey(ctx, st, nameOrID)
	if err != nil {
		return layerstore.Removed{}, err
	}
	removed, err := st.RemoveImage(ctx, key, o)
	if errors.Is(err, layerstore.ErrNotFound) {
		return removed, notFound(nameOrID)
	}
	return removed, err
}

// Tag gives the image that nameOrID stands for one more name, which another image may lose. Errors: those of Resolve;
// ErrReference for a target that is none or has a digest.
func Tag(ctx context.Context, st *layerstore.Store, nameOrID, target string) error {
	named, err := reference.ParseNormalizedNamed(target)
	if err != nil {
		return &kindError{kind: ErrReference, msg: fmt.Sprintf("error parsing reference: %q is not a valid repository/tag: %s", clean(target), clean(err.Error())), cause: err}
	}
	if _, ok := named.(reference.Digested); ok {
		return &kindError{kind: ErrReference, msg: fmt.Sprintf("%s: refusing to create a tag with a digest reference", clean(target))}
	}
	ref, err := ParseReference(target)
	if err != nil {
		return err
	}
	if ref.FamiliarName() == "sha256" {
		return &kindError{kind: ErrReference, msg: "refusing to create an ambiguous tag using digest algorithm as name"}
	}
	key, err := resolveKey(ctx, st, nameOrID)
	if err != nil {
		return err
	}
	err = st.TagImage(ctx, key, ref.String())
	if errors.Is(err, layerstore.ErrNotFound) {
		return notFound(nameOrID)
	}
	return err
}

// Prune removes images that nothing uses: those without a tag, or with all of them. Filters are until, label and label!.
// Errors: ErrFilter; those of layerstore; ctx's.
func Prune(ctx context.Context, st *layerstore.Store, all bool, filters Filters) (layerstore.Removed, error) {
	f, err := newFilter(ctx, st, filters, pruneKeys)
	if err != nil {
		return layerstore.Removed{}, err
	}
	if f.dangling != nil {
		all, f.dangling = !*f.dangling, nil
	}
	return st.PruneImages(ctx, func(img layerstore.ImageSummary) (bool, error) {
		if len(img.Names) > 0 && !all {
			return false, nil
		}
		return f.takes(img)
	})
}
