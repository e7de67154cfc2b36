package fs_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var nameScenes = []scene{
	{name: "times", prepare: func(s *sight) { s.make("f", "x", 0, 0o644); s.make("dir/g", "x", 0, 0o644) }, act: func(s *sight) {
		for _, sec := range []int64{-1, 1, 1 << 31, 1<<32 + 5, 10_000_000_000} {
			for _, n := range []string{"f", "dir"} {
				ts := []unix.Timespec{{Sec: sec, Nsec: 999999999}, {Sec: sec + 1, Nsec: 123456789}}
				s.say("set", unix.UtimesNanoAt(unix.AT_FDCWD, s.at(n), ts, unix.AT_SYMLINK_NOFOLLOW))
				st := stat(s.T, s.at(n))
				s.say(n, st.Atim, st.Mtim)
			}
		}
		old := []unix.Timespec{{Sec: 5}, {Sec: 5}}
		for _, n := range []string{"dir/new", "dir/h"} { // make, then link, then rename, then remove
			s.say("set", unix.UtimesNanoAt(unix.AT_FDCWD, s.at("dir"), old, 0))
			if n == "dir/new" {
				s.open(n, unix.O_CREAT|unix.O_WRONLY)
			} else {
				s.say("link", unix.Link(s.at("dir/g"), s.at(n)))
			}
			s.say("touched", stat(s.T, s.at("dir")).Mtim.Sec != 5)
		}
		for _, f := range []func() error{
			func() error { return unix.Chmod(s.at("dir/g"), 0o600) },
			func() error { return unix.Rename(s.at("dir/g"), s.at("dir/i")) },
			func() error { return unix.Unlink(s.at("dir/i")) },
		} {
			s.say("set", unix.UtimesNanoAt(unix.AT_FDCWD, s.at("dir"), old, 0), f())
			s.say("touched", stat(s.T, s.at("dir")).Mtim.Sec != 5)
		}
		before := time.Now().Add(-time.Minute).Unix()
		s.say("write", os.WriteFile(s.at("f"), []byte("new"), 0o600), stat(s.T, s.at("f")).Mtim.Sec > before)
	}},
	{name: "time of birth", prepare: func(s *sight) { s.make("f", "x", 0, 0o644) }, act: func(s *sight) {
		var a, b, c unix.Statx_t
		s.ok(unix.Statx(unix.AT_FDCWD, s.at("f"), 0, unix.STATX_BTIME, &a))
		s.ok(unix.Rename(s.at("f"), s.at("g")))
		s.ok(unix.Statx(unix.AT_FDCWD, s.at("g"), 0, unix.STATX_BTIME, &b))
		s.open("n", unix.O_CREAT|unix.O_WRONLY)
		s.ok(unix.Statx(unix.AT_FDCWD, s.at("n"), 0, unix.STATX_BTIME, &c))
		s.say("known", a.Mask&unix.STATX_BTIME != 0, b.Mask&unix.STATX_BTIME != 0, c.Mask&unix.STATX_BTIME != 0)
		s.say("the file's", c.Btime.Sec > time.Now().Unix()-60)
	}},
	{name: "removed directory", prepare: func(s *sight) { s.make("r/sub/f", "x", 0, 0o644) }, act: func(s *sight) {
		fd := s.open("r", unix.O_RDONLY|unix.O_DIRECTORY)
		s.say("full", unix.Rmdir(s.at("r")))
		s.say("remove", unix.Unlink(s.at("r/sub/f")), unix.Rmdir(s.at("r/sub")), unix.Rmdir(s.at("r")))
		var st unix.Stat_t
		s.say("stat", unix.Fstat(fd, &st), st.Nlink)
		_, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		s.say("create", err, unix.Mkdirat(fd, "x", 0o700), unix.Fchmod(fd, 0o700))
		n, err := unix.Getdents(fd, make([]byte, 4096))
		s.say("list", n, err)
		s.say("again", unix.Mkdir(s.at("r"), 0o700))
		s.list("r")
	}},
	{name: "directory renamed under a descriptor", prepare: func(s *sight) { s.make("a/b/f", "x", 0, 0o644) }, act: func(s *sight) {
		fd := s.open("a/b", unix.O_RDONLY|unix.O_DIRECTORY)
		s.say("rename", unix.Rename(s.at("a"), s.at("z")))
		n, err := unix.Openat(fd, "new", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		s.say("create", err, unix.Close(n))
		s.list("z/b")
		up, err := unix.Openat(fd, "../..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		var st unix.Stat_t
		s.say("above", err, unix.Fstat(up, &st), st.Ino == stat(s.T, s.dir).Ino, unix.Close(up))
		s.say("into itself", unix.Rename(s.at("z"), s.at("z/b/z")))
	}},
	{name: "hard links", prepare: func(s *sight) {
		s.make("f", "x", 0, 0o644)
		s.ok(unix.Link(s.at("f"), s.at("g")))
	}, act: func(s *sight) {
		s.say("link", unix.Link(s.at("g"), s.at("h")))
		s.say("write", os.WriteFile(s.at("f"), []byte("new"), 0o600))
		for _, n := range []string{"f", "g", "h"} {
			s.content(n)
			s.mode(n)
			s.say("same", stat(s.T, s.at(n)).Ino == stat(s.T, s.at("f")).Ino)
		}
		s.say("rename to itself", unix.Rename(s.at("f"), s.at("g")))
		s.say("unlink", unix.Unlink(s.at("f")))
		s.mode("g")
		s.say("of a directory", unix.Mkdir(s.at("dir"), 0o700), unix.Link(s.at("dir"), s.at("dir2")))
	}},
	{name: "locks", prepare: func(s *sight) { s.make("f", "x", 0, 0o644) }, act: func(s *sight) {
		a, b := s.open("f", unix.O_RDWR), s.open("f", unix.O_RDWR)
		s.say("flock", unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB), unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
		l := unix.Flock_t{Type: unix.F_WRLCK, Len: 10}
		s.say("OFD", unix.FcntlFlock(uintptr(a), unix.F_OFD_SETLK, &l), unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, &l))
		l.Start = 20
		s.say("elsewhere", unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, &l))
	}},
	{name: "long names", prepare: func(s *sight) { s.make(strings.Repeat("l", 255), "x", 0, 0o644) }, act: func(s *sight) {
		s.content(strings.Repeat("l", 255))
		s.say("rename", unix.Rename(s.at(strings.Repeat("l", 255)), s.at(strings.Repeat("m", 255))))
		for _, n := range []int{255, 256, 1024} {
			name := s.at(strings.Repeat("n", n))
			s.say(fmt.Sprint(n), unix.Mkdir(name, 0o700), unix.Rename(s.at(strings.Repeat("m", 255)), name+"x"), unix.Access(name, 0))
		}
		s.say("symlink", unix.Symlink(strings.Repeat("t", 4095), s.at("s")), unix.Symlink(strings.Repeat("t", 4096), s.at("s2")))
		to, err := os.Readlink(s.at("s"))
		s.say("readlink", len(to), err)
	}},
	{name: "deeper than PATH_MAX", prepare: func(s *sight) { s.deep("deep", 60) }, act: func(s *sight) {
		fd := s.deep("deep", 60)
		s.say("walk", unix.Fchmod(fd, 0o700), unix.Mkdirat(fd, "x", 0o700))
		s.say("rename", unix.Rename(s.at("deep"), s.at("moved")))
		fd = s.deep("moved", 60)
		var st unix.Stat_t
		s.say("stat", unix.Fstatat(fd, "x", &st, 0), st.Mode, unix.Unlinkat(fd, "x", unix.AT_REMOVEDIR))
	}},
	{name: "special files", prepare: func(s *sight) {
		s.ok(unix.Mknod(s.at("fifo"), unix.S_IFIFO|0o644, 0))
		s.ok(unix.Mknod(s.at("dev"), unix.S_IFCHR|0o644, int(unix.Mkdev(259, 70000)))) // #nosec G115 -- small
		s.ok(unix.Mknod(s.at("sock"), unix.S_IFSOCK|0o644, 0))
		s.ok(unix.Symlink("nowhere", s.at("link")))
	}, act: func(s *sight) {
		for _, n := range []string{"fifo", "dev", "sock", "link"} {
			s.say(n, unix.Lchown(s.at(n), 7, 8), unix.Link(s.at(n), s.at(n+"2")), unix.Lsetxattr(s.at(n), "user.x", []byte("v"), 0),
				unix.Lsetxattr(s.at(n), "trusted.x", []byte("v"), 0))
			s.mode(n)
			s.say("rdev", stat(s.T, s.at(n+"2")).Rdev)
			s.xattr(n, "trusted.x")
		}
	}},
	{name: "xattrs", prepare: func(s *sight) {
		s.make("f", "x", 0, 0o644)
		s.ok(unix.Setxattr(s.at("f"), "user.a", []byte("1"), 0))
	}, act: func(s *sight) {
		s.say("create", unix.Setxattr(s.at("f"), "user.a", []byte("2"), unix.XATTR_CREATE), unix.Setxattr(s.at("f"), "user.b", nil, unix.XATTR_REPLACE))
		s.say("big", unix.Setxattr(s.at("f"), "user.big", make([]byte, 2000), 0), unix.Setxattr(s.at("f"), "user.huge", make([]byte, 1<<17), 0))
		n, err := unix.Getxattr(s.at("f"), "user.big", make([]byte, 10))
		s.say("short", n, err)
		n, err = unix.Listxattr(s.at("f"), make([]byte, 3))
		s.say("short list", n, err)
		s.say("remove", unix.Removexattr(s.at("f"), "user.none"), unix.Removexattr(s.at("f"), "user.a"))
		left, err := xattrsOf(s.at("f"))
		s.say("left", left[:30], err)
		s.say("unknown", unix.Setxattr(s.at("f"), "nonsense.x", []byte("v"), 0))
	}},
}

var whiteoutScenes = []scene{
	{name: "rename with flags", prepare: func(s *sight) {
		for _, n := range []string{"a", "b", "c", "d", "w", "dir/f", "dir2/sub/g", "over"} {
			s.make(n, n, 0, 0o644)
		}
		s.ok(unix.Link(s.at("d"), s.at("d2")))
	}, act: func(s *sight) {
		const whiteout, noReplace, exchange = unix.RENAME_WHITEOUT, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE
		for _, r := range []struct {
			from, to string
			flags    uint
		}{
			{"a", "b", noReplace},
			{"a", "new", noReplace},
			{"b", "dir", exchange},
			{"b", "none", exchange},
			{"c", "c2", whiteout},
			{"dir", "over", whiteout | noReplace},
			{"dir2", "dir3", whiteout},
			{"d", "over", whiteout},
			{"w", "w2", whiteout | exchange},
			{"w", "w2", 1 << 5},
			{"c", "c3", 0}, // the device itself
			{"d", "d", whiteout},
			{"none", "x", whiteout},
		} {
			s.say(fmt.Sprint(r), unix.Renameat2(unix.AT_FDCWD, s.at(r.from), unix.AT_FDCWD, s.at(r.to), r.flags))
		}
		s.list(".")
		for _, n := range []string{"c", "c3", "d", "dir2", "over"} {
			st := stat(s.T, s.dir)
			err := unix.Lstat(s.at(n), &st)
			s.say(n, err, fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid), st.Rdev)
		}
		s.list("dir3/sub")
		s.content("c2")
		s.content("over")
		s.mode("over")
		s.say("as usual", unix.Unlink(s.at("d")), unix.Rename(s.at("w"), s.at("dir2")), unix.Link(s.at("c3"), s.at("c4")),
			unix.Chmod(s.at("c4"), 0o640))
		s.mode("c3")
		s.list(".")
	}},
	{name: "devices without a number", prepare: func(s *sight) { s.make("f", "x", 0, 0o644) }, act: func(s *sight) {
		s.say("remove", unix.Unlink(s.at("f")))
		for _, n := range []string{"f", "g"} {
			s.say(n, unix.Mknod(s.at(n), unix.S_IFCHR|0o600, 0), unix.Mknod(s.at(n), unix.S_IFCHR|0o600, 0))
			s.mode(n)
			_, err := unix.Open(s.at(n), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			s.say("open", err)
		}
		s.list(".")
		as(1001, func() { s.say("may not", unix.Mknod(s.at("h"), unix.S_IFCHR|0o600, 0)) })
		s.say("remove", unix.Unlink(s.at("f")))
		s.list(".")
	}},
	{name: "marks of another union", prepare: func(s *sight) { s.make("d/f", "x", 0, 0o644) }, act: func(s *sight) {
		for _, n := range []string{"d", "d/f"} {
			for _, x := range []string{"trusted.overlay.opaque", "user.overlay.redirect", "trusted.overlay.overlay.deep", "user.overlay."} {
				s.say("set", unix.Setxattr(s.at(n), x, []byte("y"), 0))
				s.xattr(n, x)
			}
			names, err := xattrsOf(s.at(n))
			s.say("list", names, err)
			s.say("remove", unix.Removexattr(s.at(n), "trusted.overlay.opaque"), unix.Removexattr(s.at(n), "trusted.overlay.metacopy"))
		}
		s.content("d/f")
	}},
}

func (s *sight) list(name string) {
	f, err := os.Open(s.at(name))
	if err != nil {
		s.say(name, err)
		return
	}
	names, err := f.Readdirnames(-1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	slices.Sort(names)
	s.say(name, names, err, f.Close())
}

// deep makes, or opens, directories of long names below each other and returns a descriptor of the last.
func (s *sight) deep(name string, depth int) int {
	s.Helper()
	if err := unix.Mkdir(s.at(name), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		s.Fatal(err)
	}
	fd := s.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	for range depth {
		long := strings.Repeat("p", 100)
		if err := unix.Mkdirat(fd, long, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			s.Fatal(err)
		}
		next, err := unix.Openat(fd, long, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		s.ok(err)
		s.Cleanup(func() { _ = unix.Close(next) })
		fd = next
	}
	return fd
}
