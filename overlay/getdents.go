package overlay

import (
	"bytes"
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
)

const direntName = 19 // offset of d_name in struct linux_dirent64 of include/linux/dirent.h

var direntBufs = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// readNames calls f for each name of a directory but "." and "..", with its inode number and DT_… type, from the
// descriptor's beginning.
func readNames(fd int, f func(name string, ino uint64, typ uint8) error) error {
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return err
	}
	bp, _ := direntBufs.Get().(*[]byte)
	defer direntBufs.Put(bp)
	buf := *bp
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return err
		}
		for b := buf[:n]; len(b) > direntName; {
			reclen := binary.NativeEndian.Uint16(b[16:])
			name, _, _ := bytes.Cut(b[direntName:reclen], []byte{0})
			if s := string(name); s != "." && s != ".." {
				if err := f(s, binary.NativeEndian.Uint64(b), b[18]); err != nil {
					return err
				}
			}
			b = b[reclen:]
		}
	}
}
