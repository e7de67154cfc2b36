package layerstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// isContentError tells that the bytes are wrong, not the host or the caller's context: keeping them helps nobody.
func isContentError(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrDigestMismatch) || errors.Is(err, ErrTooLarge)
}

// Write takes compressed bytes that follow those there are. It blocks while the stages behind it are busy. Errors, after
// which only Abort or Discard make sense: ErrTooLarge for more than LayerSpec.Size bytes or a tar beyond MaxUnpacked;
// ErrCorrupt for a damaged compression or tar; either with ErrPartial, see there; ErrNoSpace; ctx's; ErrClosed.
func (in *LayerIngest) Write(b []byte) (int, error) {
	if in.closed {
		return 0, fmt.Errorf("layer %s: %w", in.spec.Digest, ErrClosed)
	}
	if int64(len(b)) > in.spec.Size-in.received {
		in.p.fail(fmt.Errorf("more comes than the %d bytes its manifest says: %w", in.spec.Size, ErrTooLarge))
	}
	if err := in.p.failure(); err != nil {
		return 0, in.describe(err)
	}
	written := 0
	for len(b) > 0 {
		if in.cur == nil {
			in.cur = getChunk()
		}
		n := copy(in.cur.buf[in.cur.n:], b)
		in.cur.n += n
		in.received += int64(n)
		written += n
		b = b[n:]
		if in.cur.n == chunkSize && !in.flush() {
			return written, in.describe(in.p.failure())
		}
	}
	return written, nil
}

// flush sends on what Write has collected.
func (in *LayerIngest) flush() bool {
	c := in.cur
	in.cur = nil
	return c == nil || in.in.send(c)
}

// describe makes an error of the pipeline one that names the layer and says what to do.
func (in *LayerIngest) describe(err error) error {
	if !isContentError(err) {
		return in.s.explain("storing layer "+string(in.spec.Digest), err)
	}
	if in.offset > 0 && !in.fromBlob {
		return &storeError{fmt.Sprintf("layer %s: %v, after the first %d bytes came from an earlier pull; they are thrown away: pull again",
			in.spec.Digest, err, in.offset), []error{err, ErrPartial}}
	}
	return fmt.Errorf("layer %s: %w", in.spec.Digest, err)
}

// Restart throws away what has come, for a server that cannot go on at Offset, and starts at 0.
func (in *LayerIngest) Restart() error {
	if in.closed {
		return fmt.Errorf("layer %s: %w", in.spec.Digest, ErrClosed)
	}
	in.stop()
	err := in.closeFiles()
	err = firstError(err, in.dropDamagedBlob(), removeIfThere(in.s.path(dirIngest, in.hex+suffixPartial)))
	in.offset, in.fromBlob = 0, false
	if err == nil {
		err = in.open()
	}
	return in.s.explain("storing layer "+string(in.spec.Digest), err)
}

// Abort ends the session and keeps the compressed bytes for a later try, unless they were found to be wrong.
func (in *LayerIngest) Abort() error {
	if in.closed {
		return nil
	}
	bad := isContentError(in.p.failure())
	if in.p.failure() == nil && in.flush() {
		// What has come goes to the partial file first. The other stages are not told of an end: they would find fault.
		close(in.in.outs[0])
		<-in.kept
	}
	return in.end(bad)
}

// Discard ends the session and throws the compressed bytes away.
func (in *LayerIngest) Discard() error {
	if in.closed {
		return nil
	}
	return in.end(true)
}

// Commit verifies size and both digests, makes everything durable and only then gives the layer its names. Errors:
// io.ErrUnexpectedEOF when bytes are missing (those there are kept for a later try); ErrDigestMismatch; those of Write.
// It ends the session, also with an error.
func (in *LayerIngest) Commit() error {
	if in.closed {
		return fmt.Errorf("layer %s: %w", in.spec.Digest, ErrClosed)
	}
	if in.received < in.spec.Size && in.p.failure() == nil {
		got := in.received
		err := in.Abort()
		return firstError(fmt.Errorf("layer %s: %d of %d bytes came: %w", in.spec.Digest, got, in.spec.Size, io.ErrUnexpectedEOF), err)
	}
	if in.flush() {
		in.in.close()
		in.p.wg.Wait()
	}
	err := in.p.failure()
	if err == nil {
		err = in.verify()
	}
	if err == nil {
		err = in.publish()
	}
	if err != nil {
		err = in.describe(err)
	}
	return firstError(err, in.end(err != nil && isContentError(err)))
}

func (in *LayerIngest) verify() error {
	got := digest.NewDigest(digest.SHA256, in.digests[0])
	if got != in.spec.Digest {
		return fmt.Errorf("the bytes that came are %s: %w", got, ErrDigestMismatch)
	}
	if !in.plain {
		got = digest.NewDigest(digest.SHA256, in.digests[1])
	}
	if got != in.spec.DiffID {
		return fmt.Errorf("its uncompressed bytes are %s, the config says diffID %s: %w", got, in.spec.DiffID, ErrDigestMismatch)
	}
	return nil
}

// publish makes the files durable, all at once, and then renames them. Whichever of the names a crash leaves, HasLayer
// wants all of them, and each is of a file that is whole.
func (in *LayerIngest) publish() error {
	var g errgroup.Group
	for _, f := range []*os.File{in.partial, in.tar, in.idx} {
		if f != nil {
			g.Go(f.Sync)
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s, diff := in.s, in.spec.DiffID.Encoded()
	if !in.plain {
		if err := in.publishTar(s.path(dirLayers, diff+suffixTar)); err != nil {
			return err
		}
		if err := replaceSymlink(diff, s.path(dirLayers, in.hex+suffixDiff)); err != nil {
			return err
		}
	}
	if err := os.Rename(in.idx.Name(), s.path(dirLayers, diff+suffixIdx)); err != nil {
		return err
	}
	if !in.fromBlob {
		if err := os.Rename(in.partial.Name(), s.path(dirBlobs, in.hex)); err != nil {
			return err
		}
	}
	if in.plain {
		if err := in.linkTar(s.path(dirLayers, diff+suffixTar)); err != nil {
			return err
		}
	}
	var names errgroup.Group
	names.Go(func() error { return syncDir(s.path(dirBlobs)) })
	names.Go(func() error { return syncDir(s.path(dirLayers)) })
	return names.Wait()
}

// publishTar names the tar of a compressed layer. It takes the place of one that another compression of the layer
// brought, whose readers keep what they have open, but not of one that is a blob too and costs no disk.
func (in *LayerIngest) publishTar(path string) error {
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && st.Nlink > 1 && st.Size == in.unpacked {
		return nil
	}
	return os.Rename(in.tar.Name(), path)
}

// linkTar makes the tar of an uncompressed layer a hard link of its blob. That has its final name by then: a session that
// finds a partial file may write to it.
func (in *LayerIngest) linkTar(path string) error {
	tmp := in.s.path(dirIngest, in.hex+suffixTar)
	if err := removeIfThere(tmp); err != nil {
		return err
	}
	if err := os.Link(in.s.path(dirBlobs, in.hex), tmp); err != nil {
		return err
	}
	err := os.Rename(tmp, path)
	// Between two names of one inode rename(2) does nothing, and the temporary name stays.
	return firstError(err, removeIfThere(tmp))
}

func replaceSymlink(target, path string) error {
	err := os.Symlink(target, path)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if old, err := os.Readlink(path); err == nil && old == target {
		return nil
	}
	if err := removeIfThere(path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// stop ends the pipeline and waits for its stages.
func (in *LayerIngest) stop() {
	if in.p == nil {
		return
	}
	in.stopCtx()
	in.p.fail(ErrClosed)
	in.p.wg.Wait()
	in.cur = nil
}

func (in *LayerIngest) closeFiles() error {
	var errs []error
	for _, f := range []*os.File{in.partial, in.tar, in.idx} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	in.partial, in.tar, in.idx = nil, nil, nil
	return firstError(errs...)
}

// end closes the session: the tar and index of an unfinished layer go, and with drop the compressed bytes too.
func (in *LayerIngest) end(drop bool) error {
	in.closed = true
	in.stop()
	err := in.closeFiles()
	for _, suffix := range []string{suffixTar, suffixIdx} {
		err = firstError(err, removeIfThere(in.s.path(dirIngest, in.hex+suffix)))
	}
	path := in.s.path(dirIngest, in.hex+suffixPartial)
	if size, ok := isRegular(path); ok && (drop || size == 0) {
		err = firstError(err, os.Remove(path))
	}
	if drop {
		err = firstError(err, in.dropDamagedBlob())
	}
	in.unlock()
	return err
}

// dropDamagedBlob deletes the blob that the session began with if its bytes are not those of its digest. A good one stays
// whatever this session's spec claims about it: other images may have it.
func (in *LayerIngest) dropDamagedBlob() error {
	if !in.fromBlob {
		return nil
	}
	path := in.s.path(dirBlobs, in.hex)
	f, err := os.Open(path) //nolint:gosec // a name of our own
	if err != nil {
		return nil //nolint:nilerr // gone already
	}
	defer f.Close() //nolint:errcheck // read only
	got, err := digest.FromReader(f)
	if err != nil || got == in.spec.Digest {
		return err
	}
	in.s.log.WithField("blob", in.spec.Digest).Warn("a damaged blob is thrown away")
	return os.Remove(path)
}

func (in *LayerIngest) unlock() {
	_ = unlockNamed(in.lock)
}

func panicError(r any) error { return damaged("internal error: %v", r) }
