package overlay

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	stressSeed = flag.Uint64("stress.seed", 0, "seed of the stress test's operations; 0 takes a new one")
	stressTime = flag.Duration("stress.time", 2*time.Second, "how long the stress test runs")
)

// stresser does random operations on a union beside others.
type stresser struct {
	*rig
	rnd  *rand.Rand
	held []ID
}

var stressNames = []string{"a", "b", "c", "d"}

// stressErrors are what an operation may say about names that others change.
var stressErrors = []error{
	unix.ENOENT, unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.EBUSY, unix.EINVAL,
}

func (s *stresser) allow(what string, err error) {
	for _, ok := range stressErrors {
		if errors.Is(err, ok) {
			return
		}
	}
	if err != nil {
		s.Errorf("%s: %v", what, err)
	}
}

func (s *stresser) name() string { return stressNames[s.rnd.IntN(len(stressNames))] }

// dir picks a directory, held until the step ends.
func (s *stresser) dir() ID {
	id := RootID
	for s.rnd.IntN(3) > 0 {
		var a Attr
		next, err := s.u.Lookup(id, s.name(), &a)
		if err != nil {
			s.allow("lookup", err)
			break
		}
		s.held = append(s.held, next)
		if a.Mode&unix.S_IFMT == unix.S_IFDIR {
			id = next
		}
	}
	return id
}

// node picks any inode.
func (s *stresser) node() (ID, Attr, bool) {
	var a Attr
	id, err := s.u.Lookup(s.dir(), s.name(), &a)
	if err != nil {
		s.allow("lookup", err)
		return 0, a, false
	}
	s.held = append(s.held, id)
	return id, a, true
}

func (s *stresser) keep(what string, id ID, err error) {
	s.allow(what, err)
	if err == nil {
		s.held = append(s.held, id)
	}
}

func (s *stresser) step() {
	var a Attr
	switch s.rnd.IntN(12) {
	case 0:
		id, err := s.u.Mknod(s.dir(), s.name(), Cred{}, unix.S_IFREG|0o644, 0, &a)
		s.keep("mknod", id, err)
	case 1:
		id, err := s.u.Mkdir(s.dir(), s.name(), Cred{}, 0o755, &a)
		s.keep("mkdir", id, err)
	case 2:
		id, err := s.u.Symlink(s.dir(), s.name(), "target", Cred{}, &a)
		s.keep("symlink", id, err)
	case 3:
		s.allow("unlink", s.u.Unlink(s.dir(), s.name()))
	case 4:
		s.allow("rmdir", s.u.Rmdir(s.dir(), s.name()))
	case 5, 6:
		flags := []uint32{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[s.rnd.IntN(4)]
		s.allow("rename", s.u.Rename(s.dir(), s.name(), s.dir(), s.name(), flags))
	case 7:
		if id, a, ok := s.node(); ok && a.Mode&unix.S_IFMT != unix.S_IFDIR {
			id, err := s.u.Link(id, s.dir(), s.name(), &a)
			s.keep("link", id, err)
		}
	case 8:
		id, err := s.u.Tmpfile(s.dir(), Cred{}, 0o600, &a)
		s.keep("tmpfile", id, err)
		if err == nil {
			id, err := s.u.Link(id, s.dir(), s.name(), &a)
			s.keep("link of a tmpfile", id, err)
		}
	case 9:
		err := s.u.ReadDir(s.dir(), 0, func(*ListEntry) bool { return true })
		s.allow("readdir", err)
	default:
		s.change()
	}
	for _, id := range s.held {
		s.u.Forget(id, 1)
	}
	s.held = s.held[:0]
}

// change changes an inode.
func (s *stresser) change() {
	id, a, ok := s.node()
	if !ok {
		return
	}
	mode, size := uint32(0o600|s.rnd.IntN(0o100)), int64(s.rnd.IntN(100)) // #nosec G115 -- small
	regular := a.Mode&unix.S_IFMT == unix.S_IFREG
	switch s.rnd.IntN(5) {
	case 0:
		if a.Mode&unix.S_IFMT != unix.S_IFLNK {
			s.allow("chmod", s.u.SetAttr(id, &SetAttr{Mode: &mode}, &a))
		}
	case 1:
		if regular {
			s.allow("truncate", s.u.SetAttr(id, &SetAttr{Size: &size}, &a))
		}
	case 2:
		if regular {
			_, err := s.u.Write(id, []byte("written"), size, false)
			s.allow("write", err)
		}
	case 3:
		if regular {
			_, err := s.readID(id)
			s.allow("read", err)
		}
	default:
		s.allow("getattr", s.u.GetAttr(id, &a))
	}
}

// tree describes all that a union shows.
func (r *rig) tree() map[string]string {
	r.Helper()
	out := map[string]string{}
	r.treeBelow("", out)
	r.drop()
	return out
}

func (r *rig) treeBelow(path string, out map[string]string) {
	r.Helper()
	var names []string
	inos := map[string]uint64{}
	r.ok(r.u.ReadDir(r.id(path), CookieDotDot, func(e *ListEntry) bool {
		if inos[e.Name] != 0 {
			r.Errorf("%s/%s is listed twice", path, e.Name)
		}
		names, inos[e.Name] = append(names, e.Name), e.Ino
		return true
	}))
	for _, n := range names {
		p := n
		if path != "" {
			p = path + "/" + n
		}
		id, a, err := r.find(p)
		if err != nil {
			r.Errorf("%s is listed, but %v", p, err)
			continue
		}
		if a.Ino != inos[n] {
			r.Errorf("%s is listed as inode %x, is %x", p, inos[n], a.Ino)
		}
		out[p] = fmt.Sprintf("%o ino %x nlink %d size %d", a.Mode, a.Ino, a.Nlink, a.Size)
		switch a.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := r.readID(id)
			out[p] += fmt.Sprintf(" %q %v", data, err)
		case unix.S_IFDIR:
			out[p] = fmt.Sprintf("%o ino %x nlink %d", a.Mode, a.Ino, a.Nlink)
			r.treeBelow(p, out)
		}
	}
}

func sameTree(t *testing.T, got, want map[string]string) {
	t.Helper()
	var all []string
	for p := range got {
		all = append(all, p)
	}
	for p := range want {
		if _, ok := got[p]; !ok {
			all = append(all, p)
		}
	}
	slices.Sort(all)
	for _, p := range all {
		if got[p] != want[p] {
			t.Errorf("%s is\n%s, was\n%s", p, got[p], want[p])
		}
	}
}

// TestStress has goroutines change one tree at once, without the locks that the kernel holds around its requests.
func TestStress(t *testing.T) {
	seed := *stressSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) // #nosec G115 -- any number will do
	}
	t.Logf("seed %d", seed)
	end := time.Now().Add(*stressTime)
	for round := uint64(0); time.Now().Before(end) && !t.Failed(); round++ {
		stressRound(t, seed+round)
	}
}

// stressTree fills the lower layers.
func (r *rig) stressTree() {
	r.Helper()
	for layer := range 2 {
		for _, n := range []string{"a/a/a", "a/b/c", "b/a", "b/c/d", "c/a/b", "d"} {
			r.low(layer, n, fmt.Sprint(n, " of layer ", layer))
		}
	}
	r.linked("l/a", "a/l", "linked")
	r.linked("c/b", "b/b", "linked too")
}

func stressRound(t *testing.T, seed uint64) {
	r := newRig(t, 2)
	r.stressTree()
	r.open()
	before := sums(t, r.lowers)
	for half := range uint64(2) {
		var wg sync.WaitGroup
		for g := range uint64(6) {
			s := &stresser{rig: r, rnd: rand.New(rand.NewPCG(seed, half<<8|g))} // #nosec G404 -- repeatable
			wg.Go(func() {
				for range 300 {
					s.step()
				}
			})
		}
		wg.Wait()
		want := r.tree()
		r.reopen()
		sameTree(t, r.tree(), want)
	}
	sameTree(t, sums(t, r.lowers), before)
	r.close()
	if t.Failed() {
		t.Logf("seed %d", seed)
	}
}
