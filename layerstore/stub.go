package layerstore

// Signatures only, so that others can compile: replaced within the hour. Every one answers an error.

import (
	"context"
	"errors"
	"os"

	"github.com/plyfs/plyfs/overlay"
)

var errNotYet = errors.New("layerstore: not written yet")

// Store is an open store. Its methods may be called from any goroutine.
type Store struct{ root string }

// Open opens the store at root, making it if it is absent.
func Open(root string) (*Store, error) { return nil, errNotYet }

// Root is the absolute path of the store.
func (s *Store) Root() string { return s.root }

// Close releases what the store holds.
func (s *Store) Close() error { return errNotYet }

// HasBlob reports whether the blob is there.
func (s *Store) HasBlob(d Digest) bool { return false }

// ReadBlob returns a blob of at most limit bytes and verifies its digest.
func (s *Store) ReadBlob(d Digest, limit int64) ([]byte, error) { return nil, errNotYet }

// OpenBlob opens a blob for reading, unverified.
func (s *Store) OpenBlob(d Digest) (*os.File, error) { return nil, errNotYet }

// WriteBlob stores a manifest or config.
func (s *Store) WriteBlob(b []byte) (Digest, error) { return "", errNotYet }

// Lease keeps digests from being collected until it is released or its process ends.
type Lease struct{}

// Lease pins digests (of manifests, configs, blobs and diffIDs, present or not) that no image or container refers to yet.
func (s *Store) Lease(ctx context.Context, ds ...Digest) (*Lease, error) { return nil, errNotYet }

// Pin adds digests.
func (l *Lease) Pin(ds ...Digest) error { return errNotYet }

// Release ends the lease.
func (l *Lease) Release() error { return errNotYet }

// HasLayer reports whether compressed blob, tar and index are all there.
func (s *Store) HasLayer(spec LayerSpec) bool { return false }

// LayerIngest takes one layer in.
type LayerIngest struct{}

// BeginLayer starts to take a layer in, carrying on from an earlier try.
func (s *Store) BeginLayer(ctx context.Context, spec LayerSpec) (*LayerIngest, error) {
	return nil, errNotYet
}

// Offset tells how many compressed bytes are there from an earlier try.
func (in *LayerIngest) Offset() int64 { return 0 }

// Write appends compressed bytes.
func (in *LayerIngest) Write(p []byte) (int, error) { return 0, errNotYet }

// Restart throws the bytes away.
func (in *LayerIngest) Restart() error { return errNotYet }

// Commit verifies and names the layer.
func (in *LayerIngest) Commit() error { return errNotYet }

// Abort keeps the bytes for a later try.
func (in *LayerIngest) Abort() error { return errNotYet }

// Discard throws them away.
func (in *LayerIngest) Discard() error { return errNotYet }

// OpenLayer opens a layer for mounting.
func (s *Store) OpenLayer(ctx context.Context, diffID Digest) (overlay.Layer, error) {
	return nil, errNotYet
}

// PutImage adds an image whose blobs and layers are there.
func (s *Store) PutImage(ctx context.Context, name string, manifest []byte, mediaType, repoDigest string) (Image, error) {
	return Image{}, errNotYet
}

// Images lists the images, newest first.
func (s *Store) Images(ctx context.Context) ([]Image, error) { return nil, errNotYet }

// ResolveImage finds an image by full reference, repo digest or (short) ID.
func (s *Store) ResolveImage(ctx context.Context, nameOrID string) (Image, error) {
	return Image{}, errNotYet
}

// TagImage gives an image one more name.
func (s *Store) TagImage(ctx context.Context, nameOrID, name string) error { return errNotYet }

// RemoveImage takes a name away, and with the last one the image.
func (s *Store) RemoveImage(ctx context.Context, nameOrID string, force bool) (Removed, error) {
	return Removed{}, errNotYet
}

// Collect deletes garbage.
func (s *Store) Collect(ctx context.Context) (freed int64, err error) { return 0, errNotYet }

// Check verifies the whole store.
func (s *Store) Check(ctx context.Context) (Report, error) { return Report{}, errNotYet }

// CreateContainer makes a container.
func (s *Store) CreateContainer(ctx context.Context, c Container) (Container, error) {
	return Container{}, errNotYet
}

// Containers lists the containers.
func (s *Store) Containers(ctx context.Context) ([]Container, error) { return nil, errNotYet }

// Container finds a container by ID, name or short ID.
func (s *Store) Container(ctx context.Context, nameOrID string) (Container, error) {
	return Container{}, errNotYet
}

// UpdateContainer rewrites a container's record.
func (s *Store) UpdateContainer(ctx context.Context, c Container) error { return errNotYet }

// RemoveContainer deletes a container and its own layer.
func (s *Store) RemoveContainer(ctx context.Context, id string) error { return errNotYet }

// ContainerDir is <root>/containers/<id>.
func (s *Store) ContainerDir(id string) string { return "" }

// Lock is a held flock.
type Lock struct{}

// LockContainer takes a container's lock without waiting.
func (s *Store) LockContainer(id string, exclusive bool) (*Lock, error) { return nil, errNotYet }

// Release gives the lock back.
func (l *Lock) Release() error { return errNotYet }
