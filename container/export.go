package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/fs/mountopt"
	"github.com/plyfs/plyfs/layerstore"
	"github.com/plyfs/plyfs/layerstore/inorder"
	"github.com/plyfs/plyfs/layerstore/tarwrite"
	"github.com/plyfs/plyfs/overlay"
)

// maxExtents is how many stretches of data of a file with holes are told apart, for each of which 16 bytes are held.
const maxExtents = 1 << 20

// tree is what can be exported. Names are bytes that others chose.
type tree interface {
	// list calls emit for the names in a directory, in any order, "." and ".." excluded.
	list(dir node, emit func(name string)) error
	// find returns what a name stands for, held until release. The root's name is "".
	find(dir node, name string, a *overlay.Attr) (node, error)
	release(n node)
	readlink(n node) (string, error)
	xattrs(n node) ([]tarwrite.Xattr, error)
	// open makes a regular file ready to be read.
	open(n node) (file, error)
	close() error
}

// node is an inode of a tree: an overlay.ID or a descriptor.
type node uint64

// file is the content of a regular file.
type file interface {
	io.ReaderAt
	io.Closer
	// seek is lseek(2) with SEEK_DATA or SEEK_HOLE.
	seek(off int64, whence int) (int64, error)
}

// Export writes the whole tree of a container to w as a tar: with what its image has and what was changed, whiteouts resolved,
// hard links, xattrs, holes and device nodes kept. Of a mounted container what programs have written so far is written
// to disk first. Sockets are left out, and told to the log. Errors: those of layerstore; ErrMounted when it is mounted where
// this process cannot see it; those of w and ctx.
func Export(ctx context.Context, st *layerstore.Store, nameOrID string, w io.Writer) (err error) {
	c, err := st.Container(ctx, nameOrID)
	if err != nil {
		return err
	}
	t, err := openTree(ctx, st, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	x := &exporter{ctx: ctx, tree: t, to: tarwrite.NewWriter(w), linked: map[uint64]*linked{}}
	var a overlay.Attr
	root, err := t.find(0, "", &a)
	if err != nil {
		return err
	}
	defer t.release(root)
	if err := x.entry(root, ".", &a); err != nil {
		return err
	}
	return x.to.Close()
}

// openTree opens a container's tree where it can be read: its mount, or else its layers.
func openTree(ctx context.Context, st *layerstore.Store, c layerstore.Container) (tree, error) {
	if c.ReadOnly {
		return openUnion(ctx, st, c)
	}
	lock, err := lockContainer(st, c)
	if errors.Is(err, ErrMounted) {
		m, findErr := findContainerMount(c)
		if findErr != nil {
			return nil, err
		}
		return openMount(m.Mountpoint)
	}
	if err != nil {
		return nil, err
	}
	t, err := openUnion(ctx, st, c)
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	t.lock = lock
	return t, nil
}

// openUnion merges a container's layers without a mount.
func openUnion(ctx context.Context, st *layerstore.Store, c layerstore.Container) (*unionTree, error) {
	layers, err := openLayers(ctx, st, c)
	if err != nil {
		return nil, err
	}
	cfg := config(st, c, layers, "", &mountopt.Options{})
	u, err := overlay.New(overlay.Config{
		Lowers: cfg.Lowers, Names: cfg.Names, Upper: cfg.Upper, Work: cfg.Work, AdoptRoot: cfg.Upper != "", Modes: cfg.Modes,
	})
	if err != nil {
		for _, l := range layers {
			err = errors.Join(err, l.Close())
		}
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	return &unionTree{u: u}, nil
}

// exporter writes the entries of a tree.
type exporter struct {
	ctx    context.Context //nolint:containedctx // one call's
	tree   tree
	to     *tarwrite.Writer
	linked map[uint64]*linked // by inode number
}

// linked is a file with several names, of which one was written.
type linked struct {
	path string
	left uint32 // names that have not come yet
}

// entry writes what stands at a path and, of a directory, all that is below it.
func (x *exporter) entry(n node, p string, a *overlay.Attr) error {
	if err := x.ctx.Err(); err != nil {
		return context.Cause(x.ctx)
	}
	if err := x.one(n, p, a); err != nil {
		return fmt.Errorf("%q: %w", "/"+p, err)
	}
	if a.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	scan := func(emit func(string, struct{})) error {
		err := x.tree.list(n, func(name string) { emit(name, struct{}{}) })
		if err != nil {
			err = fmt.Errorf("%q: %w", "/"+p, err)
		}
		return err
	}
	return inorder.Each(scan, func(name string, _ struct{}) error {
		var a overlay.Attr
		below, err := x.tree.find(n, name, &a)
		if errors.Is(err, unix.ENOENT) {
			return nil // removed since it was listed
		}
		if err != nil {
			return fmt.Errorf("%q: %w", "/"+path.Join(p, name), err)
		}
		defer x.tree.release(below)
		return x.entry(below, path.Join(p, name), &a)
	})
}

// one writes one entry.
func (x *exporter) one(n node, p string, a *overlay.Attr) (err error) {
	e := tarwrite.Entry{Path: p, Attr: *a}
	kind := a.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && a.Nlink > 1 {
		if l := x.linked[a.Ino]; l != nil {
			if l.left--; l.left == 0 {
				delete(x.linked, a.Ino)
			}
			e.HardLink, e.Target = true, l.path
			return x.to.Write(&e)
		}
	}
	if e.Xattrs, err = x.tree.xattrs(n); err != nil {
		return err
	}
	switch kind {
	case unix.S_IFLNK:
		if e.Target, err = x.tree.readlink(n); err != nil {
			return err
		}
	case unix.S_IFREG:
		f, err := x.tree.open(n)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // read only
		e.Data = &ctxReaderAt{x.ctx, f}
		if a.Blocks < (a.Size+511)/512 {
			e.Extents, e.Sparse, err = extents(f, int64(a.Size))
			if err != nil {
				return err
			}
		}
	}
	err = x.to.Write(&e)
	switch {
	case errors.Is(err, tarwrite.ErrType):
		logrus.Warnf("%q is a socket, which a tar cannot hold: left out", "/"+p)
		return nil
	case errors.Is(err, tarwrite.ErrShort):
		logrus.Warnf("%q got shorter while it was read: filled up with zeros", "/"+p)
	case err != nil:
		return err
	}
	if kind != unix.S_IFDIR && a.Nlink > 1 {
		x.linked[a.Ino] = &linked{p, a.Nlink - 1}
	}
	return nil
}

// extents lists where a file has data. ok is false when it has no holes, or that is not to be found out.
func extents(f file, size int64) (list []tarwrite.Extent, ok bool, err error) {
	for off := int64(0); off < size; {
		data, err := f.seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		hole, err := f.seek(data, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) { // it got shorter
			break
		}
		if err != nil {
			return nil, false, err
		}
		if hole = min(hole, size); hole <= data {
			break
		}
		if len(list) == maxExtents {
			list[len(list)-1].Len = size - list[len(list)-1].Off
			break
		}
		list = append(list, tarwrite.Extent{Off: data, Len: hole - data})
		off = hole
	}
	whole := len(list) == 1 && list[0] == tarwrite.Extent{Off: 0, Len: size}
	return list, !whole, nil
}

// ctxReaderAt stops reading when its context ends.
type ctxReaderAt struct {
	ctx context.Context //nolint:containedctx // a reader has no other way to get it
	r   io.ReaderAt
}

// ReadAt implements [io.ReaderAt].
func (c *ctxReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.ReadAt(p, off)
}
