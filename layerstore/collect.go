package layerstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// marks are the digests, as 64 digits, that something refers to.
type marks struct {
	blobs  map[string]bool
	layers map[string]bool // diffIDs
	leased map[string]bool // either, pinned by running processes
}

// Collect deletes what no image and no container refers to and no running process has pinned: blobs, layers, and what
// killed processes left in ingest/ and trash/. It decides and renames into trash/ under the store lock, and deletes
// after. It returns the bytes of disk freed. Errors: ErrCorrupt when an image's manifest cannot be read, so that nothing
// is deleted on a guess; ErrNotWritable; ctx's.
func (s *Store) Collect(ctx context.Context) (freed int64, err error) {
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return 0, err
	}
	err = s.collectLocked(ctx)
	if rerr := l.Release(); err == nil {
		err = rerr
	}
	if err != nil {
		return 0, s.explain("collecting garbage", err)
	}
	freed, err = s.emptyTrash(ctx)
	return freed, s.explain("collecting garbage", err)
}

func (s *Store) collectLocked(ctx context.Context) error {
	ix, err := s.readIndex()
	if err != nil {
		return err
	}
	m, err := s.mark(ctx, ix, true)
	if err != nil {
		return err
	}
	return s.sweep(m, func(string) bool { return true })
}

// reap deletes what killed processes left in ingest/ and trash/: locks and leases that nobody holds, and what was being
// written. Partial files stay, for the next pull to carry on from. It costs a listing when nothing was left.
func (s *Store) reap(ctx context.Context) error {
	left, err := s.anythingLeft()
	if err != nil || !left {
		return err
	}
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return err
	}
	m := &marks{leased: map[string]bool{}}
	if err = s.markLeases(m, true); err == nil {
		err = s.sweepIngest(m, func(string) bool { return true }, func(name string) bool { return strings.HasSuffix(name, suffixPartial) })
	}
	if err = firstError(err, l.Release()); err != nil {
		return err
	}
	_, err = s.emptyTrash(ctx)
	return err
}

// anythingLeft reports whether there are files in ingest/ or trash/ that reap may delete. Those of running processes
// count: who holds them is found out under the store lock.
func (s *Store) anythingLeft() (bool, error) {
	for _, dir := range []string{dirIngest, dirTrash} {
		names, err := os.ReadDir(s.path(dir))
		if err != nil {
			return false, err
		}
		for _, n := range names {
			if !strings.HasSuffix(n.Name(), suffixPartial) {
				return true, nil
			}
		}
	}
	return false, nil
}

// mark finds all that images, containers and leases refer to. With reap, for which the caller holds the store lock
// exclusively, it deletes the locks and leases that nobody holds; else a shared lock is enough.
func (s *Store) mark(ctx context.Context, ix *index, reap bool) (*marks, error) {
	m := &marks{blobs: map[string]bool{}, layers: map[string]bool{}, leased: map[string]bool{}}
	for _, e := range ix.entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.markEntry(m, e); err != nil {
			return nil, fmt.Errorf("image %s: %w: remove it or pull it again first", displayName(e), err)
		}
	}
	cs, err := s.Containers(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range cs {
		for _, d := range c.Layers {
			m.layers[d.Encoded()] = true
		}
		m.blobs[c.Image.Encoded()] = true
		if err := s.markManifest(m, c.Manifest, 0); err != nil && !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("container %s: %w: remove it first", c.Name, err)
		}
	}
	return m, s.markLeases(m, reap)
}

// markEntry marks an image: its manifest, and the OCI form of it if that is another.
func (s *Store) markEntry(m *marks, e *entry) error {
	if err := s.markManifest(m, e.manifest, 0); err != nil {
		return err
	}
	m.blobs[e.desc.Digest.Encoded()] = true
	return nil
}

// markManifest marks a manifest and what it refers to; of an index that another tool put there, all its manifests.
func (s *Store) markManifest(m *marks, d Digest, depth int) error {
	if m.blobs[d.Encoded()] {
		return nil
	}
	b, err := s.ReadBlob(d, MaxManifestSize)
	if err != nil {
		return err
	}
	m.blobs[d.Encoded()] = true
	var refs struct {
		Config    *descriptor  `json:"config"`
		Layers    []descriptor `json:"layers"`
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(b, &refs); err != nil {
		return damaged("manifest %s is damaged: %v", d, err)
	}
	for _, r := range refs.Layers {
		m.blobs[strings.TrimPrefix(string(r.Digest), "sha256:")] = true
	}
	for _, r := range refs.Manifests {
		if _, err := hexOf(r.Digest); err != nil || depth > 3 {
			continue
		}
		if err := s.markManifest(m, r.Digest, depth+1); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	if refs.Config == nil {
		return nil
	}
	m.blobs[strings.TrimPrefix(string(refs.Config.Digest), "sha256:")] = true
	if t := refs.Config.MediaType; t != v1.MediaTypeImageConfig && t != mediaDockerConfig {
		return nil
	}
	return s.markConfig(m, refs.Config.Digest, len(refs.Layers))
}

// markConfig marks the diffIDs of a config.
func (s *Store) markConfig(m *marks, d Digest, layers int) error {
	b, err := s.ReadBlob(d, MaxConfigSize)
	if err != nil {
		return err
	}
	c, err := parseConfig(b, layers)
	if err != nil {
		return &storeError{err.Error(), []error{err, ErrCorrupt}}
	}
	for _, diff := range c.RootFS.DiffIDs {
		m.layers[diff.Encoded()] = true
	}
	return nil
}

// markLeases reads the leases and locks of ingest/ that someone holds. What begins with a digest there is kept for the
// holder of its lock: m.leased tells.
func (s *Store) markLeases(m *marks, reap bool) error {
	names, err := os.ReadDir(s.path(dirIngest))
	if err != nil {
		return err
	}
	for _, n := range names {
		layer, isLock := strings.CutSuffix(n.Name(), suffixLock)
		isLock = isLock && isHex(layer, 64)
		if !isLock && !strings.HasPrefix(n.Name(), leasePrefix) {
			continue
		}
		held, err := s.readHeld(s.path(dirIngest, n.Name()), m, reap)
		if err != nil {
			return err
		}
		if held && isLock {
			m.leased[layer] = true
		}
	}
	return nil
}

func (s *Store) readHeld(path string, m *marks, reap bool) (held bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // a name of our own
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil && !reap:
		return false, nil
	case err == nil:
		return false, removeIfThere(path) // under its lock: who waits for it sees that it is gone
	case errors.Is(err, unix.EWOULDBLOCK):
		return true, readLease(f, m.leased)
	}
	return false, err
}

// sweep renames into trash/ what is not marked and whose 64 digits, or whole name in ingest/ when there are none, the
// filter takes.
func (s *Store) sweep(m *marks, filter func(name string) bool) error {
	err := s.sweepDir(dirBlobs, filter, func(n string) bool { return m.blobs[n] || m.leased[n] })
	if err != nil {
		return err
	}
	err = s.sweepDir(dirLayers, filter, func(n string) bool {
		h := digits(n)
		if strings.HasSuffix(n, suffixDiff) {
			return m.blobs[h] || m.leased[h]
		}
		return m.layers[h] || m.leased[h]
	})
	if err != nil {
		return err
	}
	return s.sweepIngest(m, filter, func(string) bool { return false })
}

// sweepIngest is sweep of ingest/, apart from locks and leases, which markLeases reaps, and from what keep takes.
func (s *Store) sweepIngest(m *marks, filter, keep func(name string) bool) error {
	return s.sweepDir(dirIngest, filter, func(n string) bool {
		h := digits(n)
		return m.leased[h] && isHex(h, 64) || strings.HasSuffix(n, suffixLock) || strings.HasPrefix(n, leasePrefix) || keep(n)
	})
}

func (s *Store) sweepDir(dir string, filter, used func(name string) bool) error {
	names, err := os.ReadDir(s.path(dir))
	if err != nil {
		return err
	}
	for _, n := range names {
		if used(n.Name()) || !filter(digits(n.Name())) {
			continue
		}
		if err := s.toTrash(s.path(dir, n.Name())); err != nil {
			return err
		}
	}
	return nil
}

// digits is the part of a file's name that is a digest, or the name if it does not begin with one.
func digits(name string) string {
	if len(name) > 64 && isHex(name[:64], 64) && name[64] == '.' {
		return name[:64]
	}
	return name
}

// toTrash renames a file or tree into trash/, where emptyTrash deletes it without the store lock.
func (s *Store) toTrash(path string) error {
	err := os.Rename(path, s.path(dirTrash, randomHex(16)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// emptyTrash deletes what this or a killed process has put in trash/.
func (s *Store) emptyTrash(ctx context.Context) (freed int64, err error) {
	names, err := os.ReadDir(s.path(dirTrash))
	if err != nil {
		return 0, err
	}
	t, err := openTrash(s.path(dirTrash))
	if err != nil {
		return 0, err
	}
	defer t.close()
	for _, n := range names {
		if err := t.remove(ctx, n.Name()); err != nil {
			return t.freed, err
		}
	}
	return t.freed, nil
}
