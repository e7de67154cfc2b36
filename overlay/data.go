package overlay

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Data tells where the data of a regular file lies that begins at byte off. Of a file in the upper layer the length of
// the run is not known: Len is at least 1<<62 and the descriptor's end is the file's.
func (u *Union) Data(id ID, off int64) (Run, error) {
	e := u.earlyNow(id)
	rec, ok := u.tab.get(id)
	if !ok {
		return Run{}, unix.ESTALE
	}
	if rec.mode != unix.S_IFREG {
		return Run{}, unix.EINVAL
	}
	if !rec.hasData() {
		if e != nil {
			return u.earlyData(id, e, &rec, off)
		}
		return u.lowers[rec.layer-1].Data(rec.entry, off)
	}
	f, err := u.fileFD(id, false)
	if err != nil {
		return Run{}, err
	}
	return Run{FD: f.fd, Pos: off, Len: 1 << 62, Ref: f}, nil
}

// earlyData is Data of a file that is being written to while it is copied.
func (u *Union) earlyData(id ID, e *early, rec *record, off int64) (Run, error) {
	run, limit, ok := e.data(off)
	switch {
	case !ok:
		return u.Data(id, off)
	case run.Len > 0:
		return run, nil
	}
	run, err := u.lowers[rec.layer-1].Data(rec.entry, off)
	run.Len = min(run.Len, limit)
	return run, err
}

// CheckEnd says whether a file that ran out of data at byte end ends there: a layer that has less than its file's size is
// damaged, and must not be read as zeros.
func (u *Union) CheckEnd(id ID, end int64) error {
	rec, ok := u.tab.get(id)
	if !ok {
		return unix.ESTALE
	}
	if rec.hasData() {
		return nil // its end is what it is
	}
	var a Attr
	if err := u.lowers[rec.layer-1].Attr(rec.entry, &a); err != nil {
		return err
	}
	if end < int64(a.Size) { // #nosec G115 -- a layer's sizes are below 2^63
		return fmt.Errorf("%w: a file's data end at byte %d of %d", ErrCorrupt, end, a.Size)
	}
	return nil
}

// writable brings the whole of a file up and returns its descriptor, held.
func (u *Union) writable(id ID) (*openFile, error) {
	rec, ok := u.tab.get(id)
	switch {
	case !ok:
		return nil, unix.ESTALE
	case rec.mode != unix.S_IFREG:
		return nil, unix.EINVAL
	}
	if err := u.copyUpData(id, allData); err != nil {
		return nil, err
	}
	return u.fileFD(id, true)
}

// Write writes at off and returns how much of b was written. kill clears setuid, setgid and capabilities first.
func (u *Union) Write(id ID, b []byte, off int64, kill bool) (int, error) {
	if n, done, err := u.writeEarly(id, b, off, kill); done {
		return n, err
	}
	f, err := u.toWrite(id, kill)
	if err != nil {
		return 0, err
	}
	defer f.Release()
	if u.up.over.user() {
		if err := u.up.dropCapability(place{fd: f.fd}); err != nil {
			return 0, err
		}
	}
	return pwrite(f.fd, b, off)
}

// toWrite is writable, for a write that clears setuid, setgid and capabilities first when kill is set.
func (u *Union) toWrite(id ID, kill bool) (*openFile, error) {
	f, err := u.writable(id)
	if err != nil || !kill {
		return f, err
	}
	if err := u.up.killPriv(f.fd); err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

// pwrite is pwrite(2), begun again when a signal interrupts it.
func pwrite(fd int, b []byte, off int64) (n int, err error) {
	err = retryEINTR(func() error {
		n, err = unix.Pwrite(fd, b, off)
		return err
	})
	return max(n, 0), err
}

// Fallocate is fallocate(2).
func (u *Union) Fallocate(id ID, mode uint32, off, n int64) error {
	f, err := u.writable(id)
	if err != nil {
		return err
	}
	defer f.Release()
	return retryEINTR(func() error { return unix.Fallocate(f.fd, mode, off, n) })
}

// CopyRange is copy_file_range(2) between two files of the union.
func (u *Union) CopyRange(src ID, srcOff int64, dst ID, dstOff int64, n int) (int, error) {
	out, err := u.writable(dst)
	if err != nil {
		return 0, err
	}
	defer out.Release()
	run, err := u.Data(src, srcOff)
	if err != nil {
		return 0, err
	}
	if run.Ref != nil {
		defer run.Ref.Release()
	}
	if run.Len == 0 {
		return 0, u.CheckEnd(src, srcOff)
	}
	if run.FD < 0 {
		return 0, unix.EOPNOTSUPP // a hole: the kernel copies by reading
	}
	pos := run.Pos
	n, err = unix.CopyFileRange(run.FD, &pos, out.fd, &dstOff, int(min(int64(n), run.Len)), 0)
	if n == 0 && err == nil {
		err = u.CheckEnd(src, srcOff)
	}
	return n, err
}

// Seek finds data or a hole at or after off: whence is SEEK_DATA or SEEK_HOLE of lseek(2).
func (u *Union) Seek(id ID, off int64, whence int) (int64, error) {
	u.awaitCopy(id)
	rec, ok := u.tab.get(id)
	if !ok {
		return 0, unix.ESTALE
	}
	if rec.hasData() {
		f, err := u.fileFD(id, false)
		if err != nil {
			return 0, err
		}
		defer f.Release()
		return unix.Seek(f.fd, off, whence)
	}
	var a Attr
	if err := u.GetAttr(id, &a); err != nil {
		return 0, err
	}
	size := int64(a.Size) // #nosec G115 -- a layer's sizes are below 2^63
	if off < 0 || off >= size {
		return 0, unix.ENXIO
	}
	for off < size {
		run, err := u.Data(id, off)
		if err != nil {
			return 0, err
		}
		if run.Ref != nil {
			run.Ref.Release()
		}
		if run.Len <= 0 {
			return 0, ErrCorrupt
		}
		if (run.FD < 0) == (whence == unix.SEEK_HOLE) {
			return off, nil
		}
		off += run.Len
	}
	if whence == unix.SEEK_HOLE {
		return size, nil
	}
	return 0, unix.ENXIO
}

// Fsync writes a file or directory of the upper layer to its disk; what is in lower layers is there. dataOnly leaves
// out what is not needed to read the data back.
func (u *Union) Fsync(id ID, dataOnly bool) error {
	if !u.modes.Volatile {
		u.awaitCopy(id)
	}
	rec, ok := u.tab.get(id)
	switch {
	case !ok:
		return unix.ESTALE
	case rec.flags&flagLost != 0:
		return u.lost(id)
	case rec.flags&flagUpper == 0, u.modes.Volatile:
		return nil
	case rec.flags&flagDir != 0:
		return u.fsyncDir(id)
	}
	f, err := u.fileFD(id, false)
	if err != nil {
		return err
	}
	defer f.Release()
	if dataOnly {
		return unix.Fdatasync(f.fd)
	}
	return unix.Fsync(f.fd)
}

func (u *Union) fsyncDir(id ID) error {
	h, err := u.dirFD(id)
	if err != nil {
		return err
	}
	defer h.Release()
	fd, err := openDir(h.fd, ".")
	if err != nil {
		return err
	}
	err = unix.Fsync(fd)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

// Readlink returns a symlink's target.
func (u *Union) Readlink(id ID) (target string, err error) {
	rec, ok := u.tab.get(id)
	switch {
	case !ok:
		return "", unix.ESTALE
	case rec.mode != unix.S_IFLNK:
		return "", unix.EINVAL
	case rec.flags&flagUpper == 0:
		return u.lowers[rec.layer-1].Readlink(rec.entry)
	}
	err = u.withPlace(id, func(p place) (err error) {
		target, err = u.up.over.readlink(p)
		return err
	})
	return target, err
}

// StatFS returns what statfs(2) says of the upper directory's filesystem; without one, the zero Statfs_t with its name
// length and block size set.
func (u *Union) StatFS() (st unix.Statfs_t, err error) {
	if u.up == nil {
		return unix.Statfs_t{Bsize: 4096, Frsize: 4096, Namelen: MaxName}, nil
	}
	err = unix.Fstatfs(u.up.root.fd, &st)
	return st, err
}

// Btime returns when an inode was made, zero when that is not known.
func (u *Union) Btime(id ID) (t Timespec, err error) {
	rec, ok := u.tab.get(id)
	if !ok {
		return t, unix.ESTALE
	}
	if rec.flags&flagUpper == 0 {
		var a Attr
		err := u.GetAttr(id, &a)
		return a.Btime, err
	}
	var stx unix.Statx_t
	err = u.withPlace(id, func(p place) error {
		return unix.Statx(p.fd, p.name, noFollow, unix.STATX_BTIME, &stx)
	})
	if err != nil || stx.Mask&unix.STATX_BTIME == 0 {
		return t, err
	}
	return Timespec{stx.Btime.Sec, stx.Btime.Nsec}, nil
}
