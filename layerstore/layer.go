package layerstore

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/plyfs/plyfs/layerstore/tarlayer"
	"github.com/plyfs/plyfs/overlay"
)

// HasLayer reports whether blob, tar and index of the layer are all there, and that it was this blob that made this tar.
// It reads no content: Check does.
func (s *Store) HasLayer(spec LayerSpec) bool {
	blob, err := hexOf(spec.Digest)
	if err != nil {
		return false
	}
	diff, err := hexOf(spec.DiffID)
	if err != nil {
		return false
	}
	if size, ok := isRegular(s.path(dirBlobs, blob)); !ok || size != spec.Size {
		return false
	}
	if _, ok := isRegular(s.path(dirLayers, diff+suffixTar)); !ok {
		return false
	}
	if _, ok := isRegular(s.path(dirLayers, diff+suffixIdx)); !ok {
		return false
	}
	return blob == diff || s.madeFrom(blob, diff)
}

// madeFrom reports whether a layer was made from a compressed blob: BeginLayer's Commit leaves a symlink that says so.
func (s *Store) madeFrom(blob, diff string) bool {
	target, err := os.Readlink(s.path(dirLayers, blob+suffixDiff))
	return err == nil && target == diff
}

// OpenLayer opens a layer for mounting; the cost does not depend on the layer. An index that is missing, of another
// version or damaged is built again from the tar, which takes a second a GB. Errors: ErrNotFound, ErrCorrupt when the tar
// itself is no layer, ErrNoSpace and ErrNotWritable from rebuilding, ctx's.
func (s *Store) OpenLayer(ctx context.Context, diffID Digest) (overlay.Layer, error) {
	diff, err := hexOf(diffID)
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	l, err := s.openIndexed(diff)
	if err == nil {
		return l, nil
	}
	if !rebuildable(err) {
		return nil, err
	}
	return s.rebuild(ctx, diffID, err)
}

// OpenTar opens the uncompressed tar of a layer for reading. Its bytes are not verified: whoever needs that hashes them,
// diffID being their digest. Errors: ErrNotFound, ErrNotWritable for want of permission, ErrInvalid for a digest of
// another form.
func (s *Store) OpenTar(diffID Digest) (*os.File, error) {
	diff, err := hexOf(diffID)
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	f, err := os.Open(s.path(dirLayers, diff+suffixTar))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("layer %s: %w in %s: pull its image again", diffID, ErrNotFound, s.root)
	}
	return f, s.explain("opening layer "+string(diffID), err)
}

// errNoIndex is what openIndexed says when only the index lacks.
var errNoIndex = errors.New("the index is missing")

func rebuildable(err error) bool {
	return errors.Is(err, errNoIndex) || errors.Is(err, tarlayer.ErrStale) || errors.Is(err, overlay.ErrCorrupt)
}

func (s *Store) openIndexed(diff string) (*tarlayer.Layer, error) {
	tar, err := s.OpenTar(Digest("sha256:" + diff))
	if err != nil {
		return nil, err
	}
	idx, err := os.Open(s.path(dirLayers, diff+suffixIdx))
	if err != nil {
		_ = tar.Close()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errNoIndex
		}
		return nil, s.explain("opening layer sha256:"+diff, err)
	}
	defer idx.Close() //nolint:errcheck // read only, and mapped by then
	l, err := tarlayer.Open(idx, tar, layerID(diff))
	if err != nil {
		_ = tar.Close()
		return nil, err
	}
	return l, nil
}

// layerID is the first 8 bytes of a digest.
func layerID(diff string) uint64 {
	b, err := hex.DecodeString(diff[:16])
	if err != nil {
		return 0 // diff is hexadecimal: hexOf saw to that
	}
	return binary.BigEndian.Uint64(b)
}

// rebuild makes a layer's index again, unless another process has done so while this one waited for the layer's lock.
func (s *Store) rebuild(ctx context.Context, diffID Digest, why error) (overlay.Layer, error) {
	diff := diffID.Encoded()
	lock, err := s.lockLayer(ctx, diff, diffID)
	if err != nil {
		return nil, err
	}
	defer unlockNamed(lock) //nolint:errcheck // closing a lock file loses nothing
	if l, err := s.openIndexed(diff); err == nil {
		return l, nil
	} else if !rebuildable(err) {
		return nil, err
	}
	s.log.WithField("layer", diffID).Warnf("making the layer's index again: %v", why)
	if err := s.rebuildLocked(ctx, diff); err != nil {
		return nil, s.explain("making the index of layer "+string(diffID)+" again", err)
	}
	l, err := s.openIndexed(diff)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", diffID, err)
	}
	return l, nil
}

func (s *Store) rebuildLocked(ctx context.Context, diff string) error {
	tar, err := os.Open(s.path(dirLayers, diff+suffixTar))
	if err != nil {
		return err
	}
	defer tar.Close() //nolint:errcheck // read only
	tmp := s.path(dirIngest, diff+suffixIdx)
	if err := removeIfThere(tmp); err != nil {
		return err
	}
	idx, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode) //nolint:gosec // a name of our own
	if err != nil {
		return err
	}
	_, err = tarlayer.Build(&contextReader{ctx, tar}, idx, tarlayer.Limits{MaxSize: MaxLayerSize})
	if err == nil {
		err = idx.Sync()
	}
	if cerr := idx.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, s.path(dirLayers, diff+suffixIdx))
	}
	if err != nil {
		_ = os.Remove(tmp)
		if errors.Is(err, tarlayer.ErrArchive) {
			return &storeError{err.Error(), []error{err, ErrCorrupt}}
		}
		return err
	}
	return syncDir(s.path(dirLayers))
}

// contextReader stops reading when ctx ends.
type contextReader struct {
	ctx context.Context //nolint:containedctx // a reader has no other way to get it
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// LayerSize is how long the layer's tar is, bytes; 0 if the store has it not.
func (s *Store) LayerSize(diffID Digest) int64 {
	diff, err := hexOf(diffID)
	if err != nil {
		return 0
	}
	size, _ := isRegular(s.path(dirLayers, diff+suffixTar))
	return size
}
