package layerstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The environment of a re-executed test binary: what to do, and on which store.
const (
	envChild = "PLYFS_TEST_CHILD"
	envRoot  = "PLYFS_TEST_CHILD_ROOT"
	envArg   = "PLYFS_TEST_CHILD_ARG"
)

var children = map[string]func(s *Store, arg int) error{
	"live":    childLive,
	"slow":    childSlow,
	"ingest":  childIngest,
	"put":     childPut,
	"lease":   childLease,
	"mkstore": func(*Store, int) error { return nil },
}

func TestMain(m *testing.M) {
	name := os.Getenv(envChild)
	if name == "" {
		os.Exit(m.Run())
	}
	s, err := Open(os.Getenv(envRoot))
	if err == nil {
		var arg int
		arg, err = strconv.Atoi(os.Getenv(envArg))
		err = errors.Join(err, children[name](s, arg))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child starts the test binary again. It is killed at the end of the test if it still runs.
func child(t *testing.T, s *Store, name string, arg int) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envChild+"="+name, envRoot+"="+s.Root(), envArg+"="+strconv.Itoa(arg))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd, bufio.NewScanner(out)
}

// tb lets the helpers of tests run in a child, where there is no test.
type tb struct{ testing.TB }

func (tb) Helper()           {}
func (tb) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// liveLayers are the layers of the i-th image of childLive: one that all share, one compressed and one plain of its own.
func liveLayers(i int) []testLayer {
	seed := uint64(1000 + 2*i)
	return []testLayer{gzipLayer(tb{}, 999, 3, 1000), gzipLayer(tb{}, seed, 12, 60_000), plainLayer(tb{}, seed+1, 5, 60_000)}
}

func liveName(i int) string { return fmt.Sprintf("docker.io/library/live:%d", i) }

// childLive makes images and containers and removes every other, without end, and says what it is about to do and has done.
func childLive(s *Store, i int) error {
	for ; ; i++ {
		if err := liveOnce(s, i); err != nil {
			return err
		}
	}
}

func liveOnce(s *Store, i int) error {
	ctx := context.Background()
	layers := liveLayers(i)
	var pins []Digest
	for _, l := range layers {
		pins = append(pins, l.spec.Digest, l.spec.DiffID)
	}
	lease, err := s.Lease(ctx, pins...)
	if err != nil {
		return err
	}
	for _, l := range layers {
		err := ingest(s, l)
		if errors.Is(err, ErrPartial) {
			err = ingest(s, l)
		}
		if err != nil && !errors.Is(err, ErrExists) {
			return err
		}
	}
	img, err := s.PutImage(ctx, liveName(i), makeImage(tb{}, s, time.Unix(int64(i), 0), layers...), v1.MediaTypeImageManifest, "")
	if err != nil {
		return err
	}
	fmt.Println("put", i)
	if err := lease.Release(); err != nil {
		return err
	}
	c, err := s.CreateContainer(ctx, Container{Name: fmt.Sprintf("live%d", i), Image: img.ID, Manifest: img.Manifest, Layers: []Digest{layers[0].spec.DiffID}})
	if err != nil {
		return err
	}
	fmt.Println("made", i)
	if err := os.MkdirAll(s.ContainerDir(c.ID)+"/upper/a/b/c", 0o700); err != nil {
		return err
	}
	if i%2 == 0 {
		return nil
	}
	fmt.Println("removing", i)
	if err := s.RemoveContainer(ctx, c.ID); err != nil {
		return err
	}
	if _, err := s.RemoveImage(ctx, liveName(i), RemoveOptions{}); err != nil {
		return err
	}
	if _, err := s.Collect(ctx); err != nil {
		return err
	}
	fmt.Println("removed", i)
	return nil
}

// slowLayer is what childSlow takes in.
func slowLayer() testLayer { return gzipLayer(tb{}, 500, 100, 100_000) }

func childSlow(s *Store, end int) error {
	l := slowLayer()
	in, err := s.BeginLayer(context.Background(), l.spec)
	if err != nil {
		return err
	}
	fmt.Println("at", in.Offset())
	for off := int(in.Offset()); off < end; off += 8192 {
		if _, err := in.Write(l.blob[off:min(off+8192, end)]); err != nil {
			return err
		}
		fmt.Println("at", off)
	}
	return in.Commit()
}

func childIngest(s *Store, n int) error {
	for i := range n {
		err := ingest(s, gzipLayer(tb{}, uint64(700+i), 20, 50_000))
		switch {
		case err == nil:
			fmt.Println("took", i)
		case !errors.Is(err, ErrExists):
			return err
		}
	}
	return nil
}

func childPut(s *Store, arg int) error {
	l := gzipLayer(tb{}, 600, 2, 100)
	for i := range 5 {
		name := fmt.Sprintf("docker.io/library/put%d:%d", arg, i)
		m := makeImage(tb{}, s, time.Unix(int64(arg), int64(i)), l)
		if _, err := s.PutImage(context.Background(), name, m, v1.MediaTypeImageManifest, ""); err != nil {
			return err
		}
	}
	return nil
}

func childLease(s *Store, _ int) error {
	l := gzipLayer(tb{}, 800, 2, 100)
	if _, err := s.Lease(context.Background(), l.spec.Digest, l.spec.DiffID); err != nil {
		return err
	}
	if err := ingest(s, l); err != nil {
		return err
	}
	fmt.Println("leased")
	select {} // until it is killed
}

// words reads the numbers that follow a word in a child's lines.
func words(lines []string, word string) map[int]bool {
	got := map[int]bool{}
	for _, l := range lines {
		if n, ok := strings.CutPrefix(l, word+" "); ok {
			if i, err := strconv.Atoi(n); err == nil {
				got[i] = true
			}
		}
	}
	return got
}
