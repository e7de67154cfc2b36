package layerstore

import (
	"context"
	"slices"
)

// PruneImages removes, all at once, those images that unused takes and that no container and no image that stays needs.
// Errors: those of unused, after which nothing is removed; ErrNotWritable; ctx's.
func (s *Store) PruneImages(ctx context.Context, unused func(ImageSummary) (bool, error)) (Removed, error) {
	return s.removing(ctx, "removing unused images", func() (rm Removed, err error) {
		ix, err := s.readIndex()
		if err != nil {
			return rm, err
		}
		used, err := s.usage(ctx, ix)
		if err != nil {
			return rm, err
		}
		var some []*entry
		for _, e := range ix.entries {
			sum, ok := s.summarize(e)
			if !ok {
				continue // what another tool put there and is no image is not ours to judge
			}
			take, err := unused(sum)
			if err != nil {
				return rm, err
			}
			if take && len(used.users[e.manifest]) == 0 {
				some = append(some, e)
			}
		}
		gone := used.childless(some)
		for _, e := range gone {
			rm.Untagged = slices.Concat(rm.Untagged, e.names, e.repoDigests)
		}
		if len(gone) == 0 {
			return rm, nil
		}
		return rm, s.deleteImages(ctx, ix, gone, &rm)
	})
}

// childless leaves those images out that an image which stays has as its parent.
func (u usage) childless(es []*entry) []*entry {
	var gone []*entry
	for again := true; again; {
		again = false
		es = slices.DeleteFunc(es, func(e *entry) bool {
			if u.isParent(e) {
				return false
			}
			u.drop(e)
			gone = append(gone, e)
			again = true
			return true
		})
	}
	return gone
}
