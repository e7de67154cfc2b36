package overlay

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// timeLocks keep those who change times of one file apart. Few files share a lock, and it is held for one call of the
// upper filesystem only.
type timeLocks [64]sync.Mutex

func (l *timeLocks) of(id ID) *sync.Mutex { return &l[id%ID(len(l))] }

// WriteBack is Write for what the kernel's page cache held back. The time of modification is then the kernel's to tell,
// and it need not tell it again after the data (fs/fuse/file.c: fuse_update_ctime_in_cache, fuse_flush_times), so it stays
// what it was.
func (u *Union) WriteBack(id ID, b []byte, off int64, kill bool) (int, error) {
	f, err := u.toWrite(id, kill)
	if err != nil {
		return 0, err
	}
	defer f.Release()
	mu := u.times.of(id)
	mu.Lock()
	defer mu.Unlock()
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, err
	}
	n, err := pwrite(f.fd, b, off)
	if err != nil {
		return 0, err
	}
	return n, setMtime(f.fd, st.Mtim)
}

// setMtime is futimens(3), without the way through /proc.
func setMtime(fd int, t unix.Timespec) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, t}
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	return errnoErr(e)
}

// applyTimes is s.apply while no one writes back.
func (u *Union) applyTimes(id ID, s *SetAttr) error {
	mu := u.times.of(id)
	mu.Lock()
	defer mu.Unlock()
	return u.withPlace(id, func(p place) error { return s.apply(u.up, p) })
}
