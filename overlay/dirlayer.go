package overlay

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// DirLayer is a read-only layer that is a directory of the host, which must not change while it is used. It reads the
// whiteouts and opaque marks of kernel overlayfs, and what fuse-overlayfs and containers/storage write of owners.
type DirLayer struct {
	id     uint64
	byDev  uint64 // what would be id if nothing else were known of the filesystem
	dev    uint64
	root   *openFile
	tab    *table
	fds    *fdCache
	opaque bool
	over   overrides

	noAtime int // what files are opened with beside, to leave their times of access alone
}

// NewDirLayer opens a directory as a layer. maxFDs bounds the descriptors kept open for later use, 0 means 256.
func NewDirLayer(path string, maxFDs int) (*DirLayer, error) {
	fd, noAtime, err := openLower(path)
	if err != nil {
		return nil, fmt.Errorf("lower directory %s: %w", path, err)
	}
	l := &DirLayer{root: newOpenFile(fd), noAtime: noAtime}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		l.root.Release()
		return nil, err
	}
	if maxFDs == 0 {
		maxFDs = 256
	}
	l.dev, l.fds = st.Dev, newFDCache(maxFDs)
	if l.id, l.byDev, err = identify(fd); err != nil {
		l.root.Release()
		return nil, err
	}
	flags, err := markFlags(place{fd: fd})
	if err != nil {
		l.root.Release()
		return nil, err
	}
	l.opaque = flags&FlagOpaque != 0
	if l.over, err = foundOverrides(place{fd: fd}); err != nil {
		l.root.Release()
		return nil, fmt.Errorf("lower directory %s: %w", path, err)
	}
	if !l.opaque {
		if l.opaque, err = dotOpaqueIn(place{fd, "."}); err != nil {
			l.root.Release()
			return nil, err
		}
	}
	l.tab = newTable(record{mode: unix.S_IFDIR, flags: flagDir, ino: st.Ino}, &dir{})
	return l, nil
}

// RootOpaque reports whether the layer hides all layers below it.
func (l *DirLayer) RootOpaque() bool { return l.opaque }

// ID is made of what tells the directory from all others, see identify.
func (l *DirLayer) ID() uint64 { return l.id }

func entryID(e Entry) ID {
	if e == RootEntry {
		return RootID
	}
	return ID(e) // #nosec G115 -- an Entry of a DirLayer is an ID
}

func (l *DirLayer) ino(st *unix.Stat_t) uint64 {
	if st.Dev != l.dev {
		return (st.Ino ^ st.Dev*hashMul) & inoMask
	}
	return upperIno(st.Ino) & inoMask
}

// markFlags reads the marks of a directory or regular file.
func markFlags(p place) (ItemFlags, error) {
	names, err := p.names()
	if errors.Is(err, unix.ENOTSUP) {
		return 0, nil
	}
	flags := ItemFlags(0)
	for _, name := range names {
		switch name {
		case "trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque":
			if v, err := p.value(name); err == nil && string(v) == "y" {
				flags |= FlagOpaque
			}
		case "trusted.overlay.redirect", "user.overlay.redirect":
			flags |= FlagRedirect
		case "trusted.overlay.metacopy", "user.overlay.metacopy":
			flags |= FlagMetacopy
		}
	}
	return flags, err
}

// Redirect returns the redirect mark of an inode.
func (l *DirLayer) Redirect(e Entry) (to string, err error) {
	err = l.withPlace(entryID(e), func(p place) error {
		v, err := p.value("trusted.overlay.redirect")
		if errors.Is(err, unix.ENODATA) {
			v, err = p.value("user.overlay.redirect")
		}
		to = string(v)
		return err
	})
	return to, err
}

// Lookup finds a name in a directory.
func (l *DirLayer) Lookup(dir Entry, name string) (Item, error) {
	parent := entryID(dir)
	h, err := l.dirFD(parent)
	if err != nil {
		return Item{}, err
	}
	defer h.Release()
	p := place{h.fd, name}
	var st unix.Stat_t
	if err := p.stat(&st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return l.dotItem(h, name)
		}
		return Item{}, err
	}
	if isDotName(name) {
		return Item{}, unix.ENOENT
	}
	if hides, err := isWhiteout(p, &st); hides || err != nil {
		return Item{}, err
	}
	if err := l.over.show(p, &st); err != nil {
		return Item{}, err
	}
	it := Item{Ino: l.ino(&st), Mode: st.Mode & unix.S_IFMT}
	rec := record{ino: it.Ino, parent: parent, mode: it.Mode}
	if it.Mode == unix.S_IFDIR || it.Mode == unix.S_IFREG {
		if it.Flags, err = markFlags(p); err != nil {
			return Item{}, err
		}
	}
	if it.Mode == unix.S_IFDIR {
		rec.flags |= flagDir
		if opaque, err := dotOpaqueIn(p); err != nil {
			return Item{}, err
		} else if opaque {
			it.Flags |= FlagOpaque
		}
	} else if st.Nlink > 1 {
		it.Flags |= FlagLinked
	}
	id, _ := l.tab.acquire(rec, name, nil, func(*record) bool { return true })
	it.Entry = Entry(id)
	return it, nil
}

// dotItem is what a name stands for that is not there itself.
func (l *DirLayer) dotItem(h *openFile, name string) (Item, error) {
	hidden, err := dotHides(h.fd, name)
	if err == nil && !hidden {
		err = unix.ENOENT
	}
	return Item{}, err
}

// Forget gives back an Entry.
func (l *DirLayer) Forget(e Entry) {
	for id := entryID(e); ; {
		gone, last := l.tab.forget(id, 1)
		if !last {
			return
		}
		l.fds.forget(id)
		l.tab.free(id)
		id = gone.parent
	}
}

// dirFD returns a descriptor of a directory, held for the caller.
func (l *DirLayer) dirFD(id ID) (*openFile, error) {
	if id == RootID {
		l.root.refs.Add(1)
		return l.root, nil
	}
	return l.open(id, unix.O_PATH|unix.O_DIRECTORY)
}

func (l *DirLayer) open(id ID, flags int) (*openFile, error) {
	if f := l.fds.get(id); f != nil {
		return f, nil
	}
	rec, _ := l.tab.get(id)
	var f *openFile
	err := l.withPlace(id, func(p place) error {
		noAtime := l.noAtime
		if flags&unix.O_PATH != 0 {
			noAtime = 0
		}
		fd, err := p.openQuietly(flags, noAtime)
		if err == nil {
			f = newOpenFile(fd)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return l.fds.put(id, f, func() bool { return l.tab.isGen(id, rec.gen) }), nil
}

func (l *DirLayer) withPlace(id ID, f func(p place) error) error {
	if id == RootID {
		return f(place{fd: l.root.fd})
	}
	rec, name, ok := l.tab.getNamed(id)
	if !ok {
		return unix.ESTALE
	}
	h, err := l.dirFD(rec.parent)
	if err != nil {
		return err
	}
	defer h.Release()
	return f(place{h.fd, name})
}

// Attr fills in the attributes of an inode.
func (l *DirLayer) Attr(e Entry, a *Attr) error {
	return l.withPlace(entryID(e), func(p place) error {
		var st unix.Stat_t
		if err := l.over.stat(p, &st); err != nil {
			return err
		}
		fromStat(a, &st)
		a.Ino = l.ino(&st)
		var stx unix.Statx_t
		if err := p.statx(unix.STATX_BTIME, &stx); err == nil && stx.Mask&unix.STATX_BTIME != 0 {
			a.Btime = Timespec{stx.Btime.Sec, stx.Btime.Nsec}
		}
		return nil
	})
}

// ReadDir lists a directory.
func (l *DirLayer) ReadDir(dirEntry Entry, after uint64, buf []DirEntry) (int, error) {
	id := entryID(dirEntry)
	h, err := l.dirFD(id)
	if err != nil {
		return 0, err
	}
	defer h.Release()
	l.tab.setDir(id)
	d := l.tab.dir(id)
	if d == nil {
		return 0, unix.ENOTDIR
	}
	s, err := listUpper(d, h, false, true, l.over)
	if err != nil {
		return 0, err
	}
	return s.read(after, buf), nil
}

// setDir gives a directory its state when it has none yet.
func (t *table) setDir(id ID) {
	s := t.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rec(id); r != nil && r.flags&flagDir != 0 && s.dirs[id] == nil {
		s.dirs[id] = &dir{}
	}
}

// Readlink returns a symlink's target.
func (l *DirLayer) Readlink(e Entry) (target string, err error) {
	err = l.withPlace(entryID(e), func(p place) (err error) {
		target, err = l.over.readlink(p)
		return err
	})
	return target, err
}

// Xattr returns the value of an xattr.
func (l *DirLayer) Xattr(e Entry, name string) (v []byte, err error) {
	err = l.withPlace(entryID(e), func(p place) (err error) {
		v, err = p.value(l.over.encode(name))
		if l.over == "" || err != nil || name != xattrACL {
			return err
		}
		var st unix.Stat_t
		if err := l.over.stat(p, &st); err != nil {
			return err
		}
		showACL(v, st.Mode)
		return nil
	})
	return v, err
}

// Xattrs returns the names of all xattrs.
func (l *DirLayer) Xattrs(e Entry) (names []string, err error) {
	err = l.withPlace(entryID(e), func(p place) (err error) {
		names, err = p.names()
		if errors.Is(err, unix.ENOTSUP) {
			err = nil
		}
		for i, n := range names {
			names[i] = l.over.decode(n)
		}
		return err
	})
	return names, err
}

// Data tells where a file's data lie: in the file, holes and all.
func (l *DirLayer) Data(e Entry, off int64) (Run, error) {
	f, err := l.open(entryID(e), unix.O_RDONLY)
	if err != nil {
		return Run{}, err
	}
	run, err := nextRun(f, off)
	if err != nil || run.Len == 0 {
		f.Release()
		run.Ref = nil
	}
	return run, err
}

// nextRun finds the data or hole at off.
func nextRun(f *openFile, off int64) (Run, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return Run{}, err
	}
	if off >= st.Size {
		return Run{FD: -1}, nil
	}
	run := Run{FD: f.fd, Pos: off, Len: st.Size - off, Ref: f}
	if st.Blocks*512 >= st.Size {
		return run, nil
	}
	data, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		run.FD = -1
		return run, nil
	case err != nil:
		return run, nil // the filesystem does not tell holes
	case data > off:
		run.FD, run.Len = -1, data-off
		return run, nil
	}
	if hole, err := unix.Seek(f.fd, off, unix.SEEK_HOLE); err == nil {
		run.Len = hole - off
	}
	return run, nil
}

// Close lets go of all descriptors.
func (l *DirLayer) Close() error {
	l.fds.close()
	l.root.Release()
	return nil
}

var _ Layer = (*DirLayer)(nil)
