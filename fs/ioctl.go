package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Ioctl answers IOCTL: the inode flags that chattr(1) and lsattr(1) set and show.
func (r *raw) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, _ *fuse.IoctlOut, outbuf []byte) fuse.Status {
	arg := outbuf
	if len(inbuf) > 0 {
		arg = append([]byte(nil), inbuf...) // the request's own memory is not to be written to
	}
	return r.status(r.u.Ioctl(id(in.NodeId), in.Cmd, arg))
}
