package overlay

import (
	"errors"

	"golang.org/x/sys/unix"
)

// dirFD returns a descriptor of an upper directory, good for *at calls alone, held for the caller. The caller holds no
// dir.mu.
func (u *Union) dirFD(id ID) (*openFile, error) {
	if id == RootID {
		u.up.root.refs.Add(1)
		return u.up.root, nil
	}
	for {
		if f := u.fds.get(id); f != nil {
			return f, nil
		}
		rec, ok := u.tab.get(id)
		if !ok {
			return nil, unix.ESTALE
		}
		if rec.flags&flagPinned != 0 {
			if f := u.pinned(id); f != nil {
				return f, nil
			}
			continue
		}
		h, err := u.dirFD(rec.parent)
		if err != nil {
			return nil, err
		}
		f, moved, err := u.openDirIn(rec.parent, h, id)
		h.Release()
		if !moved {
			return f, err
		}
	}
}

// openDirIn opens the upper directory id in the directory parent, of which h is the descriptor. It reports when the
// directory has moved elsewhere meanwhile.
func (u *Union) openDirIn(parent ID, h *openFile, id ID) (f *openFile, moved bool, err error) {
	pd := u.tab.dir(parent)
	if pd == nil {
		return nil, false, unix.ESTALE
	}
	pd.mu.RLock()
	defer pd.mu.RUnlock()
	rec, name, ok := u.tab.getNamed(id)
	switch {
	case !ok:
		return nil, false, unix.ESTALE
	case rec.parent != parent || rec.flags&flagPinned != 0:
		return nil, true, nil
	}
	fd, err := openRetry(h.fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, err
	}
	f = newOpenFile(fd)
	f.path = true
	return u.keepFD(id, rec.gen, f), false, nil
}

// rlockDir read-locks the names of a directory and returns a descriptor of its upper directory, nil for none.
func (u *Union) rlockDir(id ID) (*dir, *openFile, error) {
	d := u.tab.dir(id)
	if d == nil {
		return nil, nil, unix.ENOTDIR
	}
	for {
		before, ok := u.tab.get(id)
		if !ok {
			return nil, nil, unix.ESTALE
		}
		var h *openFile
		if before.flags&flagUpper != 0 {
			var err error
			if h, err = u.dirFD(id); err != nil {
				return nil, nil, err
			}
		}
		d.mu.RLock()
		if now, _ := u.tab.get(id); (now.flags^before.flags)&flagUpper == 0 {
			return d, h, nil
		}
		d.mu.RUnlock()
		h.Release()
	}
}

// withPlace calls f with the place of an upper inode, which stays what it is until f returns.
func (u *Union) withPlace(id ID, f func(p place) error) error {
	if id == RootID {
		return f(at(u.up.root))
	}
	for {
		rec, ok := u.tab.get(id)
		switch {
		case !ok:
			return unix.ESTALE
		case rec.flags&flagPinned != 0:
			h := u.pinned(id)
			if h == nil {
				continue
			}
			err := f(place{fd: h.fd})
			h.Release()
			return err
		case rec.flags&flagIndexed != 0:
			return f(u.indexPlace(&rec))
		}
		h, err := u.dirFD(rec.parent)
		if err != nil {
			return err
		}
		moved, err := u.placeIn(rec.parent, h, id, f)
		h.Release()
		if !moved {
			return err
		}
	}
}

func (u *Union) placeIn(parent ID, h *openFile, id ID, f func(p place) error) (moved bool, err error) {
	pd := u.tab.dir(parent)
	if pd == nil {
		return false, unix.ESTALE
	}
	pd.mu.RLock()
	defer pd.mu.RUnlock()
	rec, name, ok := u.tab.getNamed(id)
	switch {
	case !ok:
		return false, unix.ESTALE
	case rec.parent != parent || rec.flags&(flagPinned|flagIndexed) != 0:
		return true, nil
	}
	return false, f(place{h.fd, name})
}

// indexPlace is where a copied-up hard link lies whatever its names.
func (u *Union) indexPlace(rec *record) place {
	i := len(u.lowers) - int(rec.ino>>inoBits) // #nosec G115 -- 16 bits
	return place{u.up.index, indexName(u.origin(i, rec.ino&inoMask))}
}

// fileFD returns a descriptor for the data of an upper regular file, held for the caller; one that only reads may be
// returned unless write is set.
func (u *Union) fileFD(id ID, write bool) (*openFile, error) {
	if f := u.fds.get(id); f != nil {
		if !write || !f.readonly {
			return f, nil
		}
		f.Release()
	}
	if f := u.pinned(id); f != nil {
		if !f.path {
			return f, nil
		}
		f.Release()
	}
	rec, _ := u.tab.get(id)
	var f *openFile
	err := u.withPlace(id, func(p place) (err error) {
		f, err = u.openData(p, write)
		return err
	})
	if err != nil {
		return nil, err
	}
	return u.keepFD(id, rec.gen, f), nil
}

// keepFD puts a descriptor into the cache, unless the inode that it was opened for is gone.
func (u *Union) keepFD(id ID, gen uint32, f *openFile) *openFile {
	return u.fds.put(id, f, func() bool { return u.tab.isGen(id, gen) })
}

func (u *Union) openData(p place, write bool) (*openFile, error) {
	fd, err := p.openQuietly(unix.O_RDWR, u.up.noAtime)
	readonly := false
	if err != nil && !write {
		fd, err = p.openQuietly(unix.O_RDONLY, u.up.noAtime)
		readonly = true
	}
	if err != nil {
		return nil, err
	}
	f := newOpenFile(fd)
	f.readonly = readonly
	return f, nil
}

// pinned returns the descriptor of an inode that no name leads to, held for the caller, or nil.
func (u *Union) pinned(id ID) *openFile {
	u.pinMu.Lock()
	defer u.pinMu.Unlock()
	f := u.pins[id]
	if f != nil {
		f.refs.Add(1)
	}
	return f
}

// pin keeps an upper inode reachable that is about to lose the name by which it is known.
func (u *Union) pin(id ID, p place, mode uint32) error {
	f := u.fds.get(id)
	if f == nil && mode == unix.S_IFREG {
		var err error
		if f, err = u.openData(p, false); err != nil && !isPermission(err) {
			return err
		}
	}
	if f == nil {
		fd, err := p.open(unix.O_PATH)
		if err != nil {
			return err
		}
		f = newOpenFile(fd)
		f.path = true
	}
	u.setPin(id, f)
	return nil
}

func isPermission(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
}

// setPin hands a descriptor over that keeps the inode reachable.
func (u *Union) setPin(id ID, f *openFile) {
	u.pinMu.Lock()
	old := u.pins[id]
	u.pins[id] = f
	u.pinMu.Unlock()
	old.Release()
}

func (u *Union) unpin(id ID) {
	u.pinMu.Lock()
	f := u.pins[id]
	delete(u.pins, id)
	u.pinMu.Unlock()
	f.Release()
}
