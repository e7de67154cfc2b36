package layerstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// RemoveImage takes a name from an image and, with its last one, removes the image: its manifest, config and those
// layers that nothing else refers to. Given an ID it removes the image with all its names, which more than one name
// refuses unless force is set (ErrMultipleNames). An image that a container uses is not removed (ErrInUse, naming the
// containers); force then takes its names only. Other errors: ErrNotFound, ErrAmbiguous, ErrNotWritable, ctx's.
func (s *Store) RemoveImage(ctx context.Context, nameOrID string, force bool) (Removed, error) {
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return Removed{}, err
	}
	rm, err := s.removeImageLocked(ctx, nameOrID, force)
	err = firstError(err, l.Release())
	if err != nil {
		return rm, s.explain("removing image "+nameOrID, err)
	}
	if len(rm.Deleted) > 0 {
		rm.Freed, err = s.emptyTrash(ctx)
	}
	return rm, s.explain("removing image "+nameOrID, err)
}

func (s *Store) removeImageLocked(ctx context.Context, nameOrID string, force bool) (Removed, error) {
	var rm Removed
	ix, err := s.readIndex()
	if err != nil {
		return rm, err
	}
	found, err := s.match(ix, nameOrID)
	if err != nil {
		return rm, err
	}
	if e := found[0]; slices.Contains(e.names, nameOrID) && len(e.names) > 1 {
		e.removeName(nameOrID)
		rm.Untagged = []string{nameOrID}
		return rm, s.writeIndex(ix)
	}
	var names []string
	for _, e := range found {
		names = append(names, e.names...)
	}
	if len(names) > 1 && !force {
		return rm, &storeError{fmt.Sprintf("image %s has several names (%s): image is referenced in multiple repositories: "+
			"remove the names, or force it", nameOrID, strings.Join(names, ", ")), []error{ErrMultipleNames}}
	}
	users, err := s.usersOf(ctx, found)
	if err != nil {
		return rm, err
	}
	if len(users) > 0 && (!force || len(names) == 0) {
		return rm, &storeError{fmt.Sprintf("image %s is in use by container %s: remove it first (plyfs rm)",
			nameOrID, strings.Join(users, ", ")), []error{ErrInUse}}
	}
	rm.Untagged = names
	if len(users) > 0 {
		for _, e := range found {
			e.names = nil
		}
		return rm, s.writeIndex(ix)
	}
	return rm, s.deleteImages(ctx, ix, found, &rm)
}

// usersOf names the containers of the images.
func (s *Store) usersOf(ctx context.Context, es []*entry) ([]string, error) {
	cs, err := s.Containers(ctx)
	if err != nil {
		return nil, err
	}
	var users []string
	for _, c := range cs {
		for _, e := range es {
			if c.Manifest == e.manifest {
				users = addSorted(users, c.Name)
			}
		}
	}
	return users, nil
}

// deleteImages takes the entries out of index.json and moves into trash/ what only they referred to.
func (s *Store) deleteImages(ctx context.Context, ix *index, es []*entry, rm *Removed) error {
	mine := &marks{blobs: map[string]bool{}, layers: map[string]bool{}}
	for _, e := range es {
		// A damaged image is removed all the same; what cannot be found of it now is garbage for Collect.
		_ = s.markEntry(mine, e)
		mine.blobs[e.manifest.Encoded()], mine.blobs[e.desc.Digest.Encoded()] = true, true
		if id := Digest(e.desc.Annotations[annotationID]); id != "" {
			rm.Deleted = addDigest(rm.Deleted, id)
		} else {
			rm.Deleted = addDigest(rm.Deleted, e.manifest)
		}
		ix.remove(e)
	}
	layers := s.diffIDs(es)
	if err := s.writeIndex(ix); err != nil {
		rm.Deleted, rm.Untagged = nil, nil
		return err
	}
	// Names are gone durably. Should the rest fail, for a damaged other image say, Collect makes up for it.
	others, err := s.mark(ctx, ix, true)
	if err != nil {
		s.log.Warnf("layers of the removed image stay until garbage is collected: %v", err)
		return nil
	}
	for _, d := range layers {
		if h := d.Encoded(); !others.layers[h] && !others.leased[h] {
			rm.Deleted = addDigest(rm.Deleted, d)
		}
	}
	return s.sweep(others, func(h string) bool { return isHex(h, 64) && (mine.blobs[h] || mine.layers[h]) })
}

// diffIDs lists the layers of images, top first, as far as they can be read.
func (s *Store) diffIDs(es []*entry) []Digest {
	var ds []Digest
	for _, e := range es {
		img, err := s.load(e)
		if err != nil {
			continue
		}
		for _, l := range slices.Backward(img.Layers) {
			ds = addDigest(ds, l.DiffID)
		}
	}
	return ds
}

func addDigest(ds []Digest, d Digest) []Digest {
	if slices.Contains(ds, d) {
		return ds
	}
	return append(ds, d)
}
