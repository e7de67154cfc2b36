package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/plyfs/plyfs/layerstore"
)

// TestMain pulls instead of testing when a test has started it to do so.
func TestMain(m *testing.M) {
	ref, root := os.Getenv("IMAGE_TEST_PULL"), os.Getenv("IMAGE_TEST_STORE")
	if ref == "" {
		os.Exit(m.Run())
	}
	st, err := layerstore.Open(root)
	if err == nil {
		o, _ := options()
		var got atomic.Int64
		o.Progress = &recorder{on: func(line string) {
			var name string
			var n int64
			if _, err := fmt.Sscanf(line, "%s add %d", &name, &n); err == nil {
				if sum := got.Add(n); sum >= tellAt && sum-n < tellAt {
					fmt.Println("enough") // the test that kills waits for it
				}
			}
		}}
		_, err = Pull(context.Background(), st, ref, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// tellAt is after how many bytes of layers a pulling process says so.
const tellAt = 2_500_000

// pullCommand pulls in a process of its own.
func pullCommand(t *testing.T, root, ref string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "IMAGE_TEST_PULL="+ref, "IMAGE_TEST_STORE="+root)
	cmd.Stderr = &strings.Builder{}
	return cmd
}

func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func waitPull(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Wait(); err != nil {
		t.Errorf("pull: %v: %s", err, cmd.Stderr)
	}
}

// gate holds the answers to GETs of blobs until it is opened, and tells of the first that comes.
type gate struct {
	first chan struct{}
	open  chan struct{}
	once  sync.Once
}

func newGate(s *testServer) *gate {
	g := &gate{first: make(chan struct{}), open: make(chan struct{})}
	s.breaks(-1, func(r *http.Request) bool {
		_, ok := blobOf(r)
		return ok && r.Method == http.MethodGet
	}, func(w http.ResponseWriter, r *http.Request) {
		g.once.Do(func() { close(g.first) })
		select {
		case <-g.open:
			s.forward(w, r)
		case <-r.Context().Done():
		}
	})
	return g
}

func requireOnce(t *testing.T, s *testServer, layers []testLayer) {
	t.Helper()
	for _, l := range layers {
		if n := s.count(l.digest()); n.gets != 1 || n.bytes != int64(len(l.blob)) {
			t.Errorf("layer was served %+v, want once", n)
		}
	}
}

func TestTwoPulls(t *testing.T) {
	s, root := newServer(t), t.TempDir()+"/store"
	layers := []testLayer{newLayer(t, 1, 200_000), newLayer(t, 2, 100_000), newLayer(t, 3, 50_000), newLayer(t, 4, 10)}
	want := s.pushImage("x", "latest", testImage{layers: layers})
	g := newGate(s)
	var wg sync.WaitGroup
	for range 3 { // each with a store of its own, as processes have
		st := openStore(t, root)
		wg.Add(1)
		go func() {
			defer wg.Done()
			o, _ := options()
			if _, err := Pull(t.Context(), st, s.ref("x"), o); err != nil {
				t.Error(err)
			}
		}()
	}
	<-g.first
	close(g.open)
	wg.Wait()
	requireOnce(t, s, layers)
	st := openStore(t, root)
	img, err := Resolve(t.Context(), st, s.ref("x"))
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, want)
}

func TestTwoProcesses(t *testing.T) {
	s, root := newServer(t), t.TempDir()+"/store"
	layers := []testLayer{newLayer(t, 1, 200_000), newLayer(t, 2, 100_000)}
	want := s.pushImage("x", "latest", testImage{layers: layers})
	openStore(t, root)
	g := newGate(s)
	a, b := pullCommand(t, root, s.ref("x")), pullCommand(t, root, s.ref("x"))
	start(t, a)
	start(t, b)
	<-g.first
	close(g.open)
	waitPull(t, a)
	waitPull(t, b)
	requireOnce(t, s, layers)
	st := openStore(t, root)
	img, err := Resolve(t.Context(), st, s.ref("x"))
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, want)
}

// TestKilled kills a pull in the midst of a layer. What was there stays, and the next pull carries on.
func TestKilled(t *testing.T) {
	s, root := newServer(t), t.TempDir()+"/store"
	l := newLayer(t, 7, 3_000_000)
	s.pushImage("before", "latest", testImage{layers: []testLayer{newLayer(t, 1, 100)}})
	want := s.pushImage("x", "latest", testImage{layers: []testLayer{l}})
	st := openStore(t, root)
	o, _ := options()
	before, err := Pull(t.Context(), st, s.ref("before"), o)
	if err != nil {
		t.Fatal(err)
	}
	s.breaks(1, isBlob(l.digest()), func(w http.ResponseWriter, r *http.Request) {
		s.forward(&upTo{w, tellAt, func(http.ResponseWriter) { <-r.Context().Done(); panic(http.ErrAbortHandler) }}, r)
	})
	cmd := pullCommand(t, root, s.ref("x"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "enough\n" {
		t.Fatalf("%q %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it was not killed")
	}
	if _, err := Resolve(t.Context(), st, s.ref("x")); !errors.Is(err, layerstore.ErrNotFound) {
		t.Errorf("half an image: %v", err)
	}
	img, err := Resolve(t.Context(), st, s.ref("before"))
	if err != nil || img.ID != before.ID {
		t.Errorf("what was there: %v", err)
	}
	s.reset()
	if img, err = Pull(t.Context(), st, s.ref("x"), o); err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, want)
	if n := s.count(l.digest()); n.gets != 1 || n.bytes >= int64(len(l.blob)) {
		t.Errorf("nothing was carried on: served %+v of %d bytes", n, len(l.blob))
	}
}
