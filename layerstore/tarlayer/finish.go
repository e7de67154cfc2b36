package tarlayer

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/plyfs/plyfs/overlay"
	"golang.org/x/sys/unix"
)

// finisher turns the tree of a whole archive into the tables of the index.
type finisher struct {
	*builder
	counts []uint32 // by inode: of a directory the end of its stretch of order, else its number of names
	order  []uint32 // dentries that are seen, those of one directory side by side
	stats  Stats
	err    error // of reading names back while sorting
}

// finish writes the rest of the index.
func (b *builder) finish() (Stats, error) {
	if err := b.flushChunk(); err != nil {
		return Stats{}, err
	}
	unmapSlice(b.tree.slots)
	b.tree.slots = nil
	f := &finisher{builder: b}
	var err error
	if f.counts, err = mapSlice[uint32](b.tree.state.n); err != nil {
		return Stats{}, err
	}
	defer unmapSlice(f.counts)
	live := f.mark()
	if f.order, err = mapSlice[uint32](live); err != nil {
		return Stats{}, err
	}
	defer unmapSlice(f.order)
	f.arrange()
	head := fileHeader{tarSize: uint64(b.r.off), children: uint32(live), inodes: uint32(b.tree.state.n)} //nolint:gosec // bounded
	if err := b.out.align(4); err != nil {
		return Stats{}, err
	}
	head.childTable = uint32(b.out.pos()) //nolint:gosec // append checks it
	if err := f.writeTables(); err != nil {
		return Stats{}, err
	}
	if err := b.out.align(4); err != nil {
		return Stats{}, err
	}
	head.chunkTable = uint32(b.out.pos()) //nolint:gosec // append checks it
	for _, at := range b.chunks {
		if _, err := b.out.append(le.AppendUint32(nil, at)); err != nil {
			return Stats{}, err
		}
	}
	f.stats.Size = b.r.off
	head.live = uint32(f.stats.Entries)        //nolint:gosec // MaxEntries bounds it
	head.filesSize = uint64(f.stats.FilesSize) //nolint:gosec // not negative
	return f.stats, b.out.finish(&head)
}

// seen tells whether a dentry is part of the tree, once the directories before it are marked.
func (f *finisher) seen(d *dentry) bool {
	return *f.tree.state.at(d.parent)&stateLive != 0 && (d.inode != noEntry || d.hides)
}

// mark finds what can be reached from the root and counts names and children. A directory's dentry always comes before
// those of its children, so one pass does. It returns how many dentries are seen.
func (f *finisher) mark() (live int) {
	t := &f.tree
	*t.state.at(0) |= stateLive
	for i := range t.dentrys.n {
		d := t.dentrys.at(uint32(i))
		if !f.seen(d) {
			continue
		}
		live++
		f.counts[d.parent]++
		if d.inode == noEntry {
			continue
		}
		s := t.state.at(d.inode)
		*s |= stateLive
		if !t.isDir(d.inode) {
			f.counts[d.inode]++
		} else if d.hides {
			*s = *s&^stateImplied | stateOpaque // nothing of the directories below shows through
		}
	}
	return live
}

// arrange puts the dentries into order, directory by directory.
func (f *finisher) arrange() {
	t := &f.tree
	sum := uint32(0)
	for i := range f.counts {
		if t.isDir(uint32(i)) {
			sum, f.counts[i] = sum+f.counts[i], sum
		}
	}
	for i := range t.dentrys.n {
		n := uint32(i)
		if d := t.dentrys.at(n); f.seen(d) {
			f.order[f.counts[d.parent]] = n
			f.counts[d.parent]++
		}
	}
}

// writeTables writes the listings, in the order of the directories' inodes, and completes the inode records.
func (f *finisher) writeTables() error {
	first := uint32(0)
	for c, at := range f.chunks {
		if err := f.out.read(f.chunk[:], int64(at)); err != nil {
			return err
		}
		base := uint32(c) << chunkShift
		for i := range min(chunkLen, uint32(f.tree.state.n)-base) { //nolint:gosec // MaxEntries bounds it
			rec := f.chunk[i*inodeSize : (i+1)*inodeSize]
			if err := f.complete(base+i, rec, &first); err != nil {
				return err
			}
		}
		if err := f.out.patch(f.chunk[:], int64(at)); err != nil {
			return err
		}
	}
	return nil
}

// complete fills in what only the whole tree tells about an inode. first is where the next directory's stretch begins.
func (f *finisher) complete(ino uint32, rec []byte, first *uint32) error {
	state := *f.tree.state.at(ino)
	if state&stateLive == 0 {
		clear(rec)
		return nil
	}
	var n inode
	n.decode(rec)
	f.stats.Entries++
	if state&stateType != typeDirectory {
		n.nlink = f.counts[ino]
		if n.mode&unix.S_IFMT == unix.S_IFREG {
			f.stats.FilesSize += int64(n.a) //nolint:gosec // at most maxFileSize
		}
		if f.stats.FilesSize > maxFilesSize {
			return fmt.Errorf("%w: its files have more than %d bytes together", ErrTooLarge, int64(maxFilesSize))
		}
		n.encode(rec)
		return nil
	}
	end := f.counts[ino]
	subdirs, err := f.list(f.order[*first:end])
	if err != nil {
		return err
	}
	n.nlink, n.flags = 2+subdirs, 0
	if state&stateImplied != 0 {
		n.flags |= inodeImplied
	}
	if state&stateOpaque != 0 {
		n.flags |= inodeOpaque
	}
	n.a = pair(*first, end-*first)
	n.encode(rec)
	*first = end
	return nil
}

// list sorts and writes the listing of one directory, and counts its subdirectories.
func (f *finisher) list(names []uint32) (subdirs uint32, err error) {
	t := &f.tree
	slices.SortFunc(names, func(x, y uint32) int {
		if c := cmp.Compare(t.dentrys.at(x).cookie, t.dentrys.at(y).cookie); c != 0 || x == y {
			return c
		}
		return f.compareNames(t.dentrys.at(x), t.dentrys.at(y))
	})
	var buf [childSize]byte
	for _, n := range names {
		d := t.dentrys.at(n)
		c := child{cookie: d.cookie, name: d.name, nameLen: d.nameLen, entry: d.inode}
		if d.inode != noEntry {
			state := *t.state.at(d.inode)
			c.typ = state & stateType
			switch {
			case c.typ == typeDirectory:
				subdirs++
				if state&stateOpaque != 0 {
					c.flags |= uint8(overlay.FlagOpaque)
				}
			case f.counts[d.inode] > 1:
				c.flags |= uint8(overlay.FlagLinked)
			}
		}
		c.encode(buf[:])
		if _, err := f.out.append(buf[:]); err != nil {
			return 0, err
		}
	}
	return subdirs, f.err
}

// compareNames orders two names whose cookies happen to be the same.
func (f *finisher) compareNames(x, y *dentry) int {
	a, b := make([]byte, x.nameLen), make([]byte, y.nameLen)
	for _, e := range []error{f.out.read(a, int64(x.name)), f.out.read(b, int64(y.name))} {
		if e != nil && f.err == nil {
			f.err = e
		}
	}
	return bytes.Compare(a, b)
}
