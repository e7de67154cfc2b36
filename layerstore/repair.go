package layerstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// RebuildIndex makes a layer's index again from its tar. Errors: those of OpenLayer.
func (s *Store) RebuildIndex(ctx context.Context, diffID Digest) error {
	diff, err := hexOf(diffID)
	if err != nil {
		return err
	}
	lock, err := s.lockLayer(ctx, diff, diffID)
	if err != nil {
		return err
	}
	defer unlockNamed(lock) //nolint:errcheck // closing a lock file loses nothing
	return s.explain("making the index of layer "+string(diffID)+" again", s.rebuildLocked(ctx, diff))
}

// DropDamaged deletes a file of the store whose bytes are not those that its name says, or whose name none of the store's
// files has: path is a Problem's, of a blob, a tar or a stray file. A file that is whole by now stays. Errors: ErrInvalid for
// any other path; ErrNotWritable; ctx's.
func (s *Store) DropDamaged(ctx context.Context, path string) error {
	name, ok := strings.CutPrefix(path, dirBlobs+"/")
	if !ok {
		name, ok = strings.CutPrefix(path, dirLayers+"/")
	}
	if !ok || name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return fmt.Errorf("%.200q is no blob or layer: %w", path, ErrInvalid)
	}
	if h := digits(name); isHex(h, 64) && !strings.HasSuffix(name, suffixIdx) {
		c := &checker{s: s, ctx: ctx}
		got, err := c.hash(path, make([]byte, 1<<20))
		if errors.Is(err, fs.ErrNotExist) || err == nil && got.Encoded() == h {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return err
	}
	err = firstError(s.toTrash(s.path(path)), l.Release())
	if err == nil {
		_, err = s.emptyTrash(ctx)
	}
	return s.explain("deleting "+path, err)
}

// RestoreLayer makes a layer again of its blob, where that is there. Errors: ErrNotFound where it is not; those of
// BeginLayer and Commit.
func (s *Store) RestoreLayer(ctx context.Context, spec LayerSpec) error {
	if !s.HasBlob(spec.Digest) {
		return fmt.Errorf("blob %s: %w in %s", spec.Digest, ErrNotFound, s.root)
	}
	in, err := s.BeginLayer(ctx, spec)
	if errors.Is(err, ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	return in.Commit()
}

// RestoreContainer makes the directories of a container that are missing. Errors: ErrCorrupt for a record that cannot be
// read, which is not made again; ErrInvalid for an ID of another form; ErrNotFound for an image or a layer that is not there.
func (s *Store) RestoreContainer(id string) error {
	if !isHex(id, 64) {
		return fmt.Errorf("container %.100q: %w: not 64 hexadecimal digits", id, ErrInvalid)
	}
	c, err := s.readContainer(id)
	if err != nil {
		return err
	}
	for name, mode := range map[string]uint32{"upper": 0o755, "work": 0o700, "merged": 0o755} {
		path := s.ContainerDir(id) + "/" + name
		err := os.Mkdir(path, os.FileMode(mode))
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = unix.Chmod(path, mode) // the umask may have taken some
		}
		if err != nil {
			return s.explain("restoring container "+c.Name, err)
		}
	}
	return s.checkContent(c)
}

// RestoreLayout writes the file that tells the layout's version again.
func (s *Store) RestoreLayout(ctx context.Context) error {
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return err
	}
	return firstError(s.writeFile(s.path(nameLayout), []byte(layoutContent)), l.Release())
}

// RestoreIndex makes a list of images anew, of all manifests among the blobs, where the one there cannot be read. The images
// are whole or not, and have no names. It returns how many there are.
func (s *Store) RestoreIndex(ctx context.Context) (int, error) {
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return 0, err
	}
	defer l.Release() //nolint:errcheck // closing a lock file loses nothing
	if _, err := s.readIndex(); !errors.Is(err, ErrCorrupt) {
		return 0, err
	}
	names, err := os.ReadDir(s.path(dirBlobs))
	if err != nil {
		return 0, s.explain("restoring the list of images", err)
	}
	ix := &index{}
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		img, ok := s.imageOf(Digest("sha256:" + n.Name()))
		if !ok {
			continue
		}
		desc, err := s.describeManifest(img)
		if err != nil {
			return 0, err
		}
		ix.put(img, desc)
	}
	return len(ix.entries), s.writeIndex(ix)
}

// imageOf reads a blob that may be an image's manifest.
func (s *Store) imageOf(d Digest) (Image, bool) {
	b, err := s.ReadBlob(d, MaxManifestSize)
	if err != nil {
		return Image{}, false
	}
	mediaType := manifestMediaType(b)
	m, err := parseManifest(b, mediaType)
	if err != nil {
		return Image{}, false
	}
	config, err := s.ReadBlob(m.Config.Digest, MaxConfigSize)
	if err != nil {
		return Image{}, false
	}
	img, err := newImage(b, config, mediaType)
	if err != nil {
		return Image{}, false
	}
	img.Size = s.unpackedSize(img)
	return img, true
}
