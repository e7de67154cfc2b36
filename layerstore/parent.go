package layerstore

import (
	"context"
	"fmt"
	"slices"
)

// usage is what holds images besides their names.
type usage struct {
	users    map[Digest][]string // names of containers, by manifest
	children map[Digest]int      // how many images have this ID as their parent
}

// usage reads the containers. The caller holds the store lock.
func (s *Store) usage(ctx context.Context, ix *index) (usage, error) {
	u := usage{map[Digest][]string{}, map[Digest]int{}}
	cs, err := s.Containers(ctx)
	if err != nil {
		return u, err
	}
	for _, c := range cs {
		u.users[c.Manifest] = addSorted(u.users[c.Manifest], c.Name)
	}
	for _, e := range ix.entries {
		if p := e.parent(); p != "" {
			u.children[p]++
		}
	}
	return u, nil
}

// containers names the containers of the images.
func (u usage) containers(es []*entry) []string {
	var names []string
	for _, e := range es {
		for _, n := range u.users[e.manifest] {
			names = addSorted(names, n)
		}
	}
	return names
}

func (u usage) isParent(e *entry) bool { return u.children[e.id()] > 0 }

func (u usage) free(e *entry) bool { return !u.isParent(e) && len(u.users[e.manifest]) == 0 }

// drop takes an image out of account.
func (u usage) drop(e *entry) {
	if p := e.parent(); p != "" {
		u.children[p]--
	}
}

// id is the digest of the config, or of the manifest if another tool put the image there.
func (e *entry) id() Digest {
	if id := Digest(e.desc.Annotations[annotationID]); id != "" {
		if _, err := hexOf(id); err == nil {
			return id
		}
	}
	return e.manifest
}

// parent is the ID of the image that this one was made from, "" if that is not known.
func (e *entry) parent() Digest {
	p := Digest(e.desc.Annotations[annotationParent])
	if _, err := hexOf(p); err != nil {
		return ""
	}
	return p
}

// SetParent records that the image of an ID was made here from another: while it is there its parent is kept, and one
// without a name is not listed. A parent's layers must be the lower ones of the image (ErrInvalid). Errors: ErrNotFound
// for either; ErrNotWritable; ctx's.
func (s *Store) SetParent(ctx context.Context, id, parent Digest) error {
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return err
	}
	defer l.Release() //nolint:errcheck // closing a lock file loses nothing
	ix, err := s.readIndex()
	if err != nil {
		return err
	}
	children, err := s.match(ix, string(id))
	if err != nil {
		return err
	}
	parents, err := s.match(ix, string(parent))
	if err != nil {
		return err
	}
	below, above := s.diffIDs(parents[0]), s.diffIDs(children[0])
	if id == parent || len(below) > len(above) || !slices.Equal(below, above[len(above)-len(below):]) {
		return invalidf("image %.19s is no parent of %.19s, which has not its layers", parent, id)
	}
	for _, e := range children {
		if e.desc.Annotations == nil {
			return fmt.Errorf("image %.19s: %w: another tool put it there", id, ErrInvalid)
		}
		e.desc.Annotations[annotationParent] = string(parent)
	}
	return s.writeIndex(ix)
}
