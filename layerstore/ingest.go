package layerstore

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layerstore/tarlayer"
)

// LayerIngest takes one layer in: compressed bytes come by Write and, each in a goroutine of its own, are appended to the
// partial file and hashed, decompressed, hashed again, written as the tar and read into the index. One goroutine uses it.
// It ends with Commit, Abort or Discard; what comes after is ErrClosed from Write and Commit and nothing from the others.
type LayerIngest struct {
	s     *Store
	ctx   context.Context //nolint:containedctx // it bounds the session, which is one operation in several calls
	spec  LayerSpec
	hex   string
	lock  *os.File
	plain bool // an uncompressed layer: the partial file is the tar

	offset   int64 // compressed bytes that an earlier try left
	received int64 // compressed bytes, those included
	fromBlob bool  // the blob is there already and only tar or index lack
	partial  *os.File
	tar, idx *os.File // tar is nil when plain

	p        *pipeline
	stopCtx  func() bool
	in       *fan
	kept     chan struct{} // closed when the stage that writes the partial file has ended
	cur      *chunk
	digests  [2]hash.Hash // of the compressed and of the uncompressed bytes
	unpacked int64
	stats    tarlayer.Stats
	closed   bool
}

// BeginLayer starts to take in a layer. It waits for another session, of this process or another, that takes in the same
// blob. What an earlier try left is read through the decoder first: Offset tells how much. Errors: ErrExists when the
// layer is complete; ErrInvalid, ErrTooLarge for a spec that cannot be; ErrNoSpace, ErrNotWritable; ctx's, which also
// ends the session later.
func (s *Store) BeginLayer(ctx context.Context, spec LayerSpec) (*LayerIngest, error) {
	if err := checkSpec(&spec); err != nil {
		return nil, err
	}
	if s.HasLayer(spec) {
		return nil, fmt.Errorf("layer %s: %w", spec.Digest, ErrExists)
	}
	hex := spec.Digest.Encoded()
	lock, err := s.lockLayer(ctx, hex, spec.Digest, spec.DiffID)
	if err != nil {
		return nil, err
	}
	in := &LayerIngest{s: s, ctx: ctx, spec: spec, hex: hex, lock: lock, plain: spec.Digest == spec.DiffID}
	if s.HasLayer(spec) {
		in.unlock()
		return nil, fmt.Errorf("layer %s: %w", spec.Digest, ErrExists)
	}
	if err := in.open(); err != nil {
		_ = in.end(false)
		return nil, s.explain("storing layer "+string(spec.Digest), err)
	}
	if err := in.replay(); err != nil {
		_ = in.end(false)
		return nil, in.describe(err)
	}
	return in, nil
}

func checkSpec(spec *LayerSpec) error {
	if _, err := hexOf(spec.Digest); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	if _, err := hexOf(spec.DiffID); err != nil {
		return fmt.Errorf("layer %s: diffID: %w", spec.Digest, err)
	}
	if spec.Size < 0 {
		return fmt.Errorf("layer %s has a size of %d bytes: %w", spec.Digest, spec.Size, ErrInvalid)
	}
	if spec.Size > MaxLayerSize {
		return fmt.Errorf("layer %s has %d bytes: %w: at most %d are taken", spec.Digest, spec.Size, ErrTooLarge, int64(MaxLayerSize))
	}
	if spec.MaxUnpacked <= 0 {
		spec.MaxUnpacked = DefaultMaxUnpacked(spec.Size)
	}
	spec.MaxUnpacked = min(spec.MaxUnpacked, MaxLayerSize)
	return nil
}

// Offset tells how many compressed bytes are there from an earlier try, 0 to LayerSpec.Size: the next Write goes on there.
func (in *LayerIngest) Offset() int64 { return in.offset }

// open opens the files of the session and starts its pipeline.
func (in *LayerIngest) open() (err error) {
	if in.partial == nil {
		if in.partial, err = in.openPartial(); err != nil {
			return err
		}
	}
	if !in.plain {
		if in.tar, err = in.create(suffixTar); err != nil {
			return err
		}
	}
	if in.idx, err = in.create(suffixIdx); err != nil {
		return err
	}
	in.start()
	return nil
}

// openPartial opens what there is of the compressed bytes: the blob if it is complete, else the partial file.
func (in *LayerIngest) openPartial() (*os.File, error) {
	blob := in.s.path(dirBlobs, in.hex)
	if size, ok := isRegular(blob); ok && size == in.spec.Size {
		in.fromBlob, in.offset = true, size
		return os.Open(blob) //nolint:gosec // a name of our own
	}
	path := in.s.path(dirIngest, in.hex+suffixPartial)
	if size, ok := isRegular(path); ok && size > in.spec.Size {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode) //nolint:gosec // a name of our own
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	in.offset = fi.Size()
	return f, nil
}

func (in *LayerIngest) create(suffix string) (*os.File, error) {
	path := in.s.path(dirIngest, in.hex+suffix)
	// A new inode: what a killed session left may have been published by a rename just before.
	if err := removeIfThere(path); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode) //nolint:gosec // a name of our own
}

// start starts the stages: partial and hash, and either the index right away or the decoder and behind it hash, tar and index.
func (in *LayerIngest) start() {
	p := newPipeline()
	in.p, in.received, in.unpacked = p, 0, 0
	in.digests = [2]hash.Hash{sha256.New(), sha256.New()}
	in.stopCtx = context.AfterFunc(in.ctx, func() { p.fail(context.Cause(in.ctx)) })
	in.in = p.newFan(2)
	keep := appender{f: in.partial}
	old, replayed := in.offset, int64(0)
	h, kept := in.digests[0], make(chan struct{})
	in.kept = kept
	p.stage(func() error {
		defer close(kept)
		return p.each(in.in.outs[0], func(b []byte) error {
			_, _ = h.Write(b)
			if replayed < old { // these came from the file
				replayed += int64(len(b))
				keep.off, keep.synced = replayed, replayed
				return nil
			}
			return keep.write(b)
		})
	})
	src := &chunkReader{p: p, in: in.in.outs[1]}
	if in.plain {
		p.stage(func() error { return in.index(src) })
		return
	}
	out := p.newFan(3)
	tar := appender{f: in.tar, sparse: true}
	p.stage(func() error { return in.decode(src, out) })
	p.stage(func() error {
		return p.each(out.outs[0], func(b []byte) error { _, err := in.digests[1].Write(b); return err })
	})
	p.stage(func() error {
		if err := p.each(out.outs[1], tar.write); err != nil {
			return err
		}
		return tar.finish()
	})
	p.stage(func() error { return in.index(&chunkReader{p: p, in: out.outs[2]}) })
}

func (in *LayerIngest) decode(src io.Reader, out *fan) error {
	dec, err := newDecoder(bufio.NewReaderSize(src, chunkSize))
	if err != nil {
		return err
	}
	defer dec.Close() //nolint:errcheck // a decoder holds memory only
	for err == nil {
		c := getChunk()
		c.n, err = fill(dec, c.buf[:])
		if in.unpacked += int64(c.n); in.unpacked > in.spec.MaxUnpacked {
			return fmt.Errorf("its %d compressed bytes unpack to more than %d: %w (a decompression bomb?)",
				in.spec.Size, in.spec.MaxUnpacked, ErrTooLarge)
		}
		if !out.send(c) {
			return nil
		}
	}
	if in.p.failure() != nil {
		return nil // the decoder was told of what another stage reported
	}
	if !errors.Is(err, io.EOF) {
		return decodeError(err)
	}
	out.close()
	return nil
}

func (in *LayerIngest) index(src io.Reader) error {
	st, err := tarlayer.Build(src, in.idx, tarlayer.Limits{MaxSize: in.spec.MaxUnpacked})
	var host unix.Errno
	switch {
	case err == nil:
		in.stats = st
		return nil
	case in.p.failure() != nil, errors.As(err, &host):
		return err
	case errors.Is(err, tarlayer.ErrTooLarge):
		return &storeError{err.Error(), []error{ErrTooLarge, err}}
	}
	return &storeError{err.Error(), []error{ErrCorrupt, err}}
}

// rejectBlob decides what is wrong when the blob of the store does not make the layer: the blob, and then it is fetched
// again, or the spec.
func (in *LayerIngest) rejectBlob(err error) error {
	in.stop()
	if derr := in.dropDamagedBlob(); derr != nil {
		return derr
	}
	if in.s.HasBlob(in.spec.Digest) {
		return err
	}
	return in.Restart()
}

// replay feeds the pipeline what an earlier try left.
func (in *LayerIngest) replay() error {
	for in.received < in.offset {
		c := getChunk()
		n, err := in.partial.ReadAt(c.buf[:min(chunkSize, in.offset-in.received)], in.received)
		if n == 0 && err != nil {
			return fmt.Errorf("reading %s again: %w", in.partial.Name(), err)
		}
		c.n = n
		in.received += int64(n)
		if in.in.send(c) {
			continue
		}
		err = in.p.failure()
		if !isContentError(err) {
			return err
		}
		if in.fromBlob {
			return in.rejectBlob(err)
		}
		in.s.log.WithField("layer", in.spec.Digest).Warnf("bytes of an earlier pull are damaged, starting over: %v", err)
		return in.Restart()
	}
	return nil
}
