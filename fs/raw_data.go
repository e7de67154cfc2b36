package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// spliceFrom is the size of a read, in bytes, from which moving pages through a pipe costs less than copying them once:
// a splice pair takes three system calls more than a pread.
const spliceFrom = 64 << 10

// spliceMost is the size of the largest read that is spliced: the pipe, of the size that any user may have
// (fs/pipe.c: pipe_max_size), holds the reply's header and a page more.
const spliceMost = 1<<20 - 8<<10

// Read answers READ.
func (r *raw) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	off := int64(in.Offset) // #nosec G115 -- the kernel's offsets are not negative
	run, err := r.u.Data(id(in.NodeId), off)
	if err != nil {
		return nil, r.status(err)
	}
	if len(buf) >= spliceFrom && len(buf) <= spliceMost && whole(run, int64(len(buf))) {
		return &runResult{fuse.ReadResultFd(uintptr(run.FD), run.Pos, len(buf)), run.Ref}, fuse.OK // #nosec G115 -- a descriptor
	}
	n, err := r.fill(id(in.NodeId), off, run, buf)
	if err != nil {
		return nil, r.status(err)
	}
	return &dataResult{[1][]byte{buf[:n]}}, fuse.OK
}

// dataResult is a read whose bytes go to the kernel in one call. With a result of its own go-fuse fills and empties a pipe
// first, before it finds that there is nothing to splice.
type dataResult struct{ slices [1][]byte }

// Slices is what go-fuse looks for in a result that is in memory.
func (r *dataResult) Slices() ([][]byte, fuse.Status) { return r.slices[:], fuse.OK }

// Bytes returns the bytes read.
func (r *dataResult) Bytes([]byte) ([]byte, fuse.Status) { return r.slices[0], fuse.OK }

// Size is how many they are.
func (r *dataResult) Size() int { return len(r.slices[0]) }

// Done is called once they are with the kernel.
func (r *dataResult) Done() {}

// whole reports whether a run can be spliced to a length. One of a layer must have it: a file that was cut short would
// reach the kernel as a short read, which stands for zeros.
func whole(run overlay.Run, n int64) bool {
	if run.FD < 0 || run.Len < n {
		return false
	}
	var st unix.Stat_t
	return run.Len >= 1<<62 || unix.Fstat(run.FD, &st) == nil && run.Pos+n <= st.Size
}

// runResult is a read that go-fuse splices from the layer's file to the kernel.
type runResult struct {
	fuse.ReadResult
	ref overlay.FDRef
}

// Seekable is what go-fuse looks for in a result that it can splice.
func (r *runResult) Seekable() (fd uintptr, off int64, sz int) {
	s, _ := r.ReadResult.(interface {
		Seekable() (fd uintptr, off int64, sz int)
	})
	return s.Seekable()
}

// Done is called once the result is with the kernel.
func (r *runResult) Done() {
	if r.ref != nil {
		r.ref.Release()
	}
}

// fill reads into buf from the run at off and those that follow it, up to the end of the file.
func (r *raw) fill(node overlay.ID, off int64, run overlay.Run, buf []byte) (int, error) {
	n := 0
	for {
		want := int(min(int64(len(buf)-n), run.Len))
		got, err := readRun(run, buf[n:n+want])
		if run.Ref != nil {
			run.Ref.Release()
		}
		n += got
		if err != nil || n == len(buf) {
			return n, err
		}
		if got < want || want == 0 {
			return n, r.u.CheckEnd(node, off+int64(n))
		}
		if run, err = r.u.Data(node, off+int64(n)); err != nil {
			return n, err
		}
	}
}

// readRun fills b from a run at least as long; it stops short at the end of the file.
func readRun(run overlay.Run, b []byte) (int, error) {
	if run.FD < 0 {
		clear(b)
		return len(b), nil
	}
	n := 0
	for n < len(b) {
		c, err := unix.Pread(run.FD, b[n:], run.Pos+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if c == 0 {
			return n, nil
		}
		n += c
	}
	return n, nil
}

// Write answers WRITE.
func (r *raw) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	kill := in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0
	write := r.u.Write
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		write = r.u.WriteBack
	}
	n, err := write(id(in.NodeId), data, int64(in.Offset), kill) // #nosec G115 -- the kernel's offsets are not negative
	return uint32(n), r.status(err)                              // #nosec G115 -- at most len(data)
}

// Fallocate answers FALLOCATE.
func (r *raw) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if err := r.killPriv(in.NodeId, in.Uid); err != nil {
		return r.status(err)
	}
	return r.status(r.u.Fallocate(id(in.NodeId), in.Mode, int64(in.Offset), int64(in.Length))) // #nosec G115 -- as Write
}

// CopyFileRange answers COPY_FILE_RANGE.
func (r *raw) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	if err := r.killPriv(in.NodeIdOut, in.Uid); err != nil {
		return 0, r.status(err)
	}
	n, err := r.u.CopyRange(id(in.NodeId), int64(in.OffIn), id(in.NodeIdOut), int64(in.OffOut), // #nosec G115 -- as Write
		int(min(in.Len, 1<<30))) // #nosec G115 -- bounded
	return uint32(max(n, 0)), r.status(err) // #nosec G115 -- bounded
}

// killPriv clears setuid and setgid where the kernel leaves that to the server without saying so, and who but root asks.
// The kernel does not look at the mode again by itself.
func (r *raw) killPriv(nodeid uint64, uid uint32) error {
	if uid == 0 {
		return nil
	}
	cleared, err := r.u.KillPriv(id(nodeid))
	if cleared && err == nil && r.server != nil {
		const attrsAlone = -1
		r.server.InodeNotify(nodeid, attrsAlone, 0) // it has the inode: it just asked
	}
	return err
}

// Lseek answers LSEEK, which is asked for SEEK_DATA and SEEK_HOLE alone. What was written may be in the kernel's cache
// and nowhere else, also of a file that is in lower layers yet, which fs/fuse/file.c does not look at, so it is had
// written back first.
func (r *raw) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if r.server != nil && !r.u.ReadOnly() {
		if st := r.server.InodeNotify(in.NodeId, int64(in.Offset), 0); st != fuse.OK && st != fuse.ENOENT { // #nosec G115 -- as Write
			return st
		}
	}
	off, err := r.u.Seek(id(in.NodeId), int64(in.Offset), int(in.Whence)) // #nosec G115 -- as Write
	out.Offset = uint64(max(off, 0))
	return r.status(err)
}

// Flush answers FLUSH: nothing to do at close(2), ever.
func (r *raw) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Fsync answers FSYNC.
func (r *raw) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if r.opt.NoSync {
		return fuse.ENOSYS // the kernel takes it for success and asks no more
	}
	const dataOnly = 1 // FUSE_FSYNC_FDATASYNC of include/uapi/linux/fuse.h
	return r.status(r.u.Fsync(id(in.NodeId), in.FsyncFlags&dataOnly != 0))
}

// FsyncDir answers FSYNCDIR.
func (r *raw) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if r.opt.NoSync {
		return fuse.ENOSYS
	}
	return r.status(r.u.Fsync(id(in.NodeId), false))
}

// ReadDir answers READDIR.
func (r *raw) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.status(r.u.ReadDir(id(in.NodeId), in.Offset, func(e *overlay.ListEntry) bool {
		return out.AddDirEntry(fuse.DirEntry{Name: e.Name, Mode: e.Mode, Ino: r.opt.Inodes.show(e.Ino), Off: e.Cookie})
	}))
}

// ReadDirPlus answers READDIRPLUS: a listing that looks each name up as well.
func (r *raw) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	a, _ := attrs.Get().(*overlay.Attr)
	defer attrs.Put(a)
	return r.status(r.u.ReadDir(id(in.NodeId), in.Offset, func(e *overlay.ListEntry) bool {
		entry := out.AddDirLookupEntry(fuse.DirEntry{Name: e.Name, Mode: e.Mode, Ino: r.opt.Inodes.show(e.Ino), Off: e.Cookie})
		if entry == nil {
			return false
		}
		if e.Name == "." || e.Name == ".." {
			return true
		}
		// A name that went meanwhile is listed without attributes: the kernel then looks it up if anyone asks.
		if node, err := r.u.Lookup(id(in.NodeId), e.Name, a); err == nil {
			r.entryOut(entry, node, a)
		}
		return true
	}))
}
