package overlay

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// gate is a layer in which a file's data are not had from a place on until it is opened. What is asked once is answered:
// that is the server looking how much room the data take.
type gate struct {
	Layer
	from    int64         // odd, so that no filesystem can share the blocks before it
	entered chan struct{} // closed when the copy waits
	goOn    chan struct{} // closed to let it go on
	err     error         // told then

	mu   sync.Mutex
	seen map[int64]int
}

func newGate(from int64) *gate {
	return &gate{from: from, entered: make(chan struct{}), goOn: make(chan struct{}), seen: map[int64]int{}}
}

func (g *gate) Data(e Entry, off int64) (Run, error) {
	g.mu.Lock()
	g.seen[off]++
	n := g.seen[off]
	g.mu.Unlock()
	if off == g.from && n == 2 {
		close(g.entered)
		<-g.goOn
		if g.err != nil {
			return Run{}, g.err
		}
	}
	run, err := g.Layer.Data(e, off)
	if off < g.from {
		run.Len = min(run.Len, g.from-off)
	}
	return run, err
}

// held is a rig with a large file whose copy waits in the middle.
type held struct {
	*rig
	g       *gate
	id      ID
	content []byte
	carried chan error
	first   []byte // what the writer wrote who carries the copy
}

const heldSize = 3*copyChunk + 12345

func newHeld(t *testing.T, prepare func(r *rig)) *held {
	return heldBy(t, prepare, (*Union).WriteBack)
}

func heldBy(t *testing.T, prepare func(r *rig), write func(u *Union, id ID, b []byte, off int64, kill bool) (int, error)) *held {
	t.Helper()
	h := &held{rig: newRig(t, 1), g: newGate(copyChunk/2 + 1), carried: make(chan error, 1), first: []byte("first")}
	h.content = make([]byte, heldSize)
	fillRandom(h.content)
	h.low(0, "big", string(h.content))
	h.wrap = func(l Layer) Layer { h.g.Layer = l; return h.g }
	h.open()
	if prepare != nil {
		prepare(h.rig)
	}
	h.id = h.rig.id("big")
	go func() {
		_, err := write(h.u, h.id, h.first, 100, false)
		h.carried <- err
	}()
	select {
	case <-h.g.entered:
	case err := <-h.carried:
		t.Fatalf("the copy did not wait: %v", err)
	}
	return h
}

func fillRandom(b []byte) {
	src := rand.NewChaCha8([32]byte{7})
	_, _ = src.Read(b) // it never fails
}

func (h *held) writeAt(off int64, s string) {
	h.Helper()
	n, err := h.u.WriteBack(h.id, []byte(s), off, false)
	h.ok(err)
	if n != len(s) {
		h.Fatalf("wrote %d bytes of %d", n, len(s))
	}
	h.content = append(h.content, make([]byte, max(0, int(off)+n-len(h.content)))...)
	copy(h.content[off:], s)
}

func (h *held) same() {
	h.Helper()
	got, err := h.readAll(h.id)
	h.ok(err)
	if !bytes.Equal(got, h.content) {
		i := 0
		for i < min(len(got), len(h.content)) && got[i] == h.content[i] {
			i++
		}
		h.Fatalf("reads %d bytes, want %d; they differ at %d", len(got), len(h.content), i)
	}
}

// readAll is readID with as much at a time as there is.
func (r *rig) readAll(id ID) ([]byte, error) {
	var a Attr
	if err := r.u.GetAttr(id, &a); err != nil {
		return nil, err
	}
	out := make([]byte, 0, a.Size)
	for int64(len(out)) < int64(a.Size) { // #nosec G115 -- a test's own
		run, err := r.u.Data(id, int64(len(out)))
		if err != nil {
			return out, err
		}
		l := min(run.Len, int64(a.Size)-int64(len(out))) // #nosec G115 -- a test's own
		b := make([]byte, l)
		n := len(b)
		if run.FD >= 0 {
			n, err = unix.Pread(run.FD, b, run.Pos)
		}
		if run.Ref != nil {
			run.Ref.Release()
		}
		if err != nil {
			return out, err
		}
		if n <= 0 {
			break
		}
		out = append(out, b[:n]...)
	}
	return out, nil
}

// TestWriteWhileCopied: writes to a file whose data are being copied are answered before they all are, and show at once
// and afterwards; so do the times that are set.
func TestWriteWhileCopied(t *testing.T) {
	for name, prepare := range map[string]func(r *rig){
		"data": nil,
		"data after attributes": func(r *rig) {
			r.chmod("big", 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeld(t, prepare)
			h.writeAt(5, "below what is copied")
			h.writeAt(copyChunk-3, "over the edge of a chunk")
			h.writeAt(2*copyChunk, strings.Repeat("x", 100_000))
			h.writeAt(2*copyChunk+99_990, strings.Repeat("y", 20))
			h.writeAt(heldSize-2, "over the end")
			h.writeAt(heldSize+1<<20, "past a hole")
			h.same()
			mtime := unix.Timespec{Sec: 1234567890, Nsec: 7}
			var a Attr
			h.ok(h.u.SetAttr(h.id, &SetAttr{Mtime: &mtime}, &a))
			if a.Mtime != timespec(mtime) || a.Size != uint64(len(h.content)) {
				t.Errorf("size %d, time %v", a.Size, a.Mtime)
			}
			close(h.g.goOn)
			h.ok(<-h.carried)
			copy(h.content[100:], h.first)
			h.same()
			h.reopen()
			h.id = h.rig.id("big")
			h.same()
		})
	}
}

// TestTimesSetWhileCopied: cached writes leave the times as they were set.
func TestTimesSetWhileCopied(t *testing.T) {
	h := newHeld(t, nil)
	mtime := unix.Timespec{Sec: 1234567890, Nsec: 7}
	var a Attr
	h.ok(h.u.SetAttr(h.id, &SetAttr{Mtime: &mtime}, &a))
	h.writeAt(copyChunk, "later")
	close(h.g.goOn)
	h.ok(<-h.carried)
	h.writeAt(copyChunk, "last")
	var st unix.Stat_t
	h.ok(unix.Stat(filepath.Join(h.upper, "big"), &st))
	if st.Mtim != mtime {
		t.Errorf("modified at %v, set to %v", st.Mtim, mtime)
	}
}

// TestCopyFailsAfterWrites: what was answered and is lost is told to whoever asks for it next, once.
func TestCopyFailsAfterWrites(t *testing.T) {
	for _, ask := range []string{"fsync", "write"} {
		h := heldBy(t, nil, (*Union).Write)
		before := append([]byte(nil), h.content...)
		h.writeAt(2*copyChunk, "lost")
		h.g.err = unix.EIO
		close(h.g.goOn)
		h.want(<-h.carried, unix.EIO)
		h.content = before
		h.same()
		if ask == "fsync" {
			h.want(h.u.Fsync(h.id, false), unix.EIO)
		} else {
			h.want(second(h.u.Write(h.id, []byte("z"), 0, false)), unix.EIO)
		}
		h.ok(h.u.Fsync(h.id, false))
		h.same()
		h.writeAt(2*copyChunk, "not lost")
		h.ok(h.u.Fsync(h.id, false))
		h.reopen()
		h.id = h.rig.id("big")
		h.same()
	}
}

// TestSyncWaitsForCopy: fsync says that data are on the disk when they are where they will be found.
func TestSyncWaitsForCopy(t *testing.T) {
	h := newHeld(t, nil)
	h.writeAt(copyChunk, "synced")
	synced := make(chan error, 1)
	go func() {
		err := h.u.Fsync(h.id, false)
		if _, serr := os.Stat(filepath.Join(h.upper, "big")); err == nil {
			err = serr
		}
		synced <- err
	}()
	select {
	case err := <-synced:
		t.Errorf("it returned %v while the copy was held", err)
	case <-time.After(50 * time.Millisecond): // a fault shows sooner or later
	}
	close(h.g.goOn)
	h.ok(<-h.carried)
	h.ok(<-synced)
}

// TestNoRoomForCopy: where the data do not fit, no write is answered that would be lost.
func TestNoRoomForCopy(t *testing.T) {
	r := newRigIn(t, smallFS(t, "size=6m"), 1)
	content := strings.Repeat("x", 8<<20)
	r.low(0, "big", content)
	r.open()
	id := r.id("big")
	var wg sync.WaitGroup
	for i := range int64(4) {
		wg.Go(func() {
			if n, err := r.u.WriteBack(id, []byte("y"), i<<20, false); err == nil {
				t.Errorf("wrote %d bytes", n)
			}
		})
	}
	wg.Wait()
	r.ok(r.u.Fsync(id, false))
	r.reads("big", content)
}

// TestWritesBesideCopy writes at random from several threads while a file is copied, and compares.
func TestWritesBesideCopy(t *testing.T) {
	const workers, area = 4, 6 << 20
	r := newRig(t, 1)
	content := make([]byte, workers*area)
	fillRandom(content)
	clear(content[area/2 : 2*area])
	r.low(0, "big", string(content))
	f, err := os.OpenFile(filepath.Join(r.lowers[0], "big"), os.O_RDWR, 0) // #nosec G304 -- a test's own
	r.ok(err)
	r.ok(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, area/2, 3*area/2)) // #nosec G115 -- a descriptor
	r.ok(f.Close())
	r.open()
	id := r.id("big")
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w))) // #nosec G404 G115 -- to be repeated
			mine := content[w*area:][:area]
			for range 300 {
				off, b := rnd.IntN(area-70_000), make([]byte, 1+rnd.IntN(70_000))
				b[0], b[len(b)-1] = byte(w), 1
				copy(mine[off:], b)
				write := r.u.Write
				if rnd.IntN(2) == 0 {
					write = r.u.WriteBack
				}
				if n, err := write(id, b, int64(w*area+off), false); n != len(b) || err != nil {
					t.Errorf("wrote %d of %d: %v", n, len(b), err)
				}
				run, err := r.u.Data(id, int64(w*area+off))
				if err != nil {
					t.Error(err)
					continue
				}
				got := make([]byte, min(int64(len(b)), run.Len))
				if run.FD >= 0 {
					_, err = unix.Pread(run.FD, got, run.Pos)
				}
				if run.Ref != nil {
					run.Ref.Release()
				}
				if err != nil || !bytes.Equal(got, b[:len(got)]) {
					t.Errorf("does not read what was written: %v", err)
				}
			}
		})
	}
	wg.Wait()
	got, err := r.readAll(id)
	r.ok(err)
	if !bytes.Equal(got, content) {
		t.Error("the file is not what was written")
	}
}
