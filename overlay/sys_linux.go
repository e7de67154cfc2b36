package overlay

import (
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The *xattrat system calls came with Linux 6.13 under the same numbers on every architecture
// (scripts/syscall.tbl); older kernels are asked through /proc/self/fd.
const (
	sysSetxattrat    = 463
	sysGetxattrat    = 464
	sysListxattrat   = 465
	sysRemovexattrat = 466
)

var noXattrat atomic.Bool // the kernel has no *xattrat calls

// xattrArgs is struct xattr_args of include/uapi/linux/xattr.h on a 64-bit machine. The pointer is one that Go knows, so
// that it stays right when a stack moves.
type xattrArgs struct {
	value unsafe.Pointer
	size  uint32
	flags uint32
}

// place is where an inode of the upper layer is reached: a name in a directory, or a descriptor alone when name is
// empty. It is valid while the caller holds what keeps fd open and the name in place.
type place struct {
	fd   int
	name string
}

// at is the directory itself that h is the descriptor of.
func at(h *openFile) place { return place{h.fd, "."} }

const noFollow = unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH

// procPath names the place for system calls that take only paths. Its last component is not followed by the l… calls
// when the place has a name; when it has none, the magic link must be followed.
func (p place) procPath() string {
	s := "/proc/self/fd/" + strconv.Itoa(p.fd)
	if p.name != "" {
		s += "/" + p.name
	}
	return s
}

// cString is room on the stack for a name, or for one in a directory, as system calls take it. Calls that answer requests
// without end make no garbage of it.
type cString [2 * (MaxName + 1)]byte

// set fills in a name.
func (c *cString) set(name string) error {
	if len(name) >= len(c) {
		return unix.ENAMETOOLONG
	}
	if strings.IndexByte(name, 0) >= 0 {
		return unix.EINVAL
	}
	c[copy(c[:], name)] = 0
	return nil
}

func (p place) stat(st *unix.Stat_t) error {
	var path cString
	if err := path.set(p.name); err != nil {
		return err
	}
	for {
		_, _, e := unix.Syscall6(unix.SYS_NEWFSTATAT, uintptr(p.fd), uintptr(unsafe.Pointer(&path)), uintptr(unsafe.Pointer(st)), noFollow, 0, 0)
		if e != unix.EINTR {
			return errnoErr(e)
		}
	}
}

func (p place) statx(mask int, st *unix.Statx_t) error {
	var path cString
	if err := path.set(p.name); err != nil {
		return err
	}
	_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(p.fd), uintptr(unsafe.Pointer(&path)), noFollow, uintptr(mask), uintptr(unsafe.Pointer(st)), 0)
	return errnoErr(e)
}

func (p place) chown(uid, gid int) error {
	return unix.Fchownat(p.fd, p.name, uid, gid, noFollow)
}

// chmod does not follow a symlink because its callers know that the place is none and no one else can change that.
func (p place) chmod(mode uint32) error {
	if p.name == "" {
		return unix.Chmod(p.procPath(), mode)
	}
	return unix.Fchmodat(p.fd, p.name, mode, 0)
}

func (p place) utimens(ts *[2]unix.Timespec) error {
	if p.name == "" {
		return unix.UtimesNanoAt(unix.AT_FDCWD, p.procPath(), ts[:], 0)
	}
	return unix.UtimesNanoAt(p.fd, p.name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

// open opens the inode itself, never through a symlink.
func (p place) open(flags int) (int, error) {
	if p.name == "" {
		return openRetry(unix.AT_FDCWD, p.procPath(), flags|unix.O_CLOEXEC, 0)
	}
	return openRetry(p.fd, p.name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
}

// openQuietly is open with O_NOATIME as noAtime, which only the owner of a file may say.
func (p place) openQuietly(flags, noAtime int) (int, error) {
	fd, err := p.open(flags | noAtime)
	if noAtime != 0 && errors.Is(err, unix.EPERM) {
		fd, err = p.open(flags)
	}
	return fd, err
}

func openRetry(dirfd int, name string, flags int, mode uint32) (fd int, err error) {
	err = retryEINTR(func() error {
		fd, err = unix.Openat(dirfd, name, flags, mode)
		return err
	})
	return fd, err
}

func retryEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (p place) readlink() (string, error) {
	var buf [4096]byte
	n, err := unix.Readlinkat(p.fd, p.name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// xattrat makes one of the *xattrat calls; ok is false when the kernel has none, or when the place is a descriptor alone:
// they do not take one that was opened with O_PATH.
func (p place) xattrat(trap uintptr, name string, value []byte, flags uint32) (n int, ok bool, err error) {
	if noXattrat.Load() || p.name == "" {
		return 0, false, nil
	}
	var path, attr cString
	if err := errors.Join(path.set(p.name), attr.set(name)); err != nil {
		return 0, true, err
	}
	args := xattrArgs{unsafe.Pointer(unsafe.SliceData(value)), uint32(len(value)), flags} // #nosec G115 -- at most 64 KiB
	r, _, e := unix.Syscall6(trap, uintptr(p.fd), uintptr(unsafe.Pointer(&path)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(&attr)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	if e == unix.ENOSYS {
		noXattrat.Store(true)
		return 0, false, nil
	}
	return int(r), true, errnoErr(e)
}

func errnoErr(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// getxattr fills buf with the value and returns its length; an empty buf asks for the length alone.
func (p place) getxattr(name string, buf []byte) (int, error) {
	if n, ok, err := p.xattrat(sysGetxattrat, name, buf, 0); ok {
		return n, err
	}
	if p.name == "" {
		return unix.Getxattr(p.procPath(), name, buf)
	}
	return unix.Lgetxattr(p.procPath(), name, buf)
}

func (p place) setxattr(name string, value []byte, flags int) error {
	if _, ok, err := p.xattrat(sysSetxattrat, name, value, uint32(flags)); ok { // #nosec G115 -- XATTR_* flags
		return err
	}
	if p.name == "" {
		return unix.Setxattr(p.procPath(), name, value, flags)
	}
	return unix.Lsetxattr(p.procPath(), name, value, flags)
}

func (p place) removexattr(name string) error {
	if !noXattrat.Load() && p.name != "" {
		path, err := unix.BytePtrFromString(p.name)
		if err != nil {
			return err
		}
		attr, err := unix.BytePtrFromString(name)
		if err != nil {
			return err
		}
		_, _, e := unix.Syscall6(sysRemovexattrat, uintptr(p.fd), uintptr(unsafe.Pointer(path)), unix.AT_SYMLINK_NOFOLLOW,
			uintptr(unsafe.Pointer(attr)), 0, 0)
		if e != unix.ENOSYS {
			return errnoErr(e)
		}
		noXattrat.Store(true)
	}
	if p.name == "" {
		return unix.Removexattr(p.procPath(), name)
	}
	return unix.Lremovexattr(p.procPath(), name)
}

// listxattr fills buf with the names, each ended by a zero byte.
func (p place) listxattr(buf []byte) (int, error) {
	if !noXattrat.Load() && p.name != "" {
		var path cString
		if err := path.set(p.name); err != nil {
			return 0, err
		}
		r, _, e := unix.Syscall6(sysListxattrat, uintptr(p.fd), uintptr(unsafe.Pointer(&path)), unix.AT_SYMLINK_NOFOLLOW,
			uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0)
		if e != unix.ENOSYS {
			return int(r), errnoErr(e)
		}
		noXattrat.Store(true)
	}
	if p.name == "" {
		return unix.Listxattr(p.procPath(), buf)
	}
	return unix.Llistxattr(p.procPath(), buf)
}

// value returns the whole value of an xattr, of whatever length.
func (p place) value(name string) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := p.getxattr(name, buf)
		if errors.Is(err, unix.ERANGE) {
			if n, err = p.getxattr(name, nil); err == nil {
				buf = make([]byte, n+16)
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

// names returns the names of all xattrs.
func (p place) names() ([]string, error) {
	buf := make([]byte, 1024)
	for {
		n, err := p.listxattr(buf)
		if errors.Is(err, unix.ERANGE) {
			if n, err = p.listxattr(nil); err == nil {
				buf = make([]byte, n+256)
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		return splitNames(buf[:n]), nil
	}
}

func splitNames(b []byte) []string {
	var names []string
	for start, i := 0, 0; i < len(b); i++ {
		if b[i] == 0 {
			names = append(names, string(b[start:i]))
			start = i + 1
		}
	}
	return names
}
