package layerstore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Usage is what takes room in a store. Sizes are bytes.
type Usage struct {
	Images     []ImageUsage // newest first
	Containers []ContainerUsage

	Layers       Share // the uncompressed tars of images and containers; Unused is what no container has
	Blobs        Share // the compressed layers, each beside its tar; Unused is what can be made without again
	Partial      Share // what was fetched of layers that are not whole; Unused is what nobody is fetching
	Unreferenced Share // blobs, layers and files left by killed processes, to which nothing refers: Collect deletes them
}

// Share is a number of files and their size.
type Share struct {
	Count  int
	Size   int64
	Unused int64
}

// ImageUsage is what an image takes.
type ImageUsage struct {
	ImageSummary
	Shared     int64 // of Size, layers that other images have too
	Containers int   // made of it
}

// ContainerUsage is what a container takes.
type ContainerUsage struct {
	Container
	Size   int64 // of the files in its upper layer, each hard link counted once
	Active bool  // it is mounted, or something else is done with it
}

// Usage measures what takes room. It takes no lock: what comes and goes meanwhile may be missed. Errors: ErrCorrupt for a list
// of images or a container that cannot be read; ctx's. An image whose manifest cannot be read is logged, and its layers count as
// unreferenced.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	m := &measure{s: s, ctx: ctx, users: map[string]map[Digest]bool{}, active: map[string]bool{}, known: map[string]bool{}}
	for _, step := range []func() error{m.containers, m.images, m.layers, m.blobs, m.ingest} {
		if err := step(); err != nil {
			return Usage{}, s.explain("measuring the store", err)
		}
	}
	return m.u, nil
}

// measure is one Usage. Digests are 64 digits.
type measure struct {
	s      *Store
	ctx    context.Context //nolint:containedctx // one call's
	u      Usage
	users  map[string]map[Digest]bool // of a diffID: the manifests that have it
	active map[string]bool            // diffIDs that a container has
	known  map[string]bool            // blobs that something refers to; a layer's that it can be made of
	specs  map[string]bool            // blobs of layers
}

func (m *measure) containers() error {
	cs, err := m.s.Containers(m.ctx)
	if err != nil {
		return err
	}
	for _, c := range cs {
		u := ContainerUsage{Container: c}
		if u.Size, err = m.s.upperSize(m.ctx, c.ID); err != nil {
			return err
		}
		lock, err := m.s.LockContainer(c.ID, false)
		switch {
		case err == nil:
			err = lock.Release()
		case errors.Is(err, ErrBusy):
			u.Active, err = true, nil
		case errors.Is(err, ErrNotFound):
			continue
		case errors.Is(err, ErrNotWritable): // not this user's, so not to be told
			err = nil
		}
		if err != nil {
			return err
		}
		for _, d := range c.Layers {
			m.active[d.Encoded()] = true
		}
		m.known[c.Manifest.Encoded()], m.known[c.Image.Encoded()] = true, true
		m.u.Containers = append(m.u.Containers, u)
	}
	return nil
}

// upperSize sums the files of a container's upper layer, which a program may be changing.
func (s *Store) upperSize(ctx context.Context, id string) (sum int64, err error) {
	root, err := os.OpenRoot(s.ContainerDir(id) + "/upper")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer root.Close() //nolint:errcheck // read only
	linked := map[uint64]bool{}
	err = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // what is gone, or not to be read, is not counted
		}
		fi, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			if linked[st.Ino] {
				return nil
			}
			linked[st.Ino] = true
		}
		sum += fi.Size()
		return nil
	})
	return sum, err
}

func (m *measure) images() error {
	list, err := m.s.ImageList(m.ctx)
	if err != nil {
		return err
	}
	ix, err := m.s.readIndex()
	if err != nil {
		return err
	}
	m.specs = map[string]bool{}
	layers := map[Digest][]Digest{}
	for _, e := range ix.entries {
		m.known[e.manifest.Encoded()], m.known[e.desc.Digest.Encoded()] = true, true
		img, err := m.s.load(e)
		if err != nil {
			if m.s.ours(e) {
				m.s.log.Warnf("image %s cannot be read: %v", displayName(e), err)
			}
			continue
		}
		m.known[img.ID.Encoded()] = true
		for _, l := range img.Layers {
			diff := l.DiffID.Encoded()
			if m.users[diff] == nil {
				m.users[diff] = map[Digest]bool{}
			}
			m.users[diff][img.Manifest] = true
			m.known[l.Digest.Encoded()], m.specs[l.Digest.Encoded()] = true, true
			layers[img.Manifest] = append(layers[img.Manifest], l.DiffID)
		}
	}
	for _, sum := range list {
		u := ImageUsage{ImageSummary: sum}
		for _, d := range layers[sum.Manifest] {
			if len(m.users[d.Encoded()]) > 1 {
				size, _ := isRegular(m.s.path(dirLayers, d.Encoded()+suffixTar))
				u.Shared += size
			}
		}
		for _, c := range m.u.Containers {
			if c.Manifest == sum.Manifest {
				u.Containers++
			}
		}
		m.u.Images = append(m.u.Images, u)
	}
	return nil
}

func (m *measure) layers() error {
	return m.files(dirLayers, func(name string, size int64, _ uint64) {
		h := digits(name)
		switch used, active := len(m.users[h]) > 0, m.active[h]; {
		case strings.HasSuffix(name, suffixDiff):
		case !used && !active:
			m.u.Unreferenced.add(size, true)
		case strings.HasSuffix(name, suffixTar):
			m.u.Layers.add(size, !active)
		}
	})
}

// blobs counts those of layers that are not the layer's tar itself.
func (m *measure) blobs() error {
	return m.files(dirBlobs, func(name string, size int64, links uint64) {
		switch {
		case !m.known[name]:
			if links == 1 { // else it was counted as a layer
				m.u.Unreferenced.add(size, true)
			}
		case m.specs[name] && links == 1:
			m.u.Blobs.add(size, true)
		}
	})
}

func (m *measure) ingest() error {
	held := &marks{leased: map[string]bool{}}
	if err := m.s.markLeases(held, false); err != nil {
		return err
	}
	err := m.files(dirIngest, func(name string, size int64, _ uint64) {
		h := digits(name)
		switch {
		case strings.HasSuffix(name, suffixPartial):
			m.u.Partial.add(size, !held.leased[h])
		case strings.HasSuffix(name, suffixLock), strings.HasPrefix(name, leasePrefix), held.leased[h]:
		default:
			m.u.Unreferenced.add(size, true)
		}
	})
	if err != nil {
		return err
	}
	return m.files(dirTrash, func(_ string, size int64, _ uint64) { m.u.Unreferenced.add(size, true) })
}

func (x *Share) add(size int64, unused bool) {
	x.Count++
	x.Size += size
	if unused {
		x.Unused += size
	}
}

// files calls visit for the entries of a directory of the store.
func (m *measure) files(dir string, visit func(name string, size int64, links uint64)) error {
	names, err := os.ReadDir(m.s.path(dir))
	if err != nil {
		return err
	}
	for _, n := range names {
		if m.ctx.Err() != nil {
			return m.ctx.Err()
		}
		var st unix.Stat_t
		if err := unix.Lstat(m.s.path(dir, n.Name()), &st); err == nil { // else it is gone
			visit(n.Name(), st.Size, uint64(st.Nlink)) //nolint:unconvert // uint32 on other machines
		}
	}
	return nil
}
