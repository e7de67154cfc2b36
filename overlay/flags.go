package overlay

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests that Ioctl takes (include/uapi/linux/fs.h), with the size of their argument in bytes in bits 16 to 29.
const (
	IocGetFlags   = unix.FS_IOC_GETFLAGS // ioctl_iflags(2), of which the kernel passes 4 bytes
	IocSetFlags   = unix.FS_IOC_SETFLAGS
	IocGetFSXattr = 0x801c581f // FS_IOC_FSGETXATTR: struct fsxattr
	IocSetFSXattr = 0x401c5820 // FS_IOC_FSSETXATTR
)

// inherentFlags are those that a filesystem sets and no one changes: FS_EXTENT_FL, FS_INLINE_DATA_FL.
const inherentFlags = 0x80000 | 0x10000000

// withFD calls f with a descriptor of an upper file or directory that ioctl(2) takes.
func (u *Union) withFD(id ID, f func(fd int) error) error {
	return u.withPlace(id, func(p place) error {
		fd, err := p.open(unix.O_RDONLY | unix.O_NONBLOCK)
		if err != nil {
			return err
		}
		err = f(fd)
		if cerr := unix.Close(fd); err == nil {
			err = cerr
		}
		return err
	})
}

// Ioctl answers one of the requests above. arg is the argument, which a request that gets is answered in. Layers made
// of tars know no flags. What is not supported is ENOTTY.
func (u *Union) Ioctl(id ID, cmd uint32, arg []byte) error {
	rec, ok := u.tab.get(id)
	size := 4
	if cmd == IocGetFSXattr || cmd == IocSetFSXattr {
		size = 28
	}
	switch {
	case !ok:
		return unix.ESTALE
	case rec.mode != unix.S_IFREG && rec.mode != unix.S_IFDIR, len(arg) < size:
		return unix.ENOTTY
	}
	switch cmd {
	case IocGetFlags, IocGetFSXattr:
		if rec.flags&flagUpper == 0 {
			clear(arg)
			return nil
		}
	case IocSetFlags, IocSetFSXattr:
		if err := u.beforeFlags(id, &rec); err != nil {
			return err
		}
	default:
		return unix.ENOTTY
	}
	if d := u.tab.dir(id); d != nil {
		defer d.inherit.Store(0)
	}
	return u.withFD(id, func(fd int) error {
		if cmd == IocSetFlags {
			has, err := unix.IoctlGetUint32(fd, IocGetFlags)
			if err != nil {
				return err
			}
			want := binary.NativeEndian.Uint32(arg)&^inherentFlags | has&inherentFlags
			binary.NativeEndian.PutUint32(arg, want)
		}
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&arg[0]))) // #nosec G103 -- size was checked
		return errnoErr(e)
	})
}

// beforeFlags brings the whole of a file up, since an immutable one could not be completed later, and lets go of a
// descriptor with which what the flags forbid could still be done.
func (u *Union) beforeFlags(id ID, rec *record) error {
	if rec.mode == unix.S_IFDIR {
		return u.copyUpMeta(id)
	}
	if err := u.copyUpData(id, allData); err != nil {
		return err
	}
	u.fds.forget(id)
	return nil
}
