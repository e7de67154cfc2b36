package image

import (
	"context"
	"errors"
	"fmt"
	"strings"

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
