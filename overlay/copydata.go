package overlay

import (
	"errors"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

const xattrCapability = "security.capability"

// copyAttrs gives an upper inode the owner, xattrs, mode and times of a lower one, in the order in which none undoes
// another. Capabilities are left out unless caps is set.
func (u *Union) copyAttrs(p place, layer int, e Entry, a *Attr, caps bool) error {
	if err := u.up.own(p, a.UID, a.GID, a.Mode, decodeDev(a.Rdev)); err != nil {
		return err
	}
	names, err := u.lowers[layer].Xattrs(e)
	if err != nil {
		return err
	}
	for _, n := range names {
		if isHidden(n) || n == xattrCapability && !caps {
			continue
		}
		v, err := u.lowers[layer].Xattr(e, n)
		if err != nil {
			return err
		}
		if err := p.setxattr(u.up.over.encode(n), v, 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	if err := u.up.setMode(p, a.Mode); err != nil {
		return err
	}
	return p.utimens(&[2]unix.Timespec{a.Atime.unix(), a.Mtime.unix()})
}

// copyData copies the first n bytes of a lower file of the given size into a new file, keeping holes, and sees to it
// that they are on disk before the file gets its name. A large one may be written to meanwhile, and times, those that
// the file is to have, be changed.
func (u *Union) copyData(c *copyUp, fd int, rec *record, size, n int64, times *[2]unix.Timespec) error {
	if err := unix.Ftruncate(fd, min(size, n)); err != nil {
		return err
	}
	if n == size && n >= earlyFrom {
		return u.copyLarge(c, fd, rec, n, times)
	}
	for off := int64(0); off < n; {
		run, err := u.lowers[rec.layer-1].Data(rec.entry, off)
		if err != nil {
			return err
		}
		if run.Len <= 0 {
			return ErrCorrupt
		}
		l := min(run.Len, n-off)
		if run.FD >= 0 {
			err = copyRange(fd, off, run.FD, run.Pos, l)
		}
		if run.Ref != nil {
			run.Ref.Release()
		}
		if err != nil {
			return err
		}
		off += l
	}
	if n == 0 {
		return nil
	}
	return unix.Fdatasync(fd)
}

var copyBufs = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// copyRange copies between two files, inside the kernel where it can.
func copyRange(dst int, dstOff int64, src int, srcOff, n int64) error {
	for n > 0 {
		so, do := srcOff, dstOff
		c, err := unix.CopyFileRange(src, &so, dst, &do, int(min(n, 1<<30)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS),
			errors.Is(err, unix.EOPNOTSUPP), err == nil && c == 0:
			return copyPlain(dst, dstOff, src, srcOff, n)
		case err != nil:
			return err
		}
		srcOff, dstOff, n = srcOff+int64(c), dstOff+int64(c), n-int64(c)
	}
	return nil
}

func copyPlain(dst int, dstOff int64, src int, srcOff, n int64) error {
	bp, _ := copyBufs.Get().(*[]byte)
	defer copyBufs.Put(bp)
	for n > 0 {
		buf := (*bp)[:min(int64(len(*bp)), n)]
		c, err := unix.Pread(src, buf, srcOff)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if c == 0 {
			return io.ErrUnexpectedEOF
		}
		if err := writeAll(dst, buf[:c], dstOff); err != nil {
			return err
		}
		srcOff, dstOff, n = srcOff+int64(c), dstOff+int64(c), n-int64(c)
	}
	return nil
}

// writeAll writes all of b at off.
func writeAll(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		c, err := unix.Pwrite(fd, b, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b, off = b[c:], off+int64(c)
	}
	return nil
}

// fetchData brings the data of a file up whose metadata are there already. Until the mark is gone, what was copied
// does not count, so a crash leaves the file as it was.
func (u *Union) fetchData(id ID, c *copyUp, rec *record, size int64) error {
	f, err := u.fileFD(id, true)
	if err != nil {
		return err
	}
	defer f.Release()
	p := place{fd: f.fd}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return err
	}
	// Writing drops them.
	caps, err := p.value(xattrCapability)
	if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	times := [2]unix.Timespec{st.Atim, st.Mtim}
	err = u.copyData(c, f.fd, rec, st.Size, min(size, st.Size), &times)
	if err != nil {
		// What was copied is dropped and the length is again the one that stat shows.
		err = errors.Join(err, unix.Ftruncate(f.fd, 0), unix.Ftruncate(f.fd, st.Size))
	}
	if err == nil {
		st.Atim, st.Mtim = times[0], times[1]
		if c.written() {
			caps = nil
		}
	}
	if err = errors.Join(err, undoWriting(f.fd, &st, caps)); err != nil {
		return err
	}
	if err := p.removexattr(u.up.overlay + xattrMetacopy); err != nil {
		return err
	}
	_ = p.removexattr(u.up.overlay + xattrRedirect) // harmless on a file that has its data
	u.tab.update(id, func(r *record) { r.flags &^= flagMetacopy })
	return nil
}

// undoWriting gives a file back what writing its data took away.
func undoWriting(fd int, st *unix.Stat_t, caps []byte) error {
	p := place{fd: fd}
	if caps != nil {
		if err := p.setxattr(xattrCapability, caps, 0); err != nil {
			return err
		}
	}
	if st.Mode&0o6000 != 0 {
		if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
			return err
		}
	}
	return p.utimens(&[2]unix.Timespec{st.Atim, st.Mtim})
}
