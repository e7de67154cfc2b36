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

	"github.com/plyfs/plyfs/overlay"
)

var (
	modelSeed   = flag.Uint64("model.seed", 0, "seed of the model test's operations; 0 takes a new one")
	modelOwners = flag.Uint("model.owners", 0, "overlay.Owners of the model test's mount; with 3, a symlink given away may have another number after a remount")
	modelTime   = flag.Duration("model.time", 10*time.Second, "how long the model test runs")
)

// model runs the same operations on a mount and on a plain directory, which is what the mount must be like.
type model struct {
	t     *testing.T
	stage *stage
	plain string
}

// op is one operation on a tree. It depends on nothing but the tree, so that a sequence without some of them can be
// played as well.
type op struct {
	name string
	run  func(root string) (string, error) // what it reads, and the errno; nil remounts
}

// maker makes random operations.
type maker struct{ rnd *rand.Rand }

var modelNames = []string{"a", "b", "c", "d", "e"}

// path picks a name up to three levels deep.
func (m *maker) path() string {
	p := modelNames[m.rnd.IntN(len(modelNames))]
	for m.rnd.IntN(5) < 3 && len(p) < 5 {
		p += "/" + modelNames[m.rnd.IntN(len(modelNames))]
	}
	return p
}

func (m *maker) content() []byte {
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
func (m *maker) op() op {
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
		return op{"list " + p, func(root string) (string, error) { return list(root, p) }}
	}
}

// list reads a directory.
func list(root, p string) (out string, err error) {
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

// step plays an operation on both trees and returns how they differ, "" when they do not.
func (m *model) step(o op) string {
	got, gotErr := o.run(m.stage.mnt)
	want, wantErr := o.run(m.plain)
	if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
		return fmt.Sprintf("%s: error %v, on a plain directory %v", o.name, gotErr, wantErr)
	}
	if got != want {
		return fmt.Sprintf("%s: %s, on a plain directory %s", o.name, got, want)
	}
	return ""
}

// compare checks the whole trees.
func (m *model) compare(when string) string {
	got, want := readTree(m.t, m.stage.mnt), readTree(m.t, m.plain)
	for p, w := range want {
		if g, ok := got[p]; !ok {
			return fmt.Sprintf("%s: %s is missing, want %s", when, p, w)
		} else if g != w {
			return fmt.Sprintf("%s: %s is\n%s, on a plain directory\n%s", when, p, g, w)
		}
	}
	for p, g := range got {
		if _, ok := want[p]; !ok {
			return fmt.Sprintf("%s: %s is there: %s", when, p, g)
		}
	}
	return ""
}

// remount mounts anew and compares trees and inode numbers before and after.
func (m *model) remount() string {
	if diff := m.compare("before a remount"); diff != "" {
		return diff
	}
	before := inodes(m.t, m.stage.mnt)
	m.stage.remount()
	if diff := m.compare("after a remount"); diff != "" {
		return diff
	}
	for p, ino := range inodes(m.t, m.stage.mnt) {
		if before[p] != ino {
			return fmt.Sprintf("%s: inode %x before a remount, %x after", p, before[p], ino)
		}
	}
	return ""
}

// inodes returns the inode number of each path.
func inodes(t *testing.T, root string) map[string]uint64 {
	m := map[string]uint64{}
	for p := range readTree(t, root) {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, p), &st); err == nil { // readTree has told of the error
			m[p] = st.Ino
		}
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

const (
	modelLower = 60 // operations that make the lower layer
	modelPart  = 60 // operations between two remounts
	modelParts = 8
)

func runModel(t *testing.T, seed uint64) {
	m := &maker{rand.New(rand.NewPCG(seed, 0))} // #nosec G404 -- repeatable
	var low, ops []op
	for range modelLower {
		low = append(low, m.op())
	}
	for range modelParts {
		for range modelPart {
			ops = append(ops, m.op())
		}
		ops = append(ops, op{name: "remount"})
	}
	diff := play(t, low, ops)
	if diff == "" {
		return
	}
	t.Errorf("%s\nshrinking the sequence", diff)
	end := time.Now().Add(time.Minute)
	low = shrink(low, end, func(ops2 []op) bool { return play(t, ops2, ops) != "" })
	ops = shrink(ops, end, func(ops2 []op) bool { return play(t, low, ops2) != "" })
	t.Errorf("%s\nafter these in the lower layer:\n%safter these:\n%s", play(t, low, ops), names(low), names(ops))
}

func names(ops []op) string {
	s := ""
	for _, o := range ops {
		s += "  " + o.name + "\n"
	}
	return s
}

// play plays operations on a fresh mount, over a lower layer that others have made, and returns how it differs from a
// plain directory with the same history.
func play(t *testing.T, low, ops []op) string {
	m := &model{t: t, stage: newStage(t, 2), plain: filepath.Join(t.TempDir(), "plain")}
	m.stage.owners = overlay.Owners(*modelOwners)    // #nosec G115 -- small
	if err := os.Mkdir(m.plain, 0o755); err != nil { // #nosec G301 -- as the mount's root
		t.Fatal(err)
	}
	below := &model{t: t, stage: &stage{t: t, mnt: m.stage.lowers[1]}, plain: m.plain}
	for _, o := range low {
		if diff := below.step(o); diff != "" {
			t.Fatalf("two plain directories differ: %s", diff)
		}
	}
	m.stage.mount()
	defer m.stage.unmount()
	for _, o := range ops {
		diff := ""
		if o.run == nil {
			diff = m.remount()
		} else {
			diff = m.step(o)
		}
		if diff != "" {
			return diff
		}
	}
	return m.compare("in the end")
}

// shrink leaves out operations as long as bad still holds without them.
func shrink(ops []op, end time.Time, bad func(ops []op) bool) []op {
	for n := (len(ops) + 1) / 2; n > 0; n /= 2 {
		for at := 0; at+n <= len(ops) && time.Now().Before(end); {
			rest := append(append([]op{}, ops[:at]...), ops[at+n:]...)
			if bad(rest) {
				ops = rest
			} else {
				at += n
			}
		}
	}
	return ops
}
