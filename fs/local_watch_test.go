package fs_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var watchScenes = []scene{
	{name: "inotify", prepare: func(s *sight) {
		s.make("d/f", "x", 0, 0o644)
		s.make("d/g", "x", 0, 0o644)
		s.make("d/sub/h", "x", 0, 0o644)
	}, act: func(s *sight) {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		s.ok(err)
		defer unix.Close(fd) //nolint:errcheck // nothing is written
		for _, n := range []string{"d", "d/f", "d/sub"} {
			_, err := unix.InotifyAddWatch(fd, s.at(n), unix.IN_ALL_EVENTS)
			s.ok(err)
		}
		s.touchAll(fd, s.inotify)
	}},
	{name: "fanotify", prepare: func(s *sight) {
		s.make("d/f", "x", 0, 0o644)
		s.make("d/g", "x", 0, 0o644)
		s.make("d/sub/h", "x", 0, 0o644)
	}, act: func(s *sight) {
		fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
		s.ok(err)
		defer unix.Close(fd) //nolint:errcheck // nothing is written
		const events = unix.FAN_OPEN | unix.FAN_ACCESS | unix.FAN_MODIFY | unix.FAN_CLOSE | unix.FAN_EVENT_ON_CHILD | unix.FAN_ONDIR
		s.ok(unix.FanotifyMark(fd, unix.FAN_MARK_ADD, events, unix.AT_FDCWD, s.at("d")))
		s.touchAll(fd, s.fanotify)
	}},
	{name: "permission by fanotify", prepare: func(s *sight) { s.make("f", "secret", 0, 0o644) }, act: func(s *sight) {
		fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_CLOEXEC)
		s.ok(err)
		s.ok(unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM, unix.AT_FDCWD, s.at("f")))
		for _, answer := range []uint32{unix.FAN_DENY, unix.FAN_ALLOW} {
			read := exec.Command("cat", s.at("f"))
			var out bytes.Buffer
			read.Stdout = &out
			s.ok(read.Start())
			buf := make([]byte, 4096)
			n, err := unix.Read(fd, buf)
			s.ok(err)
			var m unix.FanotifyEventMetadata
			s.ok(binary.Read(bytes.NewReader(buf[:n]), binary.NativeEndian, &m))
			reply := unix.FanotifyResponse{Fd: m.Fd, Response: answer}
			_, err = unix.Write(fd, unsafe.Slice((*byte)(unsafe.Pointer(&reply)), unsafe.Sizeof(reply)))
			s.ok(err)
			s.ok(unix.Close(int(m.Fd)))
			s.say("read", read.Wait() == nil, out.String())
		}
		s.ok(unix.Close(fd))
	}},
	{name: "program that runs", prepare: func(s *sight) {
		for _, n := range []string{"sleep", "other"} {
			b, err := os.ReadFile("/bin/sleep")
			s.ok(err)
			s.make(n, string(b), 0, 0o755)
		}
	}, act: func(s *sight) {
		run := exec.Command(s.at("sleep"), "60")
		s.ok(run.Start())
		_, err := unix.Open(s.at("sleep"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		s.say("open", err, unix.Truncate(s.at("sleep"), 1))
		_, err = unix.Open(s.at("sleep"), unix.O_RDWR|unix.O_TRUNC|unix.O_CLOEXEC, 0)
		s.say("truncate", err)
		s.say("as usual", unix.Chmod(s.at("sleep"), 0o700), unix.Rename(s.at("sleep"), s.at("moved")))
		_, err = unix.Open(s.at("moved"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		s.say("open", err, unix.Unlink(s.at("moved")))
		s.ok(run.Process.Kill())
		_ = run.Wait() // was killed
		w := s.open("other", unix.O_WRONLY)
		s.say("run", exec.Command(s.at("other"), "0").Run())
		s.ok(unix.Close(w))
		s.say("run", exec.Command(s.at("other"), "0").Run())
	}},
	{name: "flags of chattr", prepare: func(s *sight) {
		s.make("append", "x", 0, 0o644)
		s.make("still", "x", 0, 0o644)
		s.make("dir/f", "x", 0, 0o644)
	}, act: func(s *sight) {
		set := func(n string, flags int) {
			fd := s.open(n, unix.O_RDONLY)
			s.say("set", n, unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags))
			got, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
			s.say("get", n, got&0xff&^unix.STATX_ATTR_COMPRESSED, err)
		}
		const immutable, appendOnly, noDump = 0x10, 0x20, 0x40
		set("append", appendOnly|noDump)
		set("still", immutable)
		set("dir", appendOnly)
		defer func() {
			for _, n := range []string{"append", "still", "dir"} {
				set(n, 0)
			}
			s.say("remove", unix.Unlink(s.at("still")), unix.Unlink(s.at("dir/f")))
		}()
		for _, n := range []string{"append", "still"} {
			s.say(n, unix.Unlink(s.at(n)), unix.Chmod(s.at(n), 0o600), unix.Rename(s.at(n), s.at("new")), unix.Link(s.at(n), s.at("new")))
			s.content(n)
		}
		s.say("dir", unix.Unlink(s.at("dir/f")), unix.Mkdir(s.at("dir/new"), 0o700))
	}},
	{name: "fifo and socket in use", prepare: func(s *sight) {
		s.ok(unix.Mknod(s.at("fifo"), unix.S_IFIFO|0o644, 0))
	}, act: func(s *sight) {
		s.ok(unix.Mkfifo(s.at("new"), 0o600))
		for _, n := range []string{"fifo", "new"} {
			fd := s.open(n, unix.O_RDWR)
			_, err := unix.Write(fd, []byte("through"))
			s.say("write", err)
			buf := make([]byte, 16)
			k, err := unix.Read(s.open(n, unix.O_RDONLY|unix.O_NONBLOCK), buf)
			s.say("read", string(buf[:max(k, 0)]), err)
			_, err = unix.Seek(fd, 0, 0)
			s.say("seek", err)
		}
		s.ok(os.Chdir(s.dir)) // the path of a socket is short
		l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		s.ok(err)
		s.say("bind", unix.Bind(l, &unix.SockaddrUnix{Name: "sock"}), unix.Listen(l, 1))
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		s.ok(err)
		s.say("connect", unix.Connect(c, &unix.SockaddrUnix{Name: "sock"}))
		s.mode("sock")
		s.say("again", unix.Bind(c, &unix.SockaddrUnix{Name: "sock"}), unix.Close(l), unix.Close(c))
		c, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		s.ok(err)
		s.say("refused", unix.Connect(c, &unix.SockaddrUnix{Name: "sock"}), unix.Close(c), unix.Unlink("sock"))
	}},
	{name: "sync", prepare: func(s *sight) { s.make("d/f", "x", 0, 0o644) }, act: func(s *sight) {
		f, d := s.open("d/f", unix.O_RDWR), s.open("d", unix.O_RDONLY|unix.O_DIRECTORY)
		s.say("as it is", unix.Fsync(f), unix.Fdatasync(f), unix.Fsync(d), unix.Fdatasync(d), unix.Syncfs(d))
		_, err := unix.Pwrite(f, []byte("new"), 0)
		s.say("written", err, unix.SyncFileRange(f, 0, 3, 7), unix.Fdatasync(f), unix.Fsync(f), unix.Syncfs(f))
		o := s.open("d/f", unix.O_WRONLY|unix.O_DSYNC)
		_, err = unix.Write(o, []byte("sync"))
		s.say("synchronous", err)
		s.say("removed", unix.Unlink(s.at("d/f")), unix.Rmdir(s.at("d")), unix.Fsync(f), unix.Fsync(d), unix.Syncfs(d))
	}},
	{name: "locks of processes", prepare: func(s *sight) { s.make("f", "lower", 0, 0o644) }, act: func(s *sight) {
		fd := s.open("f", unix.O_RDWR)
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: 2, Len: 10}
		s.say("lock", unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &l))
		_, err := unix.Pwrite(fd, []byte("copied up"), 0)
		s.say("write", err)
		try := func() {
			out, err := exec.Command("flock", "-n", s.at("f"), "true").CombinedOutput()
			s.say("flock of another", string(out), err == nil)
			python := "import fcntl,sys\nf=open(sys.argv[1],'r+')\n" +
				"try: fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,20,0); print('locked')\n" +
				"except OSError as e: print(e.errno)\n"
			out, err = exec.Command("python3", "-c", python, s.at("f")).CombinedOutput()
			s.say("lock of another", string(out), err == nil)
		}
		try()
		other := s.open("f", unix.O_RDONLY) // whose closing lets go of all locks of the process
		s.ok(unix.Close(other))
		try()
	}},
}

// touchAll does what those who watch are told of, and says after each what they were told.
func (s *sight) touchAll(fd int, told func(fd int) string) {
	for _, do := range []struct {
		name string
		f    func() error
	}{
		{"read", func() error { _, err := os.ReadFile(s.at("d/f")); return err }},
		{"write", func() error { return os.WriteFile(s.at("d/f"), []byte("new"), 0o600) }},
		{"append", func() error {
			w, err := unix.Open(s.at("d/g"), unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
			s.ok(err)
			_, err = unix.Write(w, []byte("more"))
			s.ok(err)
			return unix.Close(w)
		}},
		{"chmod", func() error { return unix.Chmod(s.at("d/g"), 0o600) }},
		{"xattr", func() error { return unix.Setxattr(s.at("d/g"), "user.a", []byte("b"), 0) }},
		{"truncate", func() error { return unix.Truncate(s.at("d/g"), 1) }},
		{"create", func() error { return os.WriteFile(s.at("d/new"), nil, 0o600) }},
		{"mkdir", func() error { return unix.Mkdir(s.at("d/dir"), 0o700) }},
		{"link", func() error { return unix.Link(s.at("d/g"), s.at("d/link")) }},
		{"symlink", func() error { return unix.Symlink("g", s.at("d/sym")) }},
		{"rename", func() error { return unix.Rename(s.at("d/g"), s.at("d/g2")) }},
		{"rename away", func() error { return unix.Rename(s.at("d/g2"), s.at("away")) }},
		{"rename over", func() error { return unix.Rename(s.at("away"), s.at("d/f")) }},
		{"list", func() error { _, err := os.ReadDir(s.at("d/sub")); return err }},
		{"unlink", func() error { return unix.Unlink(s.at("d/sub/h")) }},
		{"rmdir", func() error { return unix.Rmdir(s.at("d/sub")) }},
		{"rename itself", func() error { return unix.Rename(s.at("d"), s.at("e")) }},
	} {
		s.say(do.name, do.f())
		s.say("told", told(fd))
	}
}

// inotify reads the events that are there.
func (s *sight) inotify(fd int) string {
	var events []string
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return strings.Join(events, ", ")
		}
		for b := buf[:n]; len(b) > 0; {
			wd, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]) // #nosec G115 -- a descriptor
			size := binary.NativeEndian.Uint32(b[12:])
			name := bytes.TrimRight(b[16:16+size], "\x00")
			events = append(events, fmt.Sprintf("%d:%x:%s", wd, mask, name))
			b = b[16+size:]
		}
	}
}

// fanotify reads the events that are there. Those of one file may be told at once.
func (s *sight) fanotify(fd int) string {
	events := map[string]uint64{}
	buf := make([]byte, 64<<10)
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		n, err := unix.Read(fd, buf)
		if err != nil {
			break
		}
		for b := buf[:n]; len(b) >= unix.FAN_EVENT_METADATA_LEN; {
			var m unix.FanotifyEventMetadata
			s.ok(binary.Read(bytes.NewReader(b), binary.NativeEndian, &m))
			to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", m.Fd))
			s.ok(err)
			s.ok(unix.Close(int(m.Fd)))
			events[filepath.Base(to)] |= m.Mask
			b = b[m.Event_len:]
		}
	}
	var seen []string
	for n, mask := range events {
		seen = append(seen, fmt.Sprintf("%s:%x", n, mask))
	}
	slices.Sort(seen)
	return strings.Join(seen, ", ")
}
