package layerstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
)

// readLimited reads a regular file of at most limit bytes.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // a path of the store
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, damaged("%s is not a regular file", path)
	}
	if fi.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d: %w", path, fi.Size(), limit, ErrTooLarge)
	}
	b := make([]byte, fi.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

// HasBlob reports whether the blob is there.
func (s *Store) HasBlob(d Digest) bool {
	h, err := hexOf(d)
	if err != nil {
		return false
	}
	_, ok := isRegular(s.path(dirBlobs, h))
	return ok
}

// OpenBlob opens a blob for reading. Its bytes are not verified: whoever needs that hashes them. Errors: ErrNotFound,
// ErrInvalid for a digest of another form.
func (s *Store) OpenBlob(d Digest) (*os.File, error) {
	h, err := hexOf(d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(dirBlobs, h))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w in %s", d, ErrNotFound, s.root)
	}
	return f, err
}

// ReadBlob returns a manifest, config or other small blob of at most limit bytes. Errors: ErrNotFound, ErrTooLarge,
// ErrDigestMismatch when the bytes are no longer those that were stored, ErrInvalid for a digest of another form.
func (s *Store) ReadBlob(d Digest, limit int64) ([]byte, error) {
	h, err := hexOf(d)
	if err != nil {
		return nil, err
	}
	b, err := readLimited(s.path(dirBlobs, h), limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w in %s", d, ErrNotFound, s.root)
	}
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(b); got != d {
		return nil, fmt.Errorf("blob %s of %s is damaged (its bytes are %s): pull its image again: %w", d, s.root, got, ErrDigestMismatch)
	}
	return b, nil
}

// WriteBlob stores a manifest or config of at most MaxConfigSize bytes, durably, and returns its digest. A blob that
// nothing refers to may be collected: hold a Lease of it. Errors: ErrTooLarge, ErrNoSpace, ErrNotWritable.
func (s *Store) WriteBlob(b []byte) (Digest, error) {
	if len(b) > MaxConfigSize {
		return "", fmt.Errorf("blob of %d bytes: %w: at most %d are written at once", len(b), ErrTooLarge, MaxConfigSize)
	}
	d := digest.FromBytes(b)
	l, err := s.lockStore(context.Background(), false)
	if err != nil {
		return "", err
	}
	defer l.Release() //nolint:errcheck // closing a lock file loses nothing
	return d, s.writeBlobLocked(d, b)
}

// writeBlobLocked needs the store lock, shared or exclusive.
func (s *Store) writeBlobLocked(d Digest, b []byte) error {
	path := s.path(dirBlobs, d.Encoded())
	if old, err := readLimited(path, int64(len(b))); err == nil && digest.FromBytes(old) == d {
		return nil
	}
	return s.explain("storing blob "+string(d), s.writeFile(path, b))
}
