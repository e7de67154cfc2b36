package container

import (
	"context"
	"errors"

	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
	"github.com/plyfs/plyfs/overlay"
)

// ImageLayers is an image with its layers opened for reading.
type ImageLayers struct {
	layerstore.Image
	Open []overlay.Layer // bottom first; a layer that several images have is one value in all of them
}

// OpenImages opens the layers of images, each given by what [image.Resolve] takes or by a container of it. closeAll closes them
// and is never nil. Errors: those of image.Resolve and of opening a layer.
func OpenImages(ctx context.Context, st *layerstore.Store, names ...string) (list []ImageLayers, closeAll func() error, err error) {
	open := map[layerstore.Digest]overlay.Layer{}
	closeAll = func() error {
		var errs []error
		for _, l := range open {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	}
	for _, name := range names {
		img, err := resolveImage(ctx, st, name)
		if err != nil {
			return nil, closeAll, err
		}
		il := ImageLayers{Image: img}
		for _, spec := range img.Layers {
			l := open[spec.DiffID]
			if l == nil {
				if l, err = st.OpenLayer(ctx, spec.DiffID); err != nil {
					return nil, closeAll, err
				}
				open[spec.DiffID] = l
			}
			il.Open = append(il.Open, l)
		}
		list = append(list, il)
	}
	return list, closeAll, nil
}

func resolveImage(ctx context.Context, st *layerstore.Store, name string) (layerstore.Image, error) {
	img, err := image.Resolve(ctx, st, name)
	if err == nil || !errors.Is(err, layerstore.ErrNotFound) && !errors.Is(err, image.ErrReference) {
		return img, err
	}
	c, cerr := st.Container(ctx, name)
	if errors.Is(cerr, layerstore.ErrNotFound) {
		return img, err
	}
	if cerr != nil {
		return img, cerr
	}
	return st.ResolveImage(ctx, string(c.Manifest))
}
