package layerstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// RemoveOptions are the choices of RemoveImage.
type RemoveOptions struct {
	Force   bool // take all names of an image given by its ID
	NoPrune bool // keep parents that no name and no other image holds any more
}

// RemoveImage takes a name or a repo digest from an image and, with its last one, removes the image: its manifest, config
// and those layers that nothing else refers to, then its parents as far as they have no names, children or containers.
// With the last tag of a repository go the repo digests of that repository. Given an ID it removes the image with all its
// names, of which those of more than one repository or tag want force (ErrMultipleNames). An image that a container uses
// is not removed (ErrInUse, naming the containers); force then takes its names only. One that is another's parent loses its
// names only; by its ID it is not removed (ErrParent). Other errors: ErrNotFound, ErrAmbiguous, ErrNotWritable, ctx's.
func (s *Store) RemoveImage(ctx context.Context, nameOrID string, o RemoveOptions) (Removed, error) {
	return s.removing(ctx, "removing image "+nameOrID, func() (Removed, error) { return s.removeImageLocked(ctx, nameOrID, o) })
}

// removing runs what decides about images under the store lock, and deletes what it has moved into trash/ after.
func (s *Store) removing(ctx context.Context, what string, decide func() (Removed, error)) (Removed, error) {
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return Removed{}, err
	}
	rm, err := decide()
	err = firstError(err, l.Release())
	if err != nil {
		return rm, s.explain(what, err)
	}
	if len(rm.Deleted) > 0 {
		rm.Freed, err = s.emptyTrash(ctx)
	}
	return rm, s.explain(what, err)
}

func (s *Store) removeImageLocked(ctx context.Context, nameOrID string, o RemoveOptions) (Removed, error) {
	ix, err := s.readIndex()
	if err != nil {
		return Removed{}, err
	}
	found, err := s.match(ix, nameOrID)
	if err != nil {
		return Removed{}, err
	}
	used, err := s.usage(ctx, ix)
	if err != nil {
		return Removed{}, err
	}
	r := &removal{s: s, ctx: ctx, ix: ix, used: used, o: o}
	switch e := found[0]; {
	case slices.Contains(e.names, nameOrID), slices.Contains(e.repoDigests, nameOrID):
		err = r.byName(found, nameOrID)
	default:
		err = r.byID(found, nameOrID)
	}
	return r.rm, err
}

// removal is one removal, under the store lock.
type removal struct {
	s    *Store
	ctx  context.Context
	ix   *index
	used usage
	o    RemoveOptions
	rm   Removed
}

// byName takes a tag or repo digest away, and the images with their last.
func (r *removal) byName(es []*entry, name string) error {
	users := r.used.containers(es)
	last := !slices.ContainsFunc(es, func(e *entry) bool { return len(e.restOf(name)) > 0 })
	if last && len(users) > 0 && !r.o.Force {
		return &storeError{fmt.Sprintf("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %.12s: "+
			"remove it first (plyfs rm)", name, strings.Join(users, ", "), es[0].id().Encoded()), []error{ErrInUse}}
	}
	var gone []*entry
	r.rm.Untagged = []string{name}
	for _, e := range es {
		rest := e.restOf(name)
		for _, d := range e.repoDigests {
			if d != name && !slices.Contains(rest, d) {
				r.rm.Untagged = addLast(r.rm.Untagged, d)
			}
		}
		e.names = slices.DeleteFunc(e.names, func(n string) bool { return !slices.Contains(rest, n) })
		e.repoDigests = slices.DeleteFunc(e.repoDigests, func(d string) bool { return !slices.Contains(rest, d) })
		if len(rest) == 0 && len(users) == 0 && !r.used.isParent(e) {
			gone = append(gone, e)
		}
	}
	if len(gone) == 0 {
		return r.s.writeIndex(r.ix)
	}
	return r.delete(gone)
}

// restOf is what an image is called once a name is gone. A repository's digests go with its last tag.
func (e *entry) restOf(name string) []string {
	rest := slices.DeleteFunc(slices.Clone(e.names), func(n string) bool { return n == name })
	repo := repository(name)
	tagged := slices.ContainsFunc(rest, func(n string) bool { return repository(n) == repo })
	for _, d := range e.repoDigests {
		if d == name || !strings.Contains(name, "@") && !tagged && repository(d) == repo {
			continue
		}
		rest = append(rest, d)
	}
	return rest
}

// repository is a reference without its tag or digest.
func repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}

// byID removes images of one ID with all their names.
func (r *removal) byID(es []*entry, id string) error {
	var names, digests, repositories []string
	for _, e := range es {
		for _, n := range e.names {
			names = addSorted(names, n)
			repositories = addSorted(repositories, repository(n))
		}
		for _, d := range e.repoDigests {
			digests = addSorted(digests, d)
			repositories = addSorted(repositories, repository(d))
		}
	}
	if slices.ContainsFunc(es, r.used.isParent) {
		return &storeError{fmt.Sprintf("conflict: unable to delete %.12s (cannot be forced) - image has dependent child images", es[0].id().Encoded()), []error{ErrParent}}
	}
	if (len(names) > 1 || len(repositories) > 1) && !r.o.Force {
		return &storeError{fmt.Sprintf("conflict: unable to delete %.12s (must be forced) - image is referenced in multiple repositories (%s): "+
			"remove the names, or force it", es[0].id().Encoded(), strings.Join(append(names, digests...), ", ")), []error{ErrMultipleNames}}
	}
	users := r.used.containers(es)
	if len(users) > 0 && (!r.o.Force || len(names) == 0) {
		return &storeError{fmt.Sprintf("conflict: unable to delete %s (must be forced) - image is being used by container %s: remove it first (plyfs rm)",
			id, strings.Join(users, ", ")), []error{ErrInUse}}
	}
	r.rm.Untagged = slices.Concat(names, digests)
	if len(users) == 0 {
		return r.delete(es)
	}
	for _, e := range es {
		e.names, e.repoDigests = nil, nil
	}
	return r.s.writeIndex(r.ix)
}

// delete removes images, and then parents that nothing holds.
func (r *removal) delete(es []*entry) error {
	gone := slices.Clone(es)
	for i := 0; i < len(gone) && !r.o.NoPrune; i++ {
		r.used.drop(gone[i])
		for _, e := range r.ix.entries {
			if e.id() == gone[i].parent() && len(e.names)+len(e.repoDigests) == 0 && r.used.free(e) && !slices.Contains(gone, e) {
				gone = append(gone, e)
			}
		}
	}
	return r.s.deleteImages(r.ctx, r.ix, gone, &r.rm)
}

// deleteImages takes the entries out of index.json and moves into trash/ what only they referred to.
func (s *Store) deleteImages(ctx context.Context, ix *index, es []*entry, rm *Removed) error {
	mine := &marks{blobs: map[string]bool{}, layers: map[string]bool{}}
	doomed := map[*entry]bool{}
	for _, e := range es {
		// A damaged image is removed all the same; what cannot be found of it now is garbage for Collect.
		_ = s.markEntry(mine, e)
		mine.blobs[e.manifest.Encoded()], mine.blobs[e.desc.Digest.Encoded()] = true, true
		doomed[e] = true
	}
	layers := make([][]Digest, len(es))
	last := map[Digest]int{} // which of the images is the last to have a layer
	for i, e := range es {
		layers[i] = s.diffIDs(e)
		for _, d := range layers[i] {
			last[d] = i
		}
	}
	ix.entries = slices.DeleteFunc(ix.entries, func(e *entry) bool { return doomed[e] })
	if err := s.writeIndex(ix); err != nil {
		rm.Deleted, rm.Untagged = nil, nil
		return err
	}
	kept := map[Digest]bool{} // IDs that another manifest has too
	for _, e := range ix.entries {
		kept[e.id()] = true
	}
	// Names are gone durably. Should the rest fail, for a damaged other image say, Collect makes up for it.
	others, err := s.mark(ctx, ix, true)
	listed := map[Digest]bool{}
	add := func(d Digest) {
		if !listed[d] {
			listed[d] = true
			rm.Deleted = append(rm.Deleted, d)
		}
	}
	for i, e := range es {
		if !kept[e.id()] {
			add(e.id())
		}
		for _, d := range layers[i] {
			if h := d.Encoded(); last[d] == i && err == nil && !others.layers[h] && !others.leased[h] {
				add(d)
			}
		}
	}
	if err != nil {
		s.log.Warnf("layers of the removed image stay until garbage is collected: %v", err)
		return nil
	}
	return s.sweep(others, func(h string) bool { return isHex(h, 64) && (mine.blobs[h] || mine.layers[h]) })
}

// diffIDs lists the layers of an image, top first, none if it cannot be read.
func (s *Store) diffIDs(e *entry) []Digest {
	img, err := s.load(e)
	if err != nil {
		return nil
	}
	var ds []Digest
	for _, l := range slices.Backward(img.Layers) {
		ds = append(ds, l.DiffID)
	}
	return ds
}

func addLast(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}
