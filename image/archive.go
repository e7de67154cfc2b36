package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/plyfs/plyfs/layerstore"
)

// Limits of an archive of images.
const (
	maxArchiveFiles = 1 << 16  // files of a tar
	maxArchiveNames = 16 << 20 // bytes of their names together
	maxArchiveLinks = 8        // links that lead to a file
)

// files are what an archive or a directory of images holds. A name is only ever a key: nothing is made under it.
type files interface {
	// open finds a file by its path, whose size it tells. The error wraps fs.ErrNotExist when there is none.
	open(name string) (io.ReadCloser, int64, error)
	close() error
}

// tarFiles is a tar that can be read at any place, and where its files are.
type tarFiles struct {
	f       *os.File
	entries map[string]tarEntry
}

type tarEntry struct {
	off, size int64
	link      string // path of the file meant instead
}

// openTar reads the names of an archive. What is compressed or a stream goes to a temporary file of the store first.
func openTar(ctx context.Context, st *layerstore.Store, r io.Reader) (*tarFiles, error) {
	f, err := seekable(ctx, st, r)
	if err != nil {
		return nil, err
	}
	t := &tarFiles{f: f, entries: map[string]tarEntry{}}
	if err := t.scan(ctx); err != nil {
		_ = f.Close()
		return nil, err
	}
	return t, nil
}

// seekable returns a file of the uncompressed archive, which the caller closes.
func seekable(ctx context.Context, st *layerstore.Store, r io.Reader) (*os.File, error) {
	u, err := newUnpacker(&ctxReader{ctx, r})
	if err != nil {
		return nil, err
	}
	defer u.Close() //nolint:errcheck // it holds memory only
	if f, ok := r.(*os.File); ok && u.plain {
		if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
			return os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd())) // with a position of its own
		}
	}
	tmp, err := st.TempFile()
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{tmp}, u, make([]byte, copyBuffer)); err != nil {
		_ = tmp.Close()
		return nil, err
	}
	_, err = tmp.Seek(0, io.SeekStart)
	return tmp, err
}

func (t *tarFiles) scan(ctx context.Context) error {
	tr, names := tar.NewReader(t.f), 0
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return archiveErrorf("it is no tar archive, or a damaged one: %s", clean(err.Error()))
		}
		names += len(h.Name) + len(h.Linkname)
		if len(t.entries) == maxArchiveFiles || names > maxArchiveNames {
			return &kindError{kind: layerstore.ErrTooLarge, msg: fmt.Sprintf("the archive has more than %d files, or names of more than %d bytes",
				maxArchiveFiles, maxArchiveNames)}
		}
		if err := t.add(h); err != nil {
			return err
		}
	}
}

// add notes where a file's data is. archive/tar reads no further than the header of an entry.
func (t *tarFiles) add(h *tar.Header) error {
	name, e := cleanName(h.Name), tarEntry{}
	switch h.Typeflag {
	case tar.TypeReg:
		off, err := t.f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		e = tarEntry{off: off, size: h.Size}
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return archiveErrorf("%q is a sparse file, which archives of images do not have", clean(h.Name))
			}
		}
	case tar.TypeSymlink: // as docker wrote a layer that several images have
		e.link = cleanName(path.Join(path.Dir(h.Name), h.Linkname)) //nolint:gosec // a key: nothing is opened by it
	case tar.TypeLink:
		e.link = cleanName(h.Linkname)
	case tar.TypeGNUSparse:
		return archiveErrorf("%q is a sparse file, which archives of images do not have", clean(h.Name))
	default:
		return nil
	}
	t.entries[name] = e
	return nil
}

// cleanName is a path without "./", ".." and a leading slash.
func cleanName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (t *tarFiles) open(name string) (io.ReadCloser, int64, error) {
	name = cleanName(name)
	for range maxArchiveLinks {
		e, ok := t.entries[name]
		switch {
		case !ok:
			return nil, 0, fmt.Errorf("%q: %w", clean(name), fs.ErrNotExist)
		case e.link == "":
			return io.NopCloser(io.NewSectionReader(t.f, e.off, e.size)), e.size, nil
		}
		name = e.link
	}
	return nil, 0, archiveErrorf("%q is a link of too many links", clean(name))
}

func (t *tarFiles) close() error { return t.f.Close() }

// dirFiles is a directory, below which alone files are opened.
type dirFiles struct{ root *os.Root }

func (d dirFiles) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = archiveErrorf("%s is not a file", clean(name))
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

func (d dirFiles) close() error { return d.root.Close() }

// readFile reads a small file.
func readFile(fl files, name string, limit int64) ([]byte, error) {
	r, size, err := fl.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // read only
	if size > limit {
		return nil, &kindError{kind: layerstore.ErrTooLarge, msg: fmt.Sprintf("%s has %d bytes; at most %d are taken", clean(name), size, limit)}
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, archiveErrorf("%s is cut short", clean(name))
	}
	return b, nil
}

func hasFile(fl files, name string) bool {
	r, _, err := fl.open(name)
	if err != nil {
		return false
	}
	return r.Close() == nil
}
