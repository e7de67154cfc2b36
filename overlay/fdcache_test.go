package overlay

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func openNull(t *testing.T) *openFile {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return newOpenFile(fd)
}

func live() bool { return true }

func isOpen(f *openFile) bool {
	_, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFD, 0)
	return err == nil
}

// TestEvictedDescriptorInUse: a descriptor that the cache has no room for is closed by its last user, not before.
func TestEvictedDescriptorInUse(t *testing.T) {
	c := newFDCache(1) // one a shard
	first := c.put(shards, openNull(t), live)
	second := c.put(2*shards, openNull(t), live)
	if c.get(shards) != nil {
		t.Error("the descriptor used longest ago is still cached")
	}
	if !isOpen(first) {
		t.Fatal("a descriptor in use was closed")
	}
	first.Release()
	if isOpen(first) {
		t.Error("no one closed it")
	}
	second.Release()
	if !isOpen(second) {
		t.Error("a cached descriptor was closed")
	}
	c.close()
	if isOpen(second) {
		t.Error("the cache did not close it")
	}
}

// TestDescriptorOfTwoOpeners: the first to come is used by both, unless it can only read.
func TestDescriptorOfTwoOpeners(t *testing.T) {
	c := newFDCache(64)
	defer c.close()
	reader := openNull(t)
	reader.readonly = true
	c.put(5, reader, live).Release()
	writer := openNull(t)
	if got := c.put(5, writer, live); got != writer {
		t.Error("a writer was given a descriptor that only reads")
	}
	writer.Release()
	if isOpen(reader) {
		t.Error("the reader's descriptor is still open")
	}
	late := openNull(t)
	got := c.put(5, late, live)
	if got != writer || isOpen(late) {
		t.Error("who came late does not use the descriptor that is cached")
	}
	got.Release()
}

func TestDescriptorsUsedAtOnce(t *testing.T) {
	c := newFDCache(shards)
	var wg sync.WaitGroup
	for g := range ID(4) {
		wg.Go(func() {
			for i := range ID(3000) {
				id := i*7%200 + g
				f := c.get(id)
				if f == nil {
					f = c.put(id, openNull(t), live)
				}
				if !isOpen(f) {
					t.Error("a descriptor in use is closed")
				}
				f.Release()
				if i%5 == 0 {
					c.forget(id)
				}
			}
		})
	}
	wg.Wait()
	c.close()
}
