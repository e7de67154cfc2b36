package fs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// scene is a piece of behaviour that a mount must share with the filesystem below it. prepare makes what is there
// beforehand, act does something and says what it saw.
type scene struct {
	name    string
	prepare func(s *sight)
	act     func(s *sight)
	huge    bool // too big to be summed up before and after
}

// sight is a directory that a scene takes place in, and what was seen.
type sight struct {
	*testing.T
	dir  string
	seen []string
}

func (s *sight) at(name string) string { return filepath.Join(s.dir, name) }

// say notes what was seen: errors as errnos, without the path.
func (s *sight) say(what string, v ...any) {
	for i := range v {
		var e unix.Errno
		if err, ok := v[i].(error); ok && errors.As(err, &e) {
			v[i] = e
		}
	}
	s.seen = append(s.seen, what+": "+fmt.Sprint(v...))
}

func (s *sight) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", s.dir, err)
	}
}

// make writes a file with a content, an owner and a mode.
func (s *sight) make(name, content string, uid int, mode uint32) {
	s.Helper()
	s.ok(os.MkdirAll(filepath.Dir(s.at(name)), 0o755)) // #nosec G301 -- tests look in as other users
	s.ok(os.WriteFile(s.at(name), []byte(content), 0o600))
	s.ok(unix.Lchown(s.at(name), uid, uid))
	s.ok(unix.Chmod(s.at(name), mode))
}

func (s *sight) open(name string, flags int) int {
	s.Helper()
	fd, err := unix.Open(s.at(name), flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		s.Fatalf("open %s: %v", s.at(name), err)
	}
	s.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func (s *sight) mode(name string) {
	s.Helper()
	st := stat(s.T, s.at(name))
	s.say(name, fmt.Sprintf("%o %d:%d links %d size %d", st.Mode, st.Uid, st.Gid, st.Nlink, st.Size))
}

func (s *sight) xattr(name, attr string) {
	buf := make([]byte, 256)
	n, err := unix.Lgetxattr(s.at(name), attr, buf)
	s.say(name+" "+attr, fmt.Sprintf("%x", buf[:max(n, 0)]), err)
}

func (s *sight) content(name string) {
	b, err := os.ReadFile(s.at(name))
	s.say(name, fmt.Sprintf("%d bytes %.60q", len(b), b), err)
}

// as does something as another user, who has no capability.
func as(uid int, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and ends with the goroutine
		_, _, _ = unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(uid), 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
		f()
	}()
	<-done
}

// TestAsOnLocalFilesystem plays each scene on a plain directory, on a mount that has what was prepared in its lower
// layer, and on one that has it in its upper.
func TestAsOnLocalFilesystem(t *testing.T) { asOnLocal(t, overlay.OwnersAsFound) }

// TestAsOnLocalFilesystemByXattr does it with owners and modes in xattrs.
func TestAsOnLocalFilesystemByXattr(t *testing.T) {
	t.Run("security", func(t *testing.T) { asOnLocal(t, overlay.OwnersSecurity) })
	t.Run("user", func(t *testing.T) { asOnLocal(t, overlay.OwnersUser) })
}

func asOnLocal(t *testing.T, owners overlay.Owners) {
	unix.Umask(0)
	for _, sc := range scenes() {
		t.Run(sc.name, func(t *testing.T) {
			plain := t.TempDir()
			letIn(t, plain)
			want := playScene(t, sc, true, plain)
			s := newStage(t, 1)
			s.owners = owners
			letIn(t, s.mnt)
			if sc.prepare != nil {
				sc.prepare(&sight{T: t, dir: s.lowers[0]})
			}
			before := map[string]string{}
			if !sc.huge {
				before = readTree(t, s.lowers[0])
			}
			s.mount()
			sc.compare(t, "lower", want, playScene(t, sc, false, s.mnt))
			up := filepath.Join(s.mnt, "upper")
			if err := os.Mkdir(up, 0o755); err != nil { // #nosec G301 -- as above
				t.Fatal(err)
			}
			sc.compare(t, "upper", want, playScene(t, sc, true, up))
			s.remount()
			if sc.huge {
				return
			}
			after := readTree(t, s.lowers[0])
			for p := range before {
				if before[p] != after[p] {
					t.Errorf("the lower layer's %s is\n%s, was\n%s", p, after[p], before[p])
				}
			}
		})
	}
}

// Variables that tell a child of the test which scene to play.
const (
	envScene   = "PLYFS_TEST_SCENE"
	envDir     = "PLYFS_TEST_DIR"
	envPrepare = "PLYFS_TEST_PREPARE"
	envSeen    = "PLYFS_TEST_SEEN"
)

// playScene plays a scene in a process of its own: one that touches mapped memory of a mount that it serves itself may
// wait for itself.
func playScene(t *testing.T, sc scene, prepare bool, dir string) []string {
	t.Helper()
	seen := filepath.Join(t.TempDir(), "seen")
	cmd := exec.Command(os.Args[0], "-test.run=^TestPlayScene$", "-test.v") // #nosec G204 -- this test itself
	cmd.Env = append(os.Environ(), envScene+"="+sc.name, envDir+"="+dir, envPrepare+"="+fmt.Sprint(prepare), envSeen+"="+seen)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Split(read(t, seen), "\n")
}

// TestPlayScene is what playScene starts.
func TestPlayScene(t *testing.T) {
	if os.Getenv(envScene) == "" {
		t.Skip("a part of TestAsOnLocalFilesystem")
	}
	unix.Umask(0)
	for _, sc := range scenes() {
		if sc.name != os.Getenv(envScene) {
			continue
		}
		s := &sight{T: t, dir: os.Getenv(envDir)}
		if sc.prepare != nil && os.Getenv(envPrepare) == "true" {
			sc.prepare(s)
		}
		sc.act(s)
		s.ok(os.WriteFile(os.Getenv(envSeen), []byte(strings.Join(s.seen, "\n")), 0o600))
		return
	}
	t.Fatal("no such scene")
}

func scenes() []scene {
	return slices.Concat(dataScenes, modeScenes, nameScenes, whiteoutScenes, watchScenes)
}

// letIn lets other users come to a test's directory.
func letIn(t *testing.T, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302 -- that is what it is for
			t.Fatal(err)
		}
	}
}

func (sc *scene) compare(t *testing.T, where string, want, got []string) {
	t.Helper()
	for i := range max(len(want), len(got)) {
		var w, g string
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			t.Errorf("%s: %s, on a plain directory %s", where, g, w)
		}
	}
}

// capNetRaw is struct vfs_cap_data of revision 2 that permits CAP_NET_RAW.
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

var modeScenes = []scene{
	{name: "setuid and what clears it", prepare: func(s *sight) {
		for _, n := range []string{"write", "append", "truncate", "fallocate", "copy", "chown", "rootwrite", "roottruncate"} {
			s.make(n, strings.Repeat("x", 10000), 1000, 0o6777)
		}
		s.make("src", strings.Repeat("y", 10000), 1000, 0o644)
	}, act: func(s *sight) {
		as(1001, func() {
			_, err := unix.Pwrite(s.open("write", unix.O_WRONLY), []byte("z"), 0)
			s.say("write", err)
			_, err = unix.Write(s.open("append", unix.O_WRONLY|unix.O_APPEND), []byte("z"))
			s.say("append", err)
			s.say("truncate", unix.Ftruncate(s.open("truncate", unix.O_WRONLY), 5))
			s.say("fallocate", unix.Fallocate(s.open("fallocate", unix.O_WRONLY), 0, 0, 20000))
			_, err = unix.CopyFileRange(s.open("src", unix.O_RDONLY), nil, s.open("copy", unix.O_WRONLY), nil, 100, 0)
			s.say("copy", err)
		})
		s.say("chown", unix.Chown(s.at("chown"), 1002, 1002))
		_, err := unix.Pwrite(s.open("rootwrite", unix.O_WRONLY), []byte("z"), 0)
		s.say("write", err)
		s.say("truncate", unix.Truncate(s.at("roottruncate"), 5))
		for _, n := range []string{"write", "append", "truncate", "fallocate", "copy", "chown", "rootwrite", "roottruncate"} {
			s.mode(n)
		}
	}},
	{name: "capabilities and what clears them", prepare: func(s *sight) {
		for _, n := range []string{"write", "truncate", "chown", "chmod", "keep", "rename"} {
			s.make(n, "data", 0, 0o755)
			s.ok(unix.Setxattr(s.at(n), "security.capability", []byte(capNetRaw), 0))
		}
	}, act: func(s *sight) {
		_, err := unix.Pwrite(s.open("write", unix.O_WRONLY), []byte("z"), 0)
		s.say("write", err)
		s.say("truncate", unix.Truncate(s.at("truncate"), 2))
		s.say("chown", unix.Chown(s.at("chown"), 5, 5))
		s.say("chmod", unix.Chmod(s.at("chmod"), 0o700))
		s.say("rename", unix.Rename(s.at("rename"), s.at("renamed")))
		for _, n := range []string{"write", "truncate", "chown", "chmod", "keep", "renamed"} {
			s.xattr(n, "security.capability")
			s.mode(n)
		}
	}},
	{name: "setgid directory", prepare: func(s *sight) {
		s.make("g/old", "x", 1000, 0o644)
		s.make("g/olddir/f", "x", 1000, 0o644)
		s.ok(unix.Chown(s.at("g"), 1000, 77))
		s.ok(unix.Chmod(s.at("g"), 0o2777))
	}, act: func(s *sight) {
		s.say("unlink", unix.Unlink(s.at("g/old")))
		s.say("rename", unix.Rename(s.at("g/olddir"), s.at("away")))
		as(1001, func() {
			s.open("g/old", unix.O_CREAT|unix.O_WRONLY)
			s.open("g/new", unix.O_CREAT|unix.O_WRONLY)
			s.say("mkdir", unix.Mkdir(s.at("g/olddir"), 0o755), unix.Mkdir(s.at("g/newdir"), 0o755))
			s.say("symlink", unix.Symlink("x", s.at("g/link")))
			s.say("mknod", unix.Mknod(s.at("g/fifo"), unix.S_IFIFO|0o600, 0))
		})
		for _, n := range []string{"g", "g/old", "g/new", "g/olddir", "g/newdir", "g/link", "g/fifo"} {
			st := stat(s.T, s.at(n))
			s.say(n, fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid))
		}
	}},
	{name: "default ACL", prepare: func(s *sight) {
		s.make("a/old", "x", 1000, 0o644)
		s.make("a/olddir/f", "x", 1000, 0o644)
		s.ok(unix.Setxattr(s.at("a"), "system.posix_acl_default", acl(6, 1234, 7, 5, 4), 0))
	}, act: func(s *sight) {
		s.say("unlink", unix.Unlink(s.at("a/old")))
		s.say("rename", unix.Rename(s.at("a/olddir"), s.at("away")))
		for _, n := range []string{"a/old", "a/new"} {
			fd, err := unix.Open(s.at(n), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o660)
			s.say("create", errors.Join(err, unix.Close(fd)))
		}
		s.say("mkdir", unix.Mkdir(s.at("a/olddir"), 0o750), unix.Mkdir(s.at("a/newdir"), 0o750))
		for _, n := range []string{"a", "a/old", "a/new", "a/olddir", "a/newdir"} {
			s.say(n, fmt.Sprintf("%o", stat(s.T, s.at(n)).Mode))
			s.xattr(n, "system.posix_acl_access")
			s.xattr(n, "system.posix_acl_default")
		}
	}},
	{name: "access by an ACL", prepare: func(s *sight) {
		s.make("f", "x", 1000, 0o600)
		s.ok(unix.Setxattr(s.at("f"), "system.posix_acl_access", acl(6, 1001, 4, 0, 0), 0))
	}, act: func(s *sight) {
		as(1001, func() { s.content("f") })
		as(1002, func() { s.content("f") })
		s.say("chmod", unix.Chmod(s.at("f"), 0o640))
		s.xattr("f", "system.posix_acl_access")
		s.say("remove", unix.Removexattr(s.at("f"), "system.posix_acl_access"))
		s.mode("f")
		as(1001, func() { s.content("f") })
	}},
	{name: "sticky directory", prepare: func(s *sight) {
		s.make("t/mine", "x", 1001, 0o666)
		s.make("t/theirs", "x", 1002, 0o666)
		s.ok(unix.Chmod(s.at("t"), 0o1777))
	}, act: func(s *sight) {
		as(1001, func() {
			s.say("unlink", unix.Unlink(s.at("t/theirs")), unix.Rename(s.at("t/theirs"), s.at("t/x")),
				unix.Rename(s.at("t/mine"), s.at("t/theirs")), unix.Unlink(s.at("t/mine")))
		})
	}},
	{name: "umask", act: func(s *sight) {
		defer unix.Umask(unix.Umask(0o027))
		s.open("f", unix.O_CREAT|unix.O_WRONLY)
		s.say("made", unix.Mkdir(s.at("d2"), 0o777), unix.Mknod(s.at("p"), unix.S_IFIFO|0o666, 0))
		for _, n := range []string{"f", "d2", "p"} {
			s.say(n, fmt.Sprintf("%o", stat(s.T, s.at(n)).Mode))
		}
	}},
	{name: "written though made read-only", act: func(s *sight) {
		as(1001, func() { s.say("none may", unix.Mkdir(s.at("no"), 0o777)) })
		s.say("mkdir", unix.Mkdir(s.at("all"), 0o777))
		as(1001, func() {
			fd, err := unix.Open(s.at("all/f"), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o444)
			s.say("create", err)
			_, err = unix.Write(fd, []byte("text"))
			s.say("write", err, unix.Close(fd))
			_, err = unix.Open(s.at("all/f"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			s.say("again", err)
		})
		s.content("all/f")
	}},
}

// acl is an ACL of user, one named user, group, mask 7 and other, as the kernel keeps it in an xattr
// (include/uapi/linux/posix_acl_xattr.h).
func acl(user byte, named uint16, has, group, other byte) []byte {
	b := []byte{2, 0, 0, 0}
	entry := func(tag, perm byte, id uint32) {
		b = append(b, tag, 0, perm, 0, byte(id), byte(id>>8), byte(id>>16), byte(id>>24)) // #nosec G115 -- its bytes
	}
	const none = 1<<32 - 1
	entry(1, user, none)
	entry(2, has, uint32(named))
	entry(4, group, none)
	entry(0x10, 7, none)
	entry(0x20, other, none)
	return b
}
