package overlay

import (
	"errors"

	"golang.org/x/sys/unix"
)

// written reports whether someone wrote to the file while it was copied.
func (c *copyUp) written() bool { return c.early != nil && c.early.acked }

// copyLarge is copyData of a whole file that is too large for others to wait for. Where blocks can be shared it is there
// at once all the same. Else writes go on, if there is room for what is yet to be copied: one that was answered must not
// be lost because the disk is full.
func (u *Union) copyLarge(c *copyUp, fd int, rec *record, n int64, times *[2]unix.Timespec) error {
	off, err := u.shareBlocks(fd, rec, n)
	if err != nil {
		return err
	}
	if off == n {
		return unix.Fdatasync(fd)
	}
	reserved, err := u.reserve(fd, rec, off, n)
	if err != nil {
		return err
	}
	e := newEarly(fd, n, off, times)
	if reserved {
		u.openEarly(c, e)
	}
	defer e.shut() // before what was written is given up
	if err := u.copyRuns(e, rec, off, n); err != nil {
		return err
	}
	if err := e.sync(); err != nil {
		return err
	}
	unsynced := e.shut()
	*times = e.times
	if unsynced {
		return unix.Fdatasync(fd)
	}
	return nil
}

// runs calls f with each run of a lower file from off up to n, which returns where to go on.
func (u *Union) runs(rec *record, off, n int64, f func(off int64, run Run) (next int64, err error)) error {
	for off < n {
		run, err := u.lowers[rec.layer-1].Data(rec.entry, off)
		if err != nil {
			return err
		}
		if run.Len <= 0 {
			return ErrCorrupt
		}
		run.Len = min(run.Len, n-off)
		off, err = f(off, run)
		if run.Ref != nil {
			run.Ref.Release()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errStop = errors.New("stop")

// shareBlocks lets a file share blocks with the lower one, from its beginning as far as that goes, and returns how far.
func (u *Union) shareBlocks(fd int, rec *record, n int64) (upTo int64, err error) {
	err = u.runs(rec, 0, n, func(off int64, run Run) (int64, error) {
		if run.FD >= 0 {
			r := unix.FileCloneRange{Src_fd: int64(run.FD), Src_offset: uint64(run.Pos), // #nosec G115 -- not negative
				Src_length: uint64(run.Len), Dest_offset: uint64(off)} // #nosec G115 -- not negative
			if unix.IoctlFileCloneRange(fd, &r) != nil {
				return off, errStop // the copy tells what is wrong, if anything is
			}
		}
		upTo = off + run.Len
		return upTo, nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return upTo, err
}

// reserve takes the room for a lower file's data from off on, and reports whether there is enough.
func (u *Union) reserve(fd int, rec *record, off, n int64) (bool, error) {
	err := u.runs(rec, off, n, func(off int64, run Run) (int64, error) {
		if run.FD >= 0 {
			err := retryEINTR(func() error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, run.Len) })
			if err != nil {
				return off, errStop // the copy goes on for as long as there is room
			}
		}
		return off + run.Len, nil
	})
	if errors.Is(err, errStop) {
		return false, nil
	}
	return err == nil, err
}

// copyRuns copies what was not written, a chunk at a time.
func (u *Union) copyRuns(e *early, rec *record, off, n int64) error {
	return u.runs(rec, off, n, func(off int64, run Run) (int64, error) {
		if run.FD < 0 {
			return e.done(off + run.Len), nil
		}
		next := off
		for next < off+run.Len {
			s := e.claim(next, min(off+run.Len, next+copyChunk))
			if err := copyRange(e.fd, s.off, run.FD, run.Pos+s.off-off, s.end-s.off); err != nil {
				return 0, err
			}
			next = e.done(s.end)
		}
		return next, nil
	})
}
