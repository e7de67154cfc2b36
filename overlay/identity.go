package overlay

import (
	"encoding/binary"
	"hash/fnv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fsUUID is struct fsuuid2 of include/uapi/linux/fs.h, Linux 6.9 and later.
type fsUUID struct {
	length uint8
	uuid   [16]byte
}

const iocGetFSUUID = 0x80111500 // FS_IOC_GETFSUUID

// identify returns what tells a directory from all others: its file handle and what tells its filesystem, which both
// stay when the filesystem is mounted again from a device of another number. Where that is not to be had, it is its
// device and inode number, as which it is also returned.
func identify(fd int) (id, byDev uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, err
	}
	byDev = hashOf(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, st.Dev), st.Ino))
	fs := filesystemOf(fd)
	if fs == nil {
		return byDev, byDev, nil
	}
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return byDev, byDev, nil
	}
	b := binary.LittleEndian.AppendUint32(fs, uint32(h.Type())) // #nosec G115 -- its bits
	return hashOf(append(b, h.Bytes()...)), byDev, nil
}

// filesystemOf returns what tells the filesystem of an open file from others for good, nil when that is not known.
func filesystemOf(fd int) []byte {
	if uuid, ok := uuidOf(fd); ok && uuid != [16]byte{} {
		return append([]byte("uuid"), uuid[:]...)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return nil
	}
	switch st.Type {
	case unix.NFS_SUPER_MAGIC: // the handle is the server's, and has it in it
		return []byte("nfs")
	case unix.SQUASHFS_MAGIC: // never changes, but has no name
		b := binary.LittleEndian.AppendUint64([]byte("squashfs"), st.Blocks)
		return binary.LittleEndian.AppendUint64(b, st.Files)
	}
	return nil
}

// uuidOf returns the UUID of the filesystem of an open file, if there is one and the kernel tells.
func uuidOf(fd int) ([16]byte, bool) {
	var u fsUUID
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), iocGetFSUUID, uintptr(unsafe.Pointer(&u))) // #nosec G103 -- a struct for an ioctl
	return u.uuid, e == 0 && u.length > 0
}

func hashOf(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b) // a hash takes everything
	return h.Sum64()
}

// tellApart has directories of filesystems that are copies of each other, and so have the same identity, tell themselves
// by their devices, all but the first.
func tellApart(layers []Layer) {
	seen := map[uint64]*DirLayer{}
	for _, l := range layers {
		d, ok := l.(*DirLayer)
		if !ok {
			continue
		}
		if other := seen[d.id]; other != nil && other.byDev != d.byDev {
			d.id = d.byDev
		}
		seen[d.id] = d
	}
}
