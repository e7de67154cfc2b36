package layerstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ingestNames lists ingest/, by suffix and prefix rather than by random names.
func ingestNames(t *testing.T, s *Store) []string {
	t.Helper()
	paths, err := filepath.Glob(s.path(dirIngest, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range paths {
		paths[i] = filepath.Base(p)
	}
	return paths
}

func TestDropDeletesOnlyWhatItsLeaseBrought(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	shared, mine, theirs, half := gzipLayer(t, 40, 3, 5000), gzipLayer(t, 41, 3, 5000), gzipLayer(t, 42, 3, 5000), gzipLayer(t, 43, 20, 50_000)
	stranger := gzipLayer(t, 44, 3, 5000)
	mustIngest(t, s, shared, mine, theirs, stranger)
	putImage(t, s, refA, time.Unix(1, 0), shared)
	other, err := s.Lease(ctx, theirs.spec.Digest, theirs.spec.DiffID)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := s.Lease(ctx, shared.spec.Digest, shared.spec.DiffID)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []testLayer{mine, theirs, half} {
		if err := lease.Pin(l.spec.Digest, l.spec.DiffID); err != nil {
			t.Fatal(err)
		}
	}
	in, err := s.BeginLayer(ctx, half.spec)
	if err != nil {
		t.Fatal(err)
	}
	_, err = in.Write(half.blob[:len(half.blob)/2])
	if err := errors.Join(err, in.Abort()); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(ingestNames(t, s), half.spec.Digest.Encoded()+suffixPartial) {
		t.Fatal("there is no partial file to drop")
	}
	if err := lease.Drop(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		l    testLayer
		want bool
	}{{shared, true}, {theirs, true}, {stranger, true}, {mine, false}} {
		if s.HasLayer(c.l.spec) != c.want || s.HasBlob(c.l.spec.Digest) != c.want {
			t.Errorf("after Drop layer %s is there: %v, want %v", c.l.spec.Digest, !c.want, c.want)
		}
	}
	if names := ingestNames(t, s); len(names) != 1 || !strings.HasPrefix(names[0], leasePrefix) {
		t.Errorf("ingest/ holds %v, want the other lease", names)
	}
	if err := errors.Join(lease.Release(), other.Release()); err != nil {
		t.Error(err)
	}
}

func TestLeaseReapsWhatTheDeadLeft(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	live, err := s.Lease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	running, dead := gzipLayer(t, 45, 20, 50_000), strings.Repeat("d", 64)
	in, err := s.BeginLayer(ctx, running.spec)
	if err != nil {
		t.Fatal(err)
	}
	before := ingestNames(t, s)
	kept := dead + suffixPartial
	for _, name := range []string{leasePrefix + "0123456789abcdef", tmpPrefix + "0123", dead + suffixLock, dead + suffixTar, dead + suffixIdx, kept} {
		if err := os.WriteFile(s.path(dirIngest, name), []byte("x"), fileMode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.path(dirTrash, "0123"), []byte("x"), fileMode); err != nil {
		t.Fatal(err)
	}
	next, err := s.Lease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Release(); err != nil {
		t.Fatal(err)
	}
	want := append(before, kept)
	slices.Sort(want)
	if got := ingestNames(t, s); !slices.Equal(got, want) {
		t.Errorf("ingest/ holds %v, want %v", got, want)
	}
	if left, err := os.ReadDir(s.path(dirTrash)); err != nil || len(left) > 0 {
		t.Errorf("trash/ holds %v, %v", left, err)
	}
	if _, err := in.Write(running.blob); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(in.Commit(), live.Release()); err != nil {
		t.Error(err)
	}
}
