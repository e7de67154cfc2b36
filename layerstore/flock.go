package layerstore

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Lock is a held flock(2). It ends with Release or with the process.
type Lock struct{ f *os.File }

// Release gives the lock back. Releasing twice is harmless.
func (l *Lock) Release() error {
	if l == nil || l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return f.Close()
}

// flock retries what a signal interrupts.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// flockContext waits for the lock in a goroutine. When ctx ends first, that goroutine closes f once it has the lock;
// otherwise the caller owns f, locked. On any error f is closed.
func flockContext(ctx context.Context, f *os.File, how int) error {
	err := flock(f, how|unix.LOCK_NB)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		_ = f.Close()
		return err
	}
	got := make(chan error, 1)
	go func() { got <- flock(f, how) }()
	select {
	case err = <-got:
		if err != nil {
			_ = f.Close()
		}
		return err
	case <-ctx.Done():
		go func() { _ = firstError(<-got, f.Close()) }() // nobody is left to tell
		return context.Cause(ctx)
	}
}

// lockStore takes <root>/lock: exclusive to change index.json or containers/ and to collect, shared to write or pin what
// a collector must see whole. Nobody waits for the network, a layer's lock or a container's while holding it.
func (s *Store) lockStore(ctx context.Context, exclusive bool) (*Lock, error) {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	f, err := os.OpenFile(s.path(nameLock), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, s.explain("locking the store", err)
	}
	if err := flockContext(ctx, f, how); err != nil {
		return nil, s.explain("locking the store", err)
	}
	return &Lock{f}, nil
}

// samePath reports whether path still names the open file f: a lock file is deleted by who released it, and a lock on a
// deleted file excludes nobody.
func samePath(f *os.File, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(int(f.Fd()), &a) == nil && unix.Lstat(path, &b) == nil && a.Ino == b.Ino && a.Dev == b.Dev
}

// lockNamed opens, locks exclusively and verifies a lock file that its holders delete.
func lockNamed(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode) //nolint:gosec // a name of our own
		if err != nil {
			return nil, err
		}
		if err := flockContext(ctx, f, unix.LOCK_EX); err != nil {
			return nil, err
		}
		if samePath(f, path) {
			return f, nil
		}
		_ = f.Close()
	}
}

// unlockNamed deletes the lock file before the lock ends, so that who waits for it sees that it is gone.
func unlockNamed(f *os.File) error {
	err := removeIfThere(f.Name())
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
