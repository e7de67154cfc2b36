package fs_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

var dataScenes = []scene{
	{name: "map over copy-up", prepare: func(s *sight) { s.make("f", strings.Repeat("a", 8192), 0, 0o644) }, act: func(s *sight) {
		fd := s.open("f", unix.O_RDONLY)
		m, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ, unix.MAP_SHARED)
		s.ok(err)
		s.say("before", string(m[:3]), m[4096])
		_, err = unix.Pwrite(s.open("f", unix.O_WRONLY), []byte("new"), 0)
		s.say("write", err, string(m[:3]))
		w, err := unix.Mmap(s.open("f", unix.O_RDWR), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		s.ok(err)
		copy(w[4096:], "mapped")
		buf := make([]byte, 6)
		_, err = unix.Pread(fd, buf, 4096)
		s.say("read", string(buf), err, string(m[4096:4102]))
		s.say("rename", unix.Rename(s.at("f"), s.at("g")), unix.Unlink(s.at("g")))
		copy(w, "gone")
		s.say("msync", unix.Msync(w, unix.MS_SYNC), string(m[:4]))
		s.ok(unix.Munmap(w))
		s.ok(unix.Munmap(m))
	}},
	{name: "descriptor over copy-up", prepare: func(s *sight) { s.make("f", "data", 0, 0o644) }, act: func(s *sight) {
		r, p := s.open("f", unix.O_RDONLY), s.open("f", unix.O_PATH)
		s.content("f")
		s.ok(os.WriteFile(s.at("f"), []byte("longer than it was"), 0o600))
		buf := make([]byte, 64)
		n, err := unix.Pread(r, buf, 0)
		s.say("read", string(buf[:n]), err)
		var st unix.Stat_t
		s.say("stat", unix.Fstat(p, &st), st.Size, st.Mode)
		s.say("chmod", unix.Fchmod(r, 0o600), unix.Fstat(p, &st), st.Mode)
	}},
	{name: "unlinked file", prepare: func(s *sight) { s.make("f", "data", 0, 0o644) }, act: func(s *sight) {
		fd := s.open("f", unix.O_RDWR)
		s.say("unlink", unix.Unlink(s.at("f")))
		var st unix.Stat_t
		s.say("stat", unix.Fstat(fd, &st), st.Nlink, st.Size)
		_, err := unix.Pwrite(fd, []byte("more"), 4)
		s.say("write", err)
		buf := make([]byte, 16)
		n, err := unix.Pread(fd, buf, 0)
		s.say("read", string(buf[:n]), err, unix.Fsync(fd), unix.Fchmod(fd, 0o600), unix.Ftruncate(fd, 2))
		s.say("stat", unix.Fstat(fd, &st), st.Mode, st.Size)
		s.say("link", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, s.at("g"), unix.AT_SYMLINK_FOLLOW))
		s.say("xattr", unix.Fsetxattr(fd, "user.k", []byte("v"), 0))
		s.make("f", "another", 0, 0o600)
		n, err = unix.Pread(fd, buf, 0)
		s.say("read", string(buf[:n]), err)
	}},
	{name: "file without a name", act: func(s *sight) {
		fd := s.open(".", unix.O_TMPFILE|unix.O_RDWR)
		_, err := unix.Write(fd, []byte("text"))
		s.say("write", err)
		s.say("link", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, s.at("t"), unix.AT_SYMLINK_FOLLOW))
		s.content("t")
		s.mode("t")
		ex := s.open(".", unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL)
		s.say("exclusive", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", ex), unix.AT_FDCWD, s.at("x"), unix.AT_SYMLINK_FOLLOW))
	}},
	{name: "append", prepare: func(s *sight) { s.make("f", "one", 0, 0o644) }, act: func(s *sight) {
		a, b := s.open("f", unix.O_WRONLY|unix.O_APPEND), s.open("f", unix.O_WRONLY|unix.O_APPEND|unix.O_SYNC)
		for _, fd := range []int{a, b, a} {
			_, err := unix.Write(fd, []byte("+"))
			s.say("write", err)
		}
		s.content("f")
	}},
	{name: "direct I/O", prepare: func(s *sight) { s.make("f", strings.Repeat("d", 8192), 0, 0o644) }, act: func(s *sight) {
		fd := s.open("f", unix.O_RDWR|unix.O_DIRECT)
		page := aligned(4096)
		n, err := unix.Pread(fd, page, 4096)
		s.say("read", n, err, string(page[:3]))
		copy(page, "NEW")
		n, err = unix.Pwrite(fd, page, 4096)
		s.say("write", n, err)
		buf := make([]byte, 3)
		_, err = unix.Pread(s.open("f", unix.O_RDONLY), buf, 4096)
		s.say("cached", string(buf), err)
		n, err = unix.Pread(fd, page, 8192)
		s.say("end", n, err)
	}},
	{name: "holes", prepare: func(s *sight) { s.sparse("f", 4<<20, 1<<20, 3<<20) }, act: func(s *sight) {
		s.holes("f")
		_, err := unix.Pwrite(s.open("f", unix.O_WRONLY), []byte("x"), 2<<20)
		s.say("write", err)
		s.holes("f")
		fd := s.open("g", unix.O_CREAT|unix.O_RDWR)
		_, err = unix.Pwrite(fd, []byte("dirty"), 1<<20)
		s.say("write", err)
		s.holes("g") // not yet written back
		s.say("extend", unix.Ftruncate(fd, 3<<20))
		s.holes("g")
		s.say("sync", unix.Fsync(fd))
		s.holes("g")
		s.say("blocks", stat(s.T, s.at("f")).Blocks < 4096, stat(s.T, s.at("g")).Blocks < 4096)
	}},
	{name: "fallocate", prepare: func(s *sight) { s.make("f", strings.Repeat("f", 64<<10), 0, 0o644) }, act: func(s *sight) {
		fd := s.open("f", unix.O_RDWR)
		for _, mode := range []uint32{
			0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
			unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE,
		} {
			s.say(fmt.Sprintf("mode %x", mode), unix.Fallocate(fd, mode, 4096*int64(mode+1), 64<<10))
			b, err := os.ReadFile(s.at("f"))
			s.say("now", len(b), bytes.Count(b, []byte("f")), err)
		}
	}},
	{name: "copy_file_range", prepare: func(s *sight) {
		s.make("src", strings.Repeat("0123456789", 1000), 0, 0o644)
		s.make("dst", "short", 0, 0o644)
	}, act: func(s *sight) {
		in, out := int64(5), int64(2)
		src := s.open("src", unix.O_RDWR)
		n, err := unix.CopyFileRange(src, &in, s.open("dst", unix.O_WRONLY), &out, 100, 0)
		s.say("copied", n, err, in, out)
		s.content("dst")
		_, err = unix.Pwrite(src, []byte("dirty"), 0)
		s.say("write", err)
		in, out = 0, 0
		n, err = unix.CopyFileRange(src, &in, s.open("dst", unix.O_WRONLY), &out, 1<<20, 0)
		s.say("copied", n, err)
		s.content("dst")
	}},
	{name: "past 4 GiB", prepare: func(s *sight) { s.sparse("f", 5<<30, 5<<30-10) }, huge: true, act: func(s *sight) {
		fd := s.open("f", unix.O_RDWR)
		_, err := unix.Pwrite(fd, []byte("end"), 6<<30)
		s.say("write", err)
		buf := make([]byte, 10)
		n, err := unix.Pread(fd, buf, 5<<30-10)
		s.say("read", n, err, string(buf))
		s.mode("f")
		n, err = unix.Pread(fd, buf, 6<<30)
		s.say("read", n, err, string(buf[:3]), unix.Ftruncate(fd, 4<<30+1))
		s.mode("f")
	}},
	{name: "truncate", prepare: func(s *sight) {
		s.make("f", strings.Repeat("t", 10000), 0, 0o644)
		s.make("g", strings.Repeat("t", 10000), 0, 0o644)
		s.make("h", "", 0, 0o644)
	}, act: func(s *sight) {
		s.say("down", unix.Truncate(s.at("f"), 100))
		s.content("f")
		s.say("up", unix.Truncate(s.at("f"), 20000), unix.Truncate(s.at("g"), 20000), unix.Truncate(s.at("h"), 1<<20))
		for _, n := range []string{"f", "g", "h"} {
			b, err := os.ReadFile(s.at(n))
			s.say(n, len(b), bytes.Count(b, []byte("t")), err)
		}
		s.say("errors", unix.Truncate(s.at("f"), -1), unix.Truncate(s.at("d"), 1), unix.Truncate(s.at("none"), 1))
		s.open("g", unix.O_TRUNC|unix.O_WRONLY)
		s.content("g")
	}},
}

// sparse makes a file of a size that holds ten bytes at each offset.
func (s *sight) sparse(name string, size int64, at ...int64) {
	s.Helper()
	fd := s.open(name, unix.O_CREAT|unix.O_WRONLY)
	s.ok(unix.Ftruncate(fd, size))
	for _, off := range at {
		_, err := unix.Pwrite(fd, []byte("0123456789"), off)
		s.ok(err)
	}
}

// holes says where a file has data.
func (s *sight) holes(name string) {
	fd := s.open(name, unix.O_RDONLY)
	var runs []string
	for off := int64(0); ; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if err != nil {
			s.say(name, runs, err)
			return
		}
		end, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			s.say(name, runs, err)
			return
		}
		runs = append(runs, fmt.Sprint(data, "-", end))
		off = end
	}
}

// aligned returns memory that direct I/O can use.
func aligned(n int) []byte {
	b := make([]byte, 2*n)
	off := n - int(uintptr(unsafe.Pointer(&b[0]))%uintptr(n)) // #nosec G103 -- its address alone
	return b[off : off+n]
}
