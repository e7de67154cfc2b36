package layerstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCrash kills a process that makes and removes images and containers at random instants. What it said was done is
// there, what it said was removed is not, the store is whole, and garbage can be collected.
func TestCrash(t *testing.T) {
	s := openStore(t)
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	there := map[int]bool{}
	next := 0
	for range rounds {
		lines := killLive(t, s, next)
		doubt := map[int]bool{}
		for i := range words(lines, "put") {
			there[i] = true
			next = max(next, i+1)
		}
		for i := range words(lines, "removing") {
			doubt[i] = true
			delete(there, i)
		}
		for i := range words(lines, "removed") {
			delete(doubt, i)
			if _, err := s.ResolveImage(context.Background(), liveName(i)); !errors.Is(err, ErrNotFound) {
				t.Errorf("image %d was removed: %v", i, err)
			}
		}
		for i := range there {
			if _, err := s.ResolveImage(context.Background(), liveName(i)); err != nil {
				t.Errorf("image %d was there: %v", i, err)
			}
		}
		wantWhole(t, s)
		for i := range doubt {
			if _, err := s.RemoveImage(context.Background(), liveName(i), RemoveOptions{Force: true}); err != nil && !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		}
		// What the child was at when it was killed may exist in part: the next one makes it again.
		dropContainer(t, s, fmt.Sprintf("live%d", next))
		if len(lines)%2 == 0 {
			continue // the next child finds what this one left
		}
		if _, err := s.Collect(context.Background()); err != nil {
			t.Error(err)
		}
		if r := wantWhole(t, s); r.Garbage != 0 {
			t.Errorf("%d pieces of garbage after Collect", r.Garbage)
		}
	}
	t.Logf("%d images after %d kills", len(there), rounds)
}

// killLive runs childLive, kills it, and returns what it said.
func killLive(t *testing.T, s *Store, next int) (lines []string) {
	t.Helper()
	cmd, out := child(t, s, "live", next)
	kill := func() { _ = cmd.Process.Kill() }
	after := rand.IntN(8)
	for {
		if len(lines) == after { // and then a little, so that it can be in the middle of anything
			time.AfterFunc(time.Duration(rand.IntN(150_000))*time.Microsecond, kill)
		}
		if !out.Scan() {
			break
		}
		lines = append(lines, out.Text())
	}
	_ = cmd.Wait()
	if cmd.ProcessState.Exited() {
		t.Fatalf("the child ended by itself: %v, after %v", cmd.ProcessState, lines)
	}
	return lines
}

func dropContainer(t *testing.T, s *Store, name string) {
	t.Helper()
	c, err := s.Container(context.Background(), name)
	if errors.Is(err, ErrNotFound) {
		return
	}
	if err == nil {
		err = s.RemoveContainer(context.Background(), c.ID)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestCrashResumes(t *testing.T) {
	s, l := openStore(t), slowLayer()
	last := int64(0)
	for _, upTo := range []int{1, 3 << 20, 4 << 20} {
		cmd, out := child(t, s, "slow", len(l.blob))
		first := true
		for out.Scan() {
			at, err := strconv.Atoi(strings.TrimPrefix(out.Text(), "at "))
			if err != nil {
				t.Fatal(err)
			}
			if first && int64(at) < last {
				t.Errorf("began at %d, behind %d", at, last)
			}
			first = false
			if at >= upTo {
				break
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		wantWhole(t, s)
		if s.HasLayer(l.spec) {
			t.Skip("the child was through before it was killed")
		}
		in, err := s.BeginLayer(context.Background(), l.spec)
		if err != nil {
			t.Fatal(err)
		}
		// A session holds back what is on the way to the file: one chunk being filled and those that wait.
		if least := int64(upTo - (chunkDepth+3)*chunkSize); in.Offset() < least {
			t.Errorf("killed at %d, carries on at %d, want at least %d", upTo, in.Offset(), least)
		}
		last = in.Offset()
		if err := in.Abort(); err != nil {
			t.Error(err)
		}
	}
	mustIngest(t, s, l)
	wantWhole(t, s)
}

func TestProcessesIngestSameLayers(t *testing.T) {
	s := openStore(t)
	const layers = 6
	var took []string
	a, outA := child(t, s, "ingest", layers)
	b, outB := child(t, s, "ingest", layers)
	for outA.Scan() {
		took = append(took, outA.Text())
	}
	for outB.Scan() {
		took = append(took, outB.Text())
	}
	if err := errors.Join(a.Wait(), b.Wait()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(took)
	if len(took) != layers || len(slices.Compact(took)) != layers {
		t.Errorf("layers were taken in %v", took)
	}
	if r := wantWhole(t, s); r.Layers != layers {
		t.Errorf("%d layers", r.Layers)
	}
}

func TestProcessesPutImages(t *testing.T) {
	s := openStore(t)
	mustIngest(t, s, gzipLayer(t, 600, 2, 100))
	const procs = 8
	var waits []func() error
	for i := range procs {
		cmd, _ := child(t, s, "put", i)
		waits = append(waits, cmd.Wait)
	}
	for _, wait := range waits {
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
	images, err := s.Images(context.Background())
	if err != nil || len(images) != procs*5 {
		t.Errorf("%d images: %v", len(images), err)
	}
	for i := range procs {
		for j := range 5 {
			if _, err := s.ResolveImage(context.Background(), fmt.Sprintf("docker.io/library/put%d:%d", i, j)); err != nil {
				t.Error(err)
			}
		}
	}
	wantWhole(t, s)
}

func TestProcessesMakeStore(t *testing.T) {
	for range 2 {
		s := &Store{root: t.TempDir() + "/new"}
		var waits []func() error
		for range 4 {
			cmd, _ := child(t, s, "mkstore", 0)
			waits = append(waits, cmd.Wait)
		}
		for _, wait := range waits {
			if err := wait(); err != nil {
				t.Error(err)
			}
		}
		opened, err := Open(s.root)
		if err != nil {
			t.Fatal(err)
		}
		wantWhole(t, opened)
	}
}

func TestLeaseEndsWithItsProcess(t *testing.T) {
	s, l := openStore(t), gzipLayer(t, 800, 2, 100)
	cmd, out := child(t, s, "lease", 0)
	if !out.Scan() {
		t.Fatal("the child said nothing")
	}
	if _, err := s.Collect(context.Background()); err != nil || !s.HasLayer(l.spec) {
		t.Errorf("a leased layer was collected: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if freed, err := s.Collect(context.Background()); err != nil || freed == 0 || s.HasBlob(l.spec.Digest) {
		t.Errorf("the lease outlived its process: %v, %d bytes freed", err, freed)
	}
	if r := wantWhole(t, s); r.Garbage != 0 || r.Blobs != 0 {
		t.Errorf("%+v", r)
	}
}
