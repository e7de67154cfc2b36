package layerstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layerstore/tarlayer"
)

// maxCheckJobs bounds how many files are hashed at a time, each with a buffer of 1 MiB.
const maxCheckJobs = 8

// CheckOptions are the choices of a check.
type CheckOptions struct {
	Jobs     int                     // files hashed at a time; 0 is one for each processor, 8 at most
	Progress func(done, total int64) // told of bytes hashed, one call at a time; may be nil
}

// checker gathers a Report.
type checker struct {
	s     *Store
	ctx   context.Context //nolint:containedctx // one call's
	o     CheckOptions
	files []checkFile
	total int64

	mu   sync.Mutex // guards what follows
	r    Report
	done int64
}

// checkFile is an inode whose bytes are hashed, by its names: an uncompressed layer's tar is its blob.
type checkFile struct {
	paths []string // below the root
	size  int64
}

// Check is CheckWith without choices.
func (s *Store) Check(ctx context.Context) (Report, error) { return s.CheckWith(ctx, CheckOptions{}) }

// CheckWith verifies the whole store: it hashes every blob and tar, verifies every index, and looks for what images and
// containers refer to. It takes no lock while it hashes; a file that another process removes meanwhile is no problem.
// Garbage is counted, not a problem: Collect deletes it. The error is one that kept it from looking, or ctx's.
func (s *Store) CheckWith(ctx context.Context, o CheckOptions) (Report, error) {
	c := &checker{s: s, ctx: ctx, o: o}
	if err := s.checkLayout(); err != nil {
		c.problem(nameLayout, err)
	}
	for _, step := range []func() error{c.references, c.blobs, c.layers, c.hashAll} {
		if err := step(); err != nil {
			return c.r, s.explain("checking the store", err)
		}
	}
	slices.SortStableFunc(c.r.Problems, func(a, b Problem) int { return strings.Compare(a.Path, b.Path) })
	return c.r, nil
}

func (c *checker) problem(path string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.r.Problems = append(c.r.Problems, Problem{Path: path, Err: err})
}

// imageProblem is a problem of an image that index.json lists.
func (c *checker) imageProblem(e *entry, err error) {
	c.r.Problems = append(c.r.Problems, Problem{Path: nameIndex, Image: e.manifest, Err: err})
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
		c.imageProblem(e, fmt.Errorf("image %s: %w", displayName(e), err))
		return false
	}
	if !c.s.HasBlob(e.desc.Digest) {
		c.imageProblem(e, fmt.Errorf("image %s: its OCI manifest %s: %w", displayName(e), e.desc.Digest, ErrNotFound))
	}
	for _, spec := range img.Layers {
		if !c.s.HasLayer(spec) {
			c.imageProblem(e, fmt.Errorf("image %s: layer %s (diffID %s) is not whole: %w", displayName(e), spec.Digest, spec.DiffID, ErrNotFound))
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
		c.add(path)
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
			c.add(path)
		case suffixIdx, suffixDiff:
		default:
			c.problem(path, damaged("no layer has this name"))
		}
	}
	return nil
}

// add has a file hashed.
func (c *checker) add(path string) {
	fi, err := os.Lstat(c.s.path(path))
	if err != nil {
		return // gone meanwhile, or told when it is opened
	}
	c.files = append(c.files, checkFile{[]string{path}, fi.Size()})
}

// hashAll hashes what was found, several files at a time, and verifies the index of each layer.
func (c *checker) hashAll() error {
	c.join()
	jobs := c.o.Jobs
	if jobs <= 0 {
		jobs = min(runtime.GOMAXPROCS(0), maxCheckJobs)
	}
	g, ctx := errgroup.WithContext(c.ctx)
	c.ctx = ctx
	next := make(chan checkFile)
	for range jobs {
		g.Go(func() error {
			buf := make([]byte, 1<<20)
			for f := range next {
				if err := c.file(f, buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(next)
		for _, f := range c.files {
			select {
			case next <- f:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return g.Wait()
}

// join puts the names of one inode together.
func (c *checker) join() {
	byInode := map[[2]uint64]int{}
	joined := c.files[:0:0]
	for _, f := range c.files {
		var st unix.Stat_t
		if unix.Lstat(c.s.path(f.paths[0]), &st) == nil && st.Nlink > 1 {
			key := [2]uint64{st.Dev, st.Ino}
			if i, ok := byInode[key]; ok {
				joined[i].paths = append(joined[i].paths, f.paths...)
				continue
			}
			byInode[key] = len(joined)
		}
		joined = append(joined, f)
		c.total += f.size
	}
	c.files = joined
}

func (c *checker) file(f checkFile, buf []byte) error {
	got, err := c.hash(f.paths[0], buf)
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	for _, path := range f.paths {
		h := digits(path[strings.LastIndexByte(path, '/')+1:])
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			c.problem(path, err)
		case got.Encoded() != h:
			c.problem(path, fmt.Errorf("its bytes are %s: %w", got, ErrDigestMismatch))
		}
		if strings.HasSuffix(path, suffixTar) {
			c.index(h)
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

// hash reads a file and returns its digest.
func (c *checker) hash(path string, buf []byte) (Digest, error) {
	f, err := os.OpenFile(c.s.path(path), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // read only
	if fi, err := f.Stat(); err == nil && !fi.Mode().IsRegular() {
		return "", damaged("it is not a file")
	}
	h := sha256.New()
	_, err = io.CopyBuffer(struct{ io.Writer }{h}, &checkReader{contextReader{c.ctx, f}, c}, buf)
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

// checkReader counts what is read.
type checkReader struct {
	contextReader
	c *checker
}

func (r *checkReader) Read(p []byte) (int, error) {
	n, err := r.contextReader.Read(p)
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += int64(n)
	c.r.Bytes = c.done
	if c.o.Progress != nil {
		c.o.Progress(c.done, c.total)
	}
	return n, err
}
