package layerstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layerstore/tarlayer"
)

// ImportOptions bound a layer that comes without a manifest.
type ImportOptions struct {
	MaxSize int64  // bytes of the tar; 0 is MaxLayerSize
	DiffID  Digest // what the tar must be, "" for anything
}

// ImportLayer takes in a layer that no manifest describes: an uncompressed tar, read from r to its end. Its blob is the
// tar itself, so the result's Digest and DiffID are one. The lease is extended by it before the layer gets its names,
// and keeps it until an image has it. Errors: ErrCorrupt for what is no tar of a layer, ErrTooLarge, ErrDigestMismatch;
// ErrNoSpace, ErrNotWritable; those of r and ctx.
func (s *Store) ImportLayer(ctx context.Context, lease *Lease, r io.Reader, o ImportOptions) (LayerSpec, error) {
	if o.MaxSize <= 0 || o.MaxSize > MaxLayerSize {
		o.MaxSize = MaxLayerSize
	}
	// Until the digest is known the files have a name that nobody else waits for; its lock keeps collectors off.
	lock, err := s.lockLayer(ctx, randomHex(32))
	if err != nil {
		return LayerSpec{}, err
	}
	defer unlockNamed(lock) //nolint:errcheck // closing a lock file loses nothing
	im := &importer{s: s, ctx: ctx, o: o, base: lock.Name()[:len(lock.Name())-len(suffixLock)]}
	defer im.close()
	spec, err := im.run(lease, r)
	if err != nil && !isContentError(err) {
		err = s.explain("storing a layer", err)
	}
	return spec, err
}

// importer is one ImportLayer.
type importer struct {
	s        *Store
	ctx      context.Context //nolint:containedctx // one call's
	o        ImportOptions
	base     string // path of the files without their suffixes
	tar, idx *os.File
	size     int64
}

func (im *importer) run(lease *Lease, r io.Reader) (spec LayerSpec, err error) {
	if im.tar, err = im.create(suffixTar); err != nil {
		return spec, err
	}
	if im.idx, err = im.create(suffixIdx); err != nil {
		return spec, err
	}
	d, err := im.read(r)
	if err != nil {
		return spec, err
	}
	if im.o.DiffID != "" && d != im.o.DiffID {
		return spec, fmt.Errorf("the layer's bytes are %s, its config says %s: %w", d, im.o.DiffID, ErrDigestMismatch)
	}
	if err := lease.Pin(d); err != nil {
		return spec, err
	}
	spec = LayerSpec{Digest: d, Size: im.size, MediaType: v1.MediaTypeImageLayer, DiffID: d}
	return spec, im.publish(spec)
}

func (im *importer) create(suffix string) (*os.File, error) {
	return os.OpenFile(im.base+suffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode) //nolint:gosec // a name of our own
}

// read passes the tar on to its hash, its file and its index, each in a goroutine.
func (im *importer) read(r io.Reader) (Digest, error) {
	p := newPipeline()
	stop := context.AfterFunc(im.ctx, func() { p.fail(context.Cause(im.ctx)) })
	defer stop()
	out, h, tar := p.newFan(3), sha256.New(), appender{f: im.tar, sparse: true}
	p.stage(func() error {
		return p.each(out.outs[0], func(b []byte) error { _, err := h.Write(b); return err })
	})
	p.stage(func() error {
		if err := p.each(out.outs[1], tar.write); err != nil {
			return err
		}
		return tar.finish()
	})
	p.stage(func() error { return im.index(p, &chunkReader{p: p, in: out.outs[2]}) })
	if err := im.feed(out, r); err != nil {
		p.fail(err)
	} else {
		out.close()
	}
	p.wg.Wait()
	return digest.NewDigest(digest.SHA256, h), p.failure()
}

func (im *importer) feed(out *fan, r io.Reader) error {
	for {
		c := getChunk()
		var err error
		c.n, err = fill(r, c.buf[:])
		if im.size += int64(c.n); im.size > im.o.MaxSize {
			return fmt.Errorf("the layer has more than %d bytes: %w", im.o.MaxSize, ErrTooLarge)
		}
		if !out.send(c) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (im *importer) index(p *pipeline, src io.Reader) error {
	_, err := tarlayer.Build(src, im.idx, tarlayer.Limits{MaxSize: im.o.MaxSize})
	var host unix.Errno
	switch {
	case err == nil, p.failure() != nil, errors.As(err, &host):
		return err
	case errors.Is(err, tarlayer.ErrTooLarge):
		return &storeError{err.Error(), []error{ErrTooLarge, err}}
	}
	return &storeError{err.Error(), []error{ErrCorrupt, err}}
}

// publish gives the layer its names as LayerIngest does for an uncompressed one, under the lock of its digest.
func (im *importer) publish(spec LayerSpec) error {
	hex := spec.Digest.Encoded()
	lock, err := im.s.lockLayer(im.ctx, hex, spec.Digest)
	if err != nil {
		return err
	}
	in := &LayerIngest{s: im.s, ctx: im.ctx, spec: spec, hex: hex, lock: lock, plain: true, partial: im.tar, idx: im.idx}
	defer in.unlock()
	if im.s.HasLayer(spec) {
		return nil
	}
	return in.publish()
}

// close removes what has not been published.
func (im *importer) close() {
	for _, f := range []*os.File{im.tar, im.idx} {
		if f != nil {
			_ = f.Close()
			_ = removeIfThere(f.Name())
		}
	}
}

// TempFile makes a file without a name on the store's file system, for what must be read twice. It is gone when it is
// closed, or its process ends. Errors: ErrNoSpace, ErrNotWritable.
func (s *Store) TempFile() (*os.File, error) {
	fd, err := unix.Open(s.path(dirIngest), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, fileMode)
	if err == nil {
		return os.NewFile(uintptr(fd), s.path(dirIngest)+" (temporary)"), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return nil, s.explain("making a temporary file", err)
	}
	f, err := os.OpenFile(s.path(dirIngest, tmpPrefix+randomHex(8)), os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err == nil {
		err = os.Remove(f.Name())
	}
	return f, s.explain("making a temporary file", err)
}
