package tarlayer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/plyfs/plyfs/overlay"
	"golang.org/x/sys/unix"
)

// Build reads one uncompressed layer tar from r, to the end of the stream, and writes its index to w, an empty or old
// file open for reading and writing. It does not keep the tar; the caller tees it. Errors wrap [ErrArchive],
// [ErrTooLarge], or what r and w said; w's contents are then of no use. Build does not sync w.
//
// Names are taken as the other tools take them: a leading "/" and "." components are dropped, ".." is resolved by what
// is written. A name that leads out of the root, or that passes through something of this layer that is no directory,
// is an error. Of two entries of one name the later counts; a directory over a directory keeps its contents.
// Directories that are never listed get mode 0755, owner 0:0 and time 0; [Layer.Implied] tells them.
//
// Memory, beside 500 KiB of buffers and the current entry's headers: 24 bytes for each name, 1 for each inode and 5 to 11
// for each name's place in a hash table (half as much again while it grows), which at the end makes room for 4 bytes for
// each name and each inode: some 37 MB for a million files.
func Build(r io.Reader, w *os.File, lim Limits) (Stats, error) {
	lim = lim.withDefaults()
	out, err := newOutput(w)
	if err != nil {
		return Stats{}, err
	}
	b := &builder{r: newReader(r, &lim), lim: &lim, out: out}
	b.tree = tree{out: out, most: lim.MaxEntries}
	defer b.tree.free()
	if err := b.run(); err != nil {
		return Stats{}, err
	}
	return b.finish()
}

type builder struct {
	r      *reader
	lim    *Limits
	out    *output
	tree   tree
	chunk  [chunkBytes]byte // inode records that do not fill a chunk yet
	chunks []uint32         // offsets of the full ones
	path   path             // of the current entry
	target path             // of the current hard link
	blob   []byte           // scratch
}

func (b *builder) run() error {
	root := inode{mode: unix.S_IFDIR | 0o755, flags: inodeImplied}
	if _, err := b.newInode(&root); err != nil {
		return err
	}
	for {
		h, err := b.r.next()
		if errors.Is(err, io.EOF) {
			return b.r.drain()
		}
		if err != nil {
			return err
		}
		if err := b.entry(h); err != nil {
			if b.outError(err) {
				return err
			}
			return b.r.entryError(h, err)
		}
	}
}

// outError tells an error of the host from one of the archive.
func (b *builder) outError(err error) bool {
	var pe *os.PathError
	var se *os.SyscallError
	return errors.As(err, &pe) || errors.As(err, &se) || errors.Is(err, unix.ENOMEM)
}

// errAbsolute refuses what other tools take as relative: no tool that makes layers writes such names, and one that is
// not meant to stay below the root is not to be guessed at.
var errAbsolute = errors.New("its name is absolute")

// entry takes one entry of the archive into the tree.
func (b *builder) entry(h *header) error {
	if err := b.path.set(h.name, b.lim); err != nil {
		return err
	}
	kind, err := b.path.classify()
	if err != nil || kind == ignoredName {
		return err
	}
	if b.path.len() == 0 {
		return b.rootEntry(h)
	}
	if h.name[0] == '/' {
		return errAbsolute
	}
	dir, _, err := b.tree.enter(&b.path, b.imply)
	if kind != plainName && errors.Is(err, errNotDir) {
		return nil // umoci whites out what lay below a directory that the layer replaces by a file
	}
	if err != nil {
		return err
	}
	switch kind {
	case opaqueMark:
		*b.tree.state.at(dir) |= stateOpaque
		return nil
	case whiteout:
		n, err := b.tree.obtain(dir, b.path.base()[len(whiteoutPrefix):])
		if err == nil {
			b.tree.dentrys.at(n).hides = true
		}
		return err
	case plainName, ignoredName:
	}
	if h.typ == typeLink {
		return b.hardLink(h, dir)
	}
	rec, err := b.inodeOf(h)
	if err != nil {
		return err
	}
	n, err := b.tree.obtain(dir, b.path.base())
	if err != nil {
		return err
	}
	if rec.mode&unix.S_IFMT == unix.S_IFDIR {
		return b.placeDir(n, &rec)
	}
	ino, err := b.newInode(&rec)
	if err != nil {
		return err
	}
	b.place(n, ino)
	return nil
}

var errRoot = errors.New("it would replace the root directory by something else")

// rootEntry takes in the entry of the root directory itself.
func (b *builder) rootEntry(h *header) error {
	if h.typ == typeLink {
		return errRoot
	}
	rec, err := b.inodeOf(h)
	if err != nil {
		return err
	}
	if rec.mode&unix.S_IFMT != unix.S_IFDIR {
		return errRoot
	}
	*b.tree.state.at(0) &^= stateImplied
	return b.patchInode(0, &rec)
}

// imply makes a directory that has not been listed yet, and perhaps never is.
func (b *builder) imply(n uint32) (uint32, error) {
	rec := inode{mode: unix.S_IFDIR | 0o755, flags: inodeImplied}
	b.nameDir(n, &rec)
	ino, err := b.newInode(&rec)
	if err == nil {
		b.tree.dentrys.at(n).inode = ino
	}
	return ino, err
}

// nameDir notes in a directory's record where it is: its parent and its name.
func (b *builder) nameDir(n uint32, rec *inode) {
	d := b.tree.dentrys.at(n)
	rec.b, rec.nameLen = pair(d.parent, d.name), d.nameLen
}

// placeDir lets a listed directory stand at a name. One that stands there already only takes its attributes over.
func (b *builder) placeDir(n uint32, rec *inode) error {
	b.nameDir(n, rec)
	d := b.tree.dentrys.at(n)
	if d.inode != noEntry && b.tree.isDir(d.inode) {
		*b.tree.state.at(d.inode) &^= stateImplied
		return b.patchInode(d.inode, rec)
	}
	ino, err := b.newInode(rec)
	if err == nil {
		d.inode = ino
	}
	return err
}

// place lets something other than a directory stand at a name. Should a directory take its place later, it is a new one.
func (b *builder) place(n, ino uint32) {
	d := b.tree.dentrys.at(n)
	if d.inode != noEntry && b.tree.isDir(d.inode) {
		b.tree.leave(0)
	}
	d.inode, d.hides = ino, true
}

// hardLink gives an earlier entry's inode one more name. The attributes in the link's own header do not count.
func (b *builder) hardLink(h *header, dir uint32) error {
	if err := b.target.set(h.link, b.lim); err != nil {
		return fmt.Errorf("its hard link target: %w", err)
	}
	missing := fmt.Errorf("it is a hard link to %s, which no earlier entry of this layer is", quote(h.link))
	if b.target.len() == 0 {
		return missing
	}
	if slices.Equal(b.target.ends, b.path.ends) && bytes.Equal(b.target.buf, b.path.buf) {
		return errors.New("it is a hard link to itself")
	}
	from, ok, err := b.tree.enter(&b.target, nil)
	if err != nil {
		return fmt.Errorf("its hard link target %s: %w", quote(h.link), err)
	}
	if !ok {
		return missing
	}
	name := b.target.base()
	t, ok, err := b.tree.find(from, overlay.Cookie(alias(name)), name)
	if err != nil {
		return err
	}
	if !ok || b.tree.dentrys.at(t).inode == noEntry {
		return missing
	}
	ino := b.tree.dentrys.at(t).inode
	if b.tree.isDir(ino) {
		return fmt.Errorf("it is a hard link to %s, which is a directory", quote(h.link))
	}
	n, err := b.tree.obtain(dir, b.path.base())
	if err == nil {
		b.place(n, ino)
	}
	return err
}

// newInode appends an inode record and returns its number: records are numbered in the order of the archive.
func (b *builder) newInode(rec *inode) (uint32, error) {
	if err := b.tree.count(); err != nil {
		return 0, err
	}
	n := uint32(b.tree.state.n) //nolint:gosec // MaxEntries bounds it
	at := n & (chunkLen - 1)
	if n > 0 && at == 0 {
		if err := b.flushChunk(); err != nil {
			return 0, err
		}
	}
	rec.encode(b.chunk[at*inodeSize:])
	s := uint8(rec.mode >> 12)
	if rec.flags&inodeImplied != 0 {
		s |= stateImplied
	}
	return n, b.tree.state.push(s)
}

// flushChunk writes out a chunk of inode records.
func (b *builder) flushChunk() error {
	if err := b.out.align(inodeSize); err != nil {
		return err
	}
	at, err := b.out.append(b.chunk[:])
	if err != nil {
		return err
	}
	b.chunks = append(b.chunks, at)
	b.chunk = [chunkBytes]byte{}
	return nil
}

// patchInode replaces the record of an inode.
func (b *builder) patchInode(n uint32, rec *inode) error {
	at := n & (chunkLen - 1) * inodeSize
	if c := n >> chunkShift; int(c) < len(b.chunks) {
		var buf [inodeSize]byte
		rec.encode(buf[:])
		return b.out.patch(buf[:], int64(b.chunks[c]+at))
	}
	rec.encode(b.chunk[at:])
	return nil
}
