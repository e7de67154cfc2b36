package overlay

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// earlyFrom is the size in bytes from which a file is written to while it is copied. A smaller one is there at once.
	earlyFrom = 4 << 20
	// copyChunk is how many bytes are copied at a time, which is what a write to the same place waits for.
	copyChunk = 8 << 20
	// maxSpans bounds the memory for what was written; who would write elsewhere waits for the copy.
	maxSpans = 64 << 10
)

// span is a stretch of a file, in bytes.
type span struct{ off, end int64 }

// early is a file that is written to while its data are copied into it. Were writes to wait, those of one file would be
// all that the kernel sends at a time, and all that it lets be dirty.
type early struct {
	fd   int
	f    *openFile // keeps fd open, for those too who read from it after the end
	size int64     // of the lower file, bytes

	mu       sync.Mutex // guards what follows; held over a write to f, never over a chunk that is copied
	free     sync.Cond  // of mu: busy has become empty, or closed true
	copied   int64      // what is below this is in f
	busy     span       // being copied
	written  []span     // above copied, sorted, apart from one another
	end      int64      // of what was written
	acked    bool       // something was, or the times were set
	unsynced bool       // …since f was last brought to its disk
	closed   bool       // the rest waits for the end
	released bool       // f is closed
	times    [2]unix.Timespec
}

// newEarly makes what a file of the given size is copied through, of which the bytes below copied are there.
func newEarly(fd int, size, copied int64, times *[2]unix.Timespec) *early {
	e := &early{fd: fd, size: size, copied: copied, times: *times}
	e.free.L = &e.mu
	return e
}

// openEarly lets writes in. There must be room for what is yet to be copied. Without a descriptor more there are none.
func (u *Union) openEarly(c *copyUp, e *early) {
	fd, err := unix.FcntlInt(uintptr(e.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	e.fd, e.f = fd, newOpenFile(fd)
	u.admitted.Add(1)
	u.copyMu.Lock()
	defer u.copyMu.Unlock()
	c.early = e
	c.cond.Broadcast()
}

// shut lets no one in any more, and reports whether anything was written that may not be on the disk.
func (e *early) shut() (unsynced bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.free.Broadcast()
	return e.unsynced
}

func (e *early) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.released = true
	e.f.Release()
}

// earlyOf returns what takes writes to an inode whose data are being copied, nil when nothing does. It waits until that
// is known.
func (u *Union) earlyOf(id ID) *early {
	u.copyMu.Lock()
	defer u.copyMu.Unlock()
	c := u.copies[id]
	for c != nil && !c.ended && c.early == nil {
		c.cond.Wait()
	}
	if c == nil || c.ended {
		return nil
	}
	return c.early
}

// earlyNow is earlyOf without waiting. It is asked before the inode's record is read: what was written before is then
// either in what it returns or in the upper layer.
func (u *Union) earlyNow(id ID) *early {
	if u.admitted.Load() == 0 {
		return nil
	}
	u.copyMu.Lock()
	defer u.copyMu.Unlock()
	if c := u.copies[id]; c != nil {
		return c.early
	}
	return nil
}

// writeEarly writes to a file whose data are being copied. Unless it says done, the write must wait for that to end.
func (u *Union) writeEarly(id ID, b []byte, off int64, kill bool) (n int, done bool, err error) {
	rec, _ := u.tab.get(id)
	if rec.flags&flagLost != 0 {
		return 0, true, u.lost(id)
	}
	if kill || rec.mode != unix.S_IFREG || rec.hasData() || len(b) == 0 || off < 0 {
		return 0, false, nil
	}
	if e := u.earlyOf(id); e != nil {
		return e.write(b, off)
	}
	return 0, false, nil
}

func (e *early) write(b []byte, off int64) (n int, done bool, err error) {
	s := span{off, off + int64(len(b))}
	e.mu.Lock()
	defer e.mu.Unlock()
	for !e.closed && s.off < e.busy.end && e.busy.off < s.end {
		e.free.Wait()
	}
	if e.closed || len(e.written) >= maxSpans {
		return 0, false, nil
	}
	if n, err = pwrite(e.fd, b, off); n > 0 {
		s.end = off + int64(n)
		e.record(s)
		e.acked, e.unsynced, e.end = true, true, max(e.end, s.end)
	}
	return n, true, err
}

// record remembers what is not to be copied.
func (e *early) record(s span) {
	s.off = max(s.off, e.copied)
	if s.off >= s.end {
		return
	}
	i, _ := slices.BinarySearchFunc(e.written, s.off, func(w span, off int64) int { return int(min(max(w.end-off, -1), 1)) })
	j := i
	for ; j < len(e.written) && e.written[j].off <= s.end; j++ {
		s.off, s.end = min(s.off, e.written[j].off), max(s.end, e.written[j].end)
	}
	e.written = slices.Replace(e.written, i, j, s)
}

// claim returns the first stretch from off on, but below end, that was not written. It is the copier's until done.
func (e *early) claim(off, end int64) span {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.written {
		if w.off > off {
			end = min(end, w.off)
			break
		}
		off = max(off, w.end)
	}
	e.busy = span{off, max(off, end)}
	return e.busy
}

// done records that all below end is in the file, and returns end.
func (e *early) done(end int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.copied, e.busy = end, span{}
	i := 0
	for i < len(e.written) && e.written[i].end <= end {
		i++
	}
	e.written = slices.Delete(e.written, 0, i)
	e.free.Broadcast()
	return end
}

// sync brings the file to its disk while it is written to, so that little is left to do when it is not any more.
func (e *early) sync() error {
	e.mu.Lock()
	e.unsynced = false
	e.mu.Unlock()
	return unix.Fdatasync(e.fd)
}

// data tells where the data lie that begin at off: in the file being written to, or in the lower one, up to limit. ok is
// false once the copy-up is over.
func (e *early) data(off int64) (run Run, limit int64, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.released {
		return Run{}, 0, false
	}
	run, limit = Run{FD: e.fd, Pos: off, Ref: e.f}, 1<<62
	switch {
	case off >= e.size:
		run.Len = 1 << 62
	case off < e.copied:
		run.Len = e.copied - off
	default:
		for _, w := range e.written {
			if w.end <= off {
				continue
			}
			if w.off <= off {
				run.Len = w.end - off
			} else {
				limit = w.off - off
			}
			break
		}
	}
	if run.Len == 0 {
		return Run{}, limit, true
	}
	e.f.refs.Add(1)
	return run, 0, true
}

// setTimes sets the times that the file gets once its data are there. The kernel's flusher, which has one thread for
// the mount, sends the time of modification right after data and waits for the answer (fs/fuse/inode.c: fuse_write_inode).
func (e *early) setTimes(s *SetAttr) (done bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	for i, t := range []*unix.Timespec{s.Atime, s.Mtime} {
		if t == nil {
			continue
		}
		if e.times[i] = *t; t.Nsec == unix.UTIME_NOW {
			now := time.Now()
			e.times[i] = unix.Timespec{Sec: now.Unix(), Nsec: int64(now.Nanosecond())}
		}
	}
	e.acked = true
	return true
}

// amend corrects the attributes of a file that is being written to.
func (e *early) amend(a *Attr) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	a.Size = max(a.Size, uint64(e.end)) // #nosec G115 -- not negative
	a.Atime, a.Mtime = timespec(e.times[0]), timespec(e.times[1])
}

// lost tells once that writes were answered that are not in the file.
func (u *Union) lost(id ID) (err error) {
	u.tab.update(id, func(r *record) {
		if r.flags&flagLost != 0 {
			r.flags &^= flagLost
			err = unix.EIO
		}
	})
	return err
}
