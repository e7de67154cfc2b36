package fs_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	modelSeed = flag.Uint64("model.seed", 0, "seed of the model test's operations; 0 takes a new one")
	modelTime = flag.Duration("model.time", 10*time.Second, "how long the model test runs")
)

// model runs the same operations on a mount and on a plain directory, which is what the mount must be like.
type model struct {
	t     *testing.T
	rnd   *rand.Rand
	stage *stage
	plain string
	log   []string
}

// op is one operation on a tree.
type op struct {
	name string
	run  func(root string) (string, error) // what it reads, and the errno
}

var modelNames = []string{"a", "b", "c", "d", "e"}

// path picks a name up to three levels deep.
func (m *model) path() string {
	p := modelNames[m.rnd.IntN(len(modelNames))]
	for m.rnd.IntN(5) < 3 && len(p) < 5 {
		p += "/" + modelNames[m.rnd.IntN(len(modelNames))]
	}
	return p
}

func (m *model) content() []byte {
	b := make([]byte, m.rnd.IntN(3)*m.rnd.IntN(6000))
	for i := range b {
		b[i] = byte('a' + m.rnd.IntN(26)) // #nosec G115 -- letters
	}
	return b
}

// openIn opens relative to a root as a container would, symlinks staying below it.
func openIn(root, path string, flags int, mode uint64) (int, error) {
	r, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(r) //nolint:errcheck // a path
	return unix.Openat2(r, path, &unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC | unix.O_NONBLOCK), Mode: mode, // #nosec G115 -- flags
		Resolve: unix.RESOLVE_IN_ROOT,
	})
}

func withFile(root, path string, flags int, mode uint64, f func(fd int) error) error {
	fd, err := openIn(root, path, flags, mode)
	if err != nil {
		return err
	}
	err = f(fd)
	return errors.Join(err, unix.Close(fd))
}

// ops makes a random operation.
func (m *model) op() op {
	p, q := m.path(), m.path()
	r := m.rnd
	data, off := m.content(), int64(r.IntN(9000))
	mode := []uint32{0o644, 0o600, 0o755, 0o4755, 0o2755, 0o1777}[r.IntN(6)]
	uid, gid := r.IntN(3), r.IntN(3)
	at := func(root, p string) string { return filepath.Join(root, p) }
	simple := func(name string, f func(root string) error) op {
		return op{name, func(root string) (string, error) { return "", f(root) }}
	}
	switch r.IntN(22) {
	case 0, 1:
		return simple(fmt.Sprintf("write %s %d bytes, truncated", p, len(data)), func(root string) error {
			return withFile(root, p, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY, uint64(mode), func(fd int) error {
				_, err := unix.Write(fd, data)
				return err
			})
		})
	case 2:
		return simple(fmt.Sprintf("create %s exclusively, %o", p, mode), func(root string) error {
			return withFile(root, p, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, uint64(mode), func(int) error { return nil })
		})
	case 3, 4:
		return simple(fmt.Sprintf("pwrite %s %d bytes at %d", p, len(data), off), func(root string) error {
			return withFile(root, p, unix.O_WRONLY, 0, func(fd int) error {
				_, err := unix.Pwrite(fd, data, off)
				return err
			})
		})
	case 5:
		return simple(fmt.Sprintf("append %s %d bytes", p, len(data)), func(root string) error {
			return withFile(root, p, unix.O_WRONLY|unix.O_APPEND, 0, func(fd int) error {
				_, err := unix.Write(fd, data)
				return err
			})
		})
	case 6:
		return simple(fmt.Sprintf("truncate %s to %d", p, off), func(root string) error {
			return withFile(root, p, unix.O_WRONLY, 0, func(fd int) error { return unix.Ftruncate(fd, off) })
		})
	case 7, 8:
		return simple(fmt.Sprintf("mkdir %s %o", p, mode), func(root string) error { return unix.Mkdir(at(root, p), mode) })
	case 9:
		return simple("rmdir "+p, func(root string) error { return unix.Rmdir(at(root, p)) })
	case 10, 11:
		return simple("unlink "+p, func(root string) error { return unix.Unlink(at(root, p)) })
	case 12, 13, 14:
		flags := []uint{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[r.IntN(4)]
		return simple(fmt.Sprintf("rename %s %s flags %d", p, q, flags), func(root string) error {
			return unix.Renameat2(unix.AT_FDCWD, at(root, p), unix.AT_FDCWD, at(root, q), flags)
		})
	case 15:
		return simple(fmt.Sprintf("symlink %s -> %s", p, q), func(root string) error { return unix.Symlink(q, at(root, p)) })
	case 16:
		return simple(fmt.Sprintf("link %s %s", p, q), func(root string) error { return unix.Link(at(root, p), at(root, q)) })
	case 17:
		return simple(fmt.Sprintf("chmod %s %o", p, mode), func(root string) error {
			return withFile(root, p, unix.O_RDONLY, 0, func(fd int) error { return unix.Fchmod(fd, mode) })
		})
	case 18:
		return simple(fmt.Sprintf("chown %s %d %d", p, uid, gid), func(root string) error { return unix.Lchown(at(root, p), uid, gid) })
	case 19:
		return simple(fmt.Sprintf("setxattr %s %d", p, uid), func(root string) error {
			return unix.Lsetxattr(at(root, p), fmt.Sprintf("user.k%d", uid), data[:min(len(data), 50)], 0)
		})
	case 20:
		return simple(fmt.Sprintf("mknod %s fifo", p), func(root string) error { return unix.Mknod(at(root, p), unix.S_IFIFO|mode, 0) })
	default:
		return op{"list " + p, func(root string) (string, error) { return m.list(root, p) }}
	}
}

// list reads a directory.
func (m *model) list(root, p string) (out string, err error) {
	err = withFile(root, p, unix.O_RDONLY|unix.O_DIRECTORY, 0, func(fd int) error {
		own, err := unix.Dup(fd)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(own), p) // #nosec G115 -- a descriptor
		names, err := f.Readdirnames(-1)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		seen := map[string]bool{}
		for _, n := range names {
			seen[n] = true
		}
		out = fmt.Sprint(len(names), seen)
		return nil
	})
	return out, err
}

func (m *model) step() {
	o := m.op()
	m.log = append(m.log, o.name)
	got, gotErr := o.run(m.stage.mnt)
	want, wantErr := o.run(m.plain)
	if !errors.Is(gotErr, wantErr) && (gotErr == nil || wantErr == nil || gotErr.Error() != wantErr.Error()) {
		m.fail("%s: error %v, on a plain directory %v", o.name, gotErr, wantErr)
	}
	if got != want {
		m.fail("%s: %s, on a plain directory %s", o.name, got, want)
	}
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	for _, l := range m.log[max(0, len(m.log)-200):] {
		m.t.Log(l)
	}
	m.t.Fatalf(format, args...)
}

// compare checks the whole trees.
func (m *model) compare(when string) {
	got, want := readTree(m.t, m.stage.mnt), readTree(m.t, m.plain)
	for p, w := range want {
		if g, ok := got[p]; !ok {
			m.fail("%s: %s is missing, want %s", when, p, w)
		} else if g != w {
			m.fail("%s: %s is\n%s, on a plain directory\n%s", when, p, g, w)
		}
	}
	for p, g := range got {
		if _, ok := want[p]; !ok {
			m.fail("%s: %s is there: %s", when, p, g)
		}
	}
}

// inodes returns the inode number of each path.
func inodes(t *testing.T, root string) map[string]uint64 {
	m := map[string]uint64{}
	for p := range readTree(t, root) {
		m[p] = stat(t, filepath.Join(root, p)).Ino
	}
	return m
}

func TestModel(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) // #nosec G115 -- any number will do
	}
	t.Logf("seed %d: go test ./fs -run TestModel -model.seed=%d", seed, seed)
	end := time.Now().Add(*modelTime)
	for round := uint64(0); time.Now().Before(end); round++ {
		if !t.Run(fmt.Sprint(round), func(t *testing.T) { runModel(t, seed+round) }) {
			return
		}
	}
}

func runModel(t *testing.T, seed uint64) {
	m := &model{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), stage: newStage(t, 2)} // #nosec G404 -- repeatable
	m.plain = filepath.Join(t.TempDir(), "plain")
	if err := os.Mkdir(m.plain, 0o755); err != nil { // #nosec G301 -- as the mount's root
		t.Fatal(err)
	}
	// The lower layers are made by operations, too, in directories, of which the upper is what both have in the end.
	low := *m
	low.stage = &stage{t: t, mnt: m.stage.lowers[1]}
	for range 60 {
		low.step()
	}
	m.stage.mount()
	m.compare("fresh")
	for range 8 {
		for range 60 {
			m.step()
		}
		m.compare("after operations")
		before := inodes(t, m.stage.mnt)
		m.stage.remount()
		m.log = append(m.log, "remount")
		m.compare("after a remount")
		for p, ino := range inodes(t, m.stage.mnt) {
			if before[p] != ino {
				m.fail("%s: inode %x before a remount, %x after", p, before[p], ino)
			}
		}
	}
}
