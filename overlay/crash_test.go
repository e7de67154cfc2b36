package overlay

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var crashTime = flag.Duration("crash.time", 2*time.Second, "how long the crash test runs")

const envCrash = "PLYFS_TEST_CRASH" // the directories of a union that a child of the test changes until it is killed

// TestCrash kills a process that changes a union, at any moment. What it leaves must show as a whole tree: every name
// listed is found and can be read, hard links count at least their names, and nothing is left half done.
func TestCrash(t *testing.T) {
	seed := uint64(time.Now().UnixNano()) // #nosec G115 -- any number will do
	rnd := rand.New(rand.NewPCG(seed, 0)) // #nosec G404 -- to be repeated
	end := time.Now().Add(*crashTime)
	for time.Now().Before(end) && !t.Failed() {
		crashRound(t, rnd)
	}
}

func crashRound(t *testing.T, rnd *rand.Rand) {
	r := newRig(t, 2)
	r.stressTree()
	before := sums(t, r.lowers)
	for range 5 {
		r.killChild(time.Duration(rnd.IntN(60)) * time.Millisecond)
		r.open()
		r.wholeTree()
		if left, err := os.ReadDir(filepath.Join(r.work, "work")); err != nil || len(left) > 1 { // the whiteout
			t.Errorf("the work directory holds %v, %v", left, err)
		}
		r.close()
	}
	sameTree(t, sums(t, r.lowers), before)
}

// killChild has a child change the union, which it kills after a while.
func (r *rig) killChild(after time.Duration) {
	r.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$") // #nosec G204 -- this test itself
	cmd.Env = append(os.Environ(), envCrash+"="+strings.Join(append([]string{r.upper, r.work}, r.lowers...), ":"))
	ready, err := cmd.StdoutPipe()
	r.ok(err)
	r.ok(cmd.Start())
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		r.Error(err)
	}
	time.Sleep(after) // any moment will do
	r.ok(cmd.Process.Kill())
	if err := cmd.Wait(); !killed(err) {
		r.Errorf("the child ended by itself: %v", err)
	}
}

func killed(err error) bool {
	var e *exec.ExitError
	if !errors.As(err, &e) {
		return false
	}
	st, ok := e.Sys().(interface{ Signal() unix.Signal })
	return ok && st.Signal() == unix.SIGKILL
}

// TestCrashChild is what killChild starts.
func TestCrashChild(t *testing.T) {
	dirs := strings.Split(os.Getenv(envCrash), ":")
	if len(dirs) < 3 {
		t.Skip("a part of TestCrash")
	}
	r := &rig{T: t, upper: dirs[0], work: dirs[1], lowers: dirs[2:]}
	r.open()
	fmt.Print("r")
	for g := range uint64(3) {
		s := &stresser{rig: r, rnd: rand.New(rand.NewPCG(uint64(os.Getpid()), g))} // #nosec G404 G115 -- any will do
		go func() {
			for {
				s.step()
			}
		}()
	}
	select {}
}

// wholeTree checks that all of a tree can be read.
func (r *rig) wholeTree() {
	r.Helper()
	names := map[uint64]int{}
	links := map[uint64]uint32{}
	for p, d := range r.tree() { // which looks each name up
		if strings.Contains(d, "error") {
			r.Errorf("%s: %s", p, d)
		}
		a := r.attr(p)
		if a.Mode&unix.S_IFMT == unix.S_IFREG {
			names[a.Ino]++
			links[a.Ino] = a.Nlink
			if _, err := r.readID(r.id(p)); err != nil {
				r.Errorf("read %s: %v", p, err)
			}
		}
	}
	for ino, n := range names {
		if int(links[ino]) < n {
			r.Errorf("inode %x has %d names and %d links", ino, n, links[ino])
		}
	}
}
