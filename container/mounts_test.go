package container

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/layerstore"
)

// TestWaitReleased holds a container as a server does that is slow to end.
func TestWaitReleased(t *testing.T) {
	st := openStore(t)
	c := newContainer(t, st)
	lock, err := st.LockContainer(c.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	var released atomic.Bool
	held := lock
	time.AfterFunc(30*time.Millisecond, func() {
		released.Store(true)
		if err := held.Release(); err != nil {
			t.Error(err)
		}
	})
	if err := waitReleased(t.Context(), st, c, time.Minute); err != nil || !released.Load() {
		t.Errorf("returned %v, released: %v", err, released.Load())
	}

	if lock, err = st.LockContainer(c.ID, true); err != nil {
		t.Fatal(err)
	}
	err = waitReleased(t.Context(), st, c, time.Millisecond)
	if !errors.Is(err, ErrServer) || !strings.Contains(err.Error(), c.Name) {
		t.Errorf("a server that goes on: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := waitReleased(ctx, st, c, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}

// TestRemove refuses while a server holds the container.
func TestRemove(t *testing.T) {
	st := openStore(t)
	c := newContainer(t, st)
	lock, err := st.LockContainer(c.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), st, c.Name); !errors.Is(err, ErrMounted) {
		t.Errorf("while it is served: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), st, c.Name); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if err := Remove(t.Context(), st, c.Name); !errors.Is(err, layerstore.ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
}

// newContainer makes a container of an image without layers.
func newContainer(t *testing.T, st *layerstore.Store) layerstore.Container {
	t.Helper()
	blob := func(text string) digest.Digest {
		d, err := st.WriteBlob([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	img := layerstore.Image{ID: blob("config"), Manifest: blob("manifest")}
	c, err := Create(t.Context(), st, img, CreateOptions{ImageName: "none"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
