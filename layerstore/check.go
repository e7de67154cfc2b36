package layerstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layerstore/tarlayer"
)

// checker gathers a Report.
type checker struct {
	s      *Store
	ctx    context.Context //nolint:containedctx // one call's
	r      Report
	hashed map[[2]uint64]Digest // by device and inode: an uncompressed layer's tar is its blob
	buf    []byte
}

// Check verifies the whole store: it hashes every blob and tar, verifies every index, and looks for what images and
// containers refer to. It takes no lock while it hashes; a file that another process removes meanwhile is no problem.
// Garbage is counted, not a problem: Collect deletes it. The error is one that kept Check from looking, or ctx's.
func (s *Store) Check(ctx context.Context) (Report, error) {
	c := &checker{s: s, ctx: ctx, hashed: map[[2]uint64]Digest{}, buf: make([]byte, 1<<20)}
	if err := s.checkLayout(); err != nil {
		c.problem(nameLayout, err)
	}
	for _, step := range []func() error{c.references, c.blobs, c.layers} {
		if err := step(); err != nil {
			return c.r, s.explain("checking the store", err)
		}
	}
	return c.r, nil
}

func (c *checker) problem(path string, err error) {
	c.r.Problems = append(c.r.Problems, Problem{Path: path, Err: err})
}

// references checks that what index.json and the containers refer to is there. The shared lock keeps it there meanwhile.
func (c *checker) references() error {
	l, err := c.s.lockStore(c.ctx, false)
	if err != nil {
		return err
	}
	defer l.Release() //nolint:errcheck // closing a lock file loses nothing
	ix, err := c.s.readIndex()
	if errors.Is(err, ErrCorrupt) {
		c.problem(nameIndex, err)
		return nil
	}
	if err != nil {
		return err
	}
	whole := true
	for _, e := range ix.entries {
		whole = c.image(e) && whole
	}
	if err := c.containers(); err != nil || !whole {
		return err
	}
	return c.garbage(ix)
}

func (c *checker) image(e *entry) bool {
	img, err := c.s.load(e)
	if errors.Is(err, ErrInvalid) && !c.s.ours(e) {
		return true
	}
	c.r.Images++
	if err != nil {
		c.problem(nameIndex, fmt.Errorf("image %s: %w", displayName(e), err))
		return false
	}
	if !c.s.HasBlob(e.desc.Digest) {
		c.problem(nameIndex, fmt.Errorf("image %s: its OCI manifest %s: %w", displayName(e), e.desc.Digest, ErrNotFound))
	}
	for _, spec := range img.Layers {
		if !c.s.HasLayer(spec) {
			c.problem(nameIndex, fmt.Errorf("image %s: layer %s (diffID %s) is not whole: %w", displayName(e), spec.Digest, spec.DiffID, ErrNotFound))
		}
	}
	return true
}

func (c *checker) containers() error {
	names, err := os.ReadDir(c.s.path(dirContainers))
	if err != nil {
		return err
	}
	byName := map[string]string{}
	for _, n := range names {
		path := dirContainers + "/" + n.Name()
		if !isHex(n.Name(), 64) {
			c.problem(path, damaged("no container has this name"))
			continue
		}
		c.r.Containers++
		ct, err := c.s.readContainer(n.Name())
		if err == nil {
			err = c.s.checkContent(ct)
		}
		if other := byName[ct.Name]; err == nil && other != "" {
			err = damaged("container %.12s has the same name %s", other, ct.Name)
		}
		for _, d := range []string{"upper", "work", "merged"} {
			if fi, serr := os.Lstat(c.s.ContainerDir(n.Name()) + "/" + d); err == nil && (serr != nil || !fi.IsDir()) {
				err = damaged("directory %s is missing", d)
			}
		}
		byName[ct.Name] = ct.ID
		if err != nil {
			c.problem(path, err)
		}
	}
	return nil
}

// garbage counts what Collect would delete now.
func (c *checker) garbage(ix *index) error {
	m, err := c.s.mark(c.ctx, ix, false)
	if err != nil {
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrDigestMismatch) || errors.Is(err, ErrNotFound) {
			return nil // told already by image or containers
		}
		return err
	}
	for _, dir := range []string{dirBlobs, dirLayers, dirIngest, dirTrash} {
		names, err := os.ReadDir(c.s.path(dir))
		if err != nil {
			return err
		}
		for _, n := range names {
			h := digits(n.Name())
			if !m.blobs[h] && !m.layers[h] && !m.leased[h] && !strings.HasPrefix(n.Name(), leasePrefix) {
				c.r.Garbage++
			}
		}
	}
	return nil
}

func (c *checker) blobs() error {
	names, err := os.ReadDir(c.s.path(dirBlobs))
	if err != nil {
		return err
	}
	for _, n := range names {
		path := dirBlobs + "/" + n.Name()
		if !isHex(n.Name(), 64) {
			c.problem(path, damaged("no blob has this name"))
			continue
		}
		c.r.Blobs++
		if err := c.hash(path, n.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) layers() error {
	names, err := os.ReadDir(c.s.path(dirLayers))
	if err != nil {
		return err
	}
	for _, n := range names {
		path, h := dirLayers+"/"+n.Name(), digits(n.Name())
		switch suffix := strings.TrimPrefix(n.Name(), h); suffix {
		case suffixTar:
			c.r.Layers++
			if err := c.hash(path, h); err != nil {
				return err
			}
			c.index(h)
		case suffixIdx, suffixDiff:
		default:
			c.problem(path, damaged("no layer has this name"))
		}
	}
	return nil
}

// index verifies a layer's index if there is one; OpenLayer makes one that is missing or out of date.
func (c *checker) index(diff string) {
	l, err := c.s.openIndexed(diff)
	if err == nil {
		err = firstError(l.Verify(), l.Close())
	}
	if err != nil && !errors.Is(err, errNoIndex) && !errors.Is(err, tarlayer.ErrStale) && !errors.Is(err, ErrNotFound) {
		c.problem(dirLayers+"/"+diff+suffixIdx, err)
	}
}

// hash checks that a file has the digest that its name says.
func (c *checker) hash(path, want string) error {
	f, err := os.OpenFile(c.s.path(path), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		c.problem(path, err)
		return nil
	}
	defer f.Close() //nolint:errcheck // read only
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	got, ok := c.hashed[[2]uint64{st.Dev, st.Ino}]
	if !ok {
		h := sha256.New()
		n, err := io.CopyBuffer(struct{ io.Writer }{h}, &contextReader{c.ctx, f}, c.buf)
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		if err != nil {
			c.problem(path, fmt.Errorf("cannot be read: %w", err))
			return nil
		}
		c.r.Bytes += n
		got = digest.NewDigest(digest.SHA256, h)
		c.hashed[[2]uint64{st.Dev, st.Ino}] = got
	}
	if got.Encoded() != want {
		c.problem(path, fmt.Errorf("its bytes are %s: %w", got, ErrDigestMismatch))
	}
	return nil
}
