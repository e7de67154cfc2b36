package layerstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// LockContainer takes the lock of a container without waiting: exclusively while it is served or removed, shared by who
// only needs it to stay. Errors: ErrBusy while another holds it in a way that excludes this, ErrNotFound, ErrNotWritable.
func (s *Store) LockContainer(id string, exclusive bool) (*Lock, error) {
	if !isHex(id, 64) {
		return nil, fmt.Errorf("container %.100q: %w: not 64 hexadecimal digits", id, ErrInvalid)
	}
	path := s.ContainerDir(id) + "/" + nameLock
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode) //nolint:gosec // a name of our own
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %.12s: %w in %s", id, ErrNotFound, s.root)
	}
	if err != nil {
		return nil, s.explain("locking container "+id[:12], err)
	}
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	if err := flock(f, how|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("container %.12s: %w: another process uses it", id, ErrBusy)
		}
		return nil, s.explain("locking container "+id[:12], err)
	}
	if !samePath(f, path) { // removed between the two
		_ = f.Close()
		return nil, fmt.Errorf("container %.12s: %w in %s", id, ErrNotFound, s.root)
	}
	return &Lock{f}, nil
}

// RemoveContainer deletes a container with all that was written in it. It disappears at once, by a rename; what a killed
// process leaves to delete then, Collect deletes. id is the whole ID. Errors: ErrBusy while it is mounted, ErrNotFound,
// ErrNotWritable, ctx's.
func (s *Store) RemoveContainer(ctx context.Context, id string) error {
	held, err := s.LockContainer(id, true)
	if err != nil {
		return err
	}
	defer held.Release() //nolint:errcheck // closing a lock file loses nothing
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return err
	}
	name := randomHex(16)
	err = os.Rename(s.ContainerDir(id), s.path(dirTrash, name))
	if err == nil {
		err = syncDir(s.path(dirContainers))
	}
	if err = firstError(err, l.Release()); err != nil {
		return s.explain("removing container "+id[:12], err)
	}
	t, err := openTrash(s.path(dirTrash))
	if err != nil {
		return s.explain("removing container "+id[:12], err)
	}
	defer t.close()
	return s.explain("removing container "+id[:12], t.remove(ctx, name))
}
