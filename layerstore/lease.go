package layerstore

import (
	"bufio"
	"context"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Lease keeps digests (of manifests, configs, blobs, and diffIDs) from being collected until it is released or its
// process ends: a locked file in ingest/ that lists them. Its methods may be called from any goroutine.
type Lease struct {
	s    *Store
	mu   sync.Mutex
	f    *os.File        // nil once released
	pins map[string]bool // as 64 digits
}

// Lease pins digests that no image or container refers to yet, whether they are in the store already or will be
// fetched. Who pulls takes it before asking what is there and releases it after PutImage. What killed processes left
// half done is deleted first, apart from partial files. Errors: ErrInvalid for a digest of another form, ErrNotWritable,
// ErrNoSpace, ctx's.
func (s *Store) Lease(ctx context.Context, ds ...Digest) (*Lease, error) {
	text, err := leaseText(ds)
	if err != nil {
		return nil, err
	}
	if err := s.reap(ctx); err != nil {
		return nil, s.explain("taking a lease", err)
	}
	l, err := s.lockStore(ctx, false)
	if err != nil {
		return nil, err
	}
	defer l.Release() //nolint:errcheck // closing a lock file loses nothing
	f, err := os.OpenFile(s.path(dirIngest, leasePrefix+randomHex(8)), os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, s.explain("taking a lease", err)
	}
	if err = flock(f, unix.LOCK_EX); err == nil { // only Check may have it, for an instant
		_, err = f.WriteString(text)
	}
	if err != nil {
		_ = unlockNamed(f)
		return nil, s.explain("taking a lease", err)
	}
	lease := &Lease{s: s, f: f, pins: map[string]bool{}}
	lease.note(ds)
	return lease, nil
}

func (l *Lease) note(ds []Digest) {
	for _, d := range ds {
		l.pins[d.Encoded()] = true
	}
}

// Pin adds digests to the lease. Errors: as for Store.Lease; ErrClosed after Release.
func (l *Lease) Pin(ds ...Digest) error {
	text, err := leaseText(ds)
	if err != nil {
		return err
	}
	lock, err := l.s.lockStore(context.Background(), false)
	if err != nil {
		return err
	}
	defer lock.Release() //nolint:errcheck // closing a lock file loses nothing
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return ErrClosed
	}
	l.note(ds)
	_, err = l.f.WriteString(text)
	return l.s.explain("extending a lease", err)
}

// Release ends the lease. Releasing twice is harmless.
func (l *Lease) Release() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return unlockNamed(f)
}

// Drop releases the lease and deletes what it had pinned and nothing else refers to, partial files too: for work that
// failed for good. What another lease or session holds stays. Errors: those of Store.Collect, with the lease released.
func (l *Lease) Drop(ctx context.Context) error {
	s := l.s
	lock, err := s.lockStore(ctx, true)
	if err != nil {
		return firstError(err, l.Release())
	}
	err = l.Release()
	if err == nil {
		err = l.dropLocked(ctx)
	}
	if err = firstError(err, lock.Release()); err == nil {
		_, err = s.emptyTrash(ctx)
	}
	return s.explain("deleting what was brought in", err)
}

func (l *Lease) dropLocked(ctx context.Context) error {
	ix, err := l.s.readIndex()
	if err != nil {
		return err
	}
	m, err := l.s.mark(ctx, ix, true)
	if err != nil {
		return err
	}
	return l.s.sweep(m, func(name string) bool { return l.pins[name] })
}

func leaseText(ds []Digest) (string, error) {
	var b strings.Builder
	for _, d := range ds {
		h, err := hexOf(d)
		if err != nil {
			return "", err
		}
		b.WriteString(h)
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// readLease adds the digests that a lease or a layer's lock file lists. A line cut short by a full disk pins nothing: its
// writer was told of the error.
func readLease(r io.Reader, held map[string]bool) error {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		if isHex(sc.Text(), 64) {
			held[sc.Text()] = true
		}
	}
	return sc.Err()
}

// lockLayer takes the lock of what ingest/<hex>.* belongs to, waiting for another process or goroutine that has it, and
// lists in the lock file the digests that its holder works on, as a lease.
func (s *Store) lockLayer(ctx context.Context, hex string, pins ...Digest) (*os.File, error) {
	text, err := leaseText(pins)
	if err != nil {
		return nil, err
	}
	f, err := lockNamed(ctx, s.path(dirIngest, hex+suffixLock))
	if err != nil {
		return nil, s.explain("locking layer "+hex[:12], err)
	}
	l, err := s.lockStore(ctx, false)
	if err == nil {
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteString(text)
		}
		err = firstError(s.explain("locking layer "+hex[:12], err), l.Release())
	}
	if err != nil {
		_ = unlockNamed(f)
		return nil, err
	}
	return f, nil
}
