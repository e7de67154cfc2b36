package overlay

import (
	"errors"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stamping keeps the time of modification of one file while its cached data are written back. It is there while someone
// writes back or changes attributes.
type stamping struct {
	users int // guarded by Union.stampMu

	mu     sync.Mutex // guards what follows; held for calls that touch no data
	active int        // writes under way
	mtime  unix.Timespec
}

var stampings = sync.Pool{New: func() any { return new(stamping) }}

// stamp returns what the time of a file is kept in; unstamp gives it back.
func (u *Union) stamp(id ID) *stamping {
	u.stampMu.Lock()
	defer u.stampMu.Unlock()
	s := u.stamps[id]
	if s == nil {
		s, _ = stampings.Get().(*stamping)
		u.stamps[id] = s
	}
	s.users++
	return s
}

func (u *Union) unstamp(id ID, s *stamping) {
	u.stampMu.Lock()
	defer u.stampMu.Unlock()
	if s.users--; s.users == 0 {
		delete(u.stamps, id)
		stampings.Put(s) // no write is under way: the next user finds it as new
	}
}

// begin remembers the file's time before the first of the writes under way.
func (s *stamping) begin(fd int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == 0 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		s.mtime = st.Mtim
	}
	s.active++
	return nil
}

// end gives the file its time back after the last of them.
func (s *stamping) end(fd int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active--; s.active > 0 {
		return nil
	}
	return setMtime(fd, s.mtime)
}

// WriteBack is Write for what the kernel's page cache held back. The time of modification is then the kernel's to tell,
// and it need not tell it again after the data (fs/fuse/file.c: fuse_update_ctime_in_cache, fuse_flush_times), so it stays
// what it was. It is set before the last write under way is answered, since whoever has flushed the mount reads the upper
// layer from then on.
func (u *Union) WriteBack(id ID, b []byte, off int64, kill bool) (int, error) {
	n, err := u.writeBack(id, b, off, kill)
	if err != nil {
		_ = u.lost(id) // the kernel keeps this error for all who fsync
	}
	return n, err
}

func (u *Union) writeBack(id ID, b []byte, off int64, kill bool) (int, error) {
	if n, done, err := u.writeEarly(id, b, off, kill); done {
		return n, err
	}
	f, err := u.toWrite(id, kill)
	if err != nil {
		return 0, err
	}
	defer f.Release()
	s := u.stamp(id)
	defer u.unstamp(id, s)
	if err := s.begin(f.fd); err != nil {
		return 0, err
	}
	n, err := pwrite(f.fd, b, off)
	if err := errors.Join(err, s.end(f.fd)); err != nil {
		return 0, err
	}
	return n, nil
}

// setMtime is futimens(3), without the way through /proc.
func setMtime(fd int, t unix.Timespec) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, t}
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	return errnoErr(e)
}

// applyTimes is s.apply, whose time of modification stays though writes are under way.
func (u *Union) applyTimes(id ID, a *SetAttr) error {
	s := u.stamp(id)
	defer u.unstamp(id, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	return u.withPlace(id, func(p place) error {
		if err := a.apply(u.up, p); err != nil || a.Mtime == nil || s.active == 0 {
			return err
		}
		var st unix.Stat_t
		if err := p.stat(&st); err != nil {
			return err
		}
		s.mtime = st.Mtim // UTIME_NOW is a time by now
		return nil
	})
}
