package fs

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// defaultReadAhead is how far the kernel reads ahead, in bytes, where root mounts: requests of this size leave room for the
// reply's header in a pipe of the size that any user may have. The kernel's own 128 KiB make four times the requests.
const defaultReadAhead = 512 << 10

// setReadAhead raises how far the kernel reads ahead on a mount that was just made: what INIT says can only lower it
// (fs/fuse/inode.c: process_init_reply). Only root may.
func setReadAhead(mountpoint string, n int) {
	if n == 0 {
		n = defaultReadAhead
	}
	var st unix.Statx_t
	// Without asking the server, which does not run yet.
	if err := unix.Statx(unix.AT_FDCWD, mountpoint, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return
	}
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", st.Dev_major, st.Dev_minor)
	_ = os.WriteFile(path, []byte(strconv.Itoa(n>>10)), 0) // without sysfs, as in a container, reads are only slower
}
