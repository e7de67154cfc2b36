package layerstore

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The lock file is deleted at each release: the next holder must not be content with the deleted one.
func TestLockNamedExcludes(t *testing.T) {
	path := t.TempDir() + "/x.lock"
	var holders, most atomic.Int32
	var wg sync.WaitGroup
	for range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 200 {
				f, err := lockNamed(context.Background(), path)
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n > most.Load() {
					most.Store(n)
				}
				for range 20 { // long enough for another to come
					_, _ = os.Lstat(path)
				}
				holders.Add(-1)
				if err := unlockNamed(f); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d held the lock at once", most.Load())
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the lock file stays: %v", err)
	}
}

func TestSamePath(t *testing.T) {
	path := t.TempDir() + "/f"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !samePath(f, path) {
		t.Error("not the same while it is there")
	}
	if err := os.Rename(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	if samePath(f, path) {
		t.Error("the same after it was renamed")
	}
	overwrite(t, path, nil)
	if samePath(f, path) {
		t.Error("the same as another file of the name")
	}
}

// A container keeps its layers even if its manifest was lost.
func TestContainerKeepsLayers(t *testing.T) {
	s, like := storeWithImage(t)
	if _, err := s.CreateContainer(context.Background(), like); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RemoveImage(context.Background(), refA, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	overwrite(t, s.path(nameIndex), []byte(emptyIndex))
	if err := os.Remove(s.path(dirBlobs, like.Manifest.Encoded())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := lookInto(s, like.Layers[0]); err != nil {
		t.Error(err)
	}
}

func TestDecodeStopsAtLimit(t *testing.T) {
	s, l := openStore(t), gzipLayer(t, 90, 30, 50_000)
	l.spec.MaxUnpacked = 100_000
	in, err := s.BeginLayer(context.Background(), l.spec)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = in.Write(l.blob)
	deadline := time.After(time.Minute)
	select {
	case <-in.p.done:
	case <-deadline:
		t.Fatal("the limit is not noticed before Commit")
	}
	if err := in.Abort(); err != nil {
		t.Error(err)
	}
	if in.unpacked > 100_000+2*chunkSize {
		t.Errorf("%d bytes were unpacked", in.unpacked)
	}
}
