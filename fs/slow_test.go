package fs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// slowLayer is a layer in which the data of one file are not had beyond a place until they may. What is asked once is
// answered: that is the server looking how much room they take.
type slowLayer struct {
	overlay.Layer
	ino     uint64
	from    int64         // in the middle of a block, so that no filesystem can share those before it
	asked   atomic.Int32  // how often from was
	entered chan struct{} // takes one for the first who waits
	goOn    chan struct{} // closed to let them go on
}

func (s *slowLayer) Data(e overlay.Entry, off int64) (overlay.Run, error) {
	var a overlay.Attr
	if err := s.Attr(e, &a); err != nil {
		return overlay.Run{}, err
	}
	if a.Ino != s.ino {
		return s.Layer.Data(e, off)
	}
	if off == s.from && s.asked.Add(1) > 1 {
		select {
		case s.entered <- struct{}{}:
		default:
		}
		<-s.goOn
	}
	run, err := s.Layer.Data(e, off)
	if off < s.from {
		run.Len = min(run.Len, s.from-off)
	}
	return run, err
}

// TestLongCopyUpLeavesTheRestAlone: a program writes to a file whose copy-up takes as long as it likes, more than the
// kernel has requests and dirty memory for, while others read and write other files.
func TestLongCopyUpLeavesTheRestAlone(t *testing.T) {
	const pages, others, from = 600, 8, 64<<20 + 1001
	s := newStage(t, 1)
	big := filepath.Join(s.lowers[0], "big")
	makeSparse(t, big, pages<<20, 64<<20)
	for i := range 2 * others {
		write(t, filepath.Join(s.lowers[0], fmt.Sprint("other", i)), string(make([]byte, 1<<20)))
	}
	slow := &slowLayer{ino: stat(t, big).Ino, from: from, entered: make(chan struct{}, 1), goOn: make(chan struct{})}
	s.wrap = func(l overlay.Layer) overlay.Layer {
		slow.Layer = l
		return slow
	}
	s.mount()
	start := time.Now()
	if err := useOthers(s.mnt, 0, others); err != nil {
		t.Fatal(err)
	}
	usual := time.Since(start)
	wrote := make(chan error, 1)
	go func() { wrote <- scatter(filepath.Join(s.mnt, "big"), pages) }()
	select {
	case <-slow.entered:
	case err := <-wrote:
		t.Fatalf("the copy-up did not wait: %v", err)
	}
	rest := make(chan error, 1)
	start = time.Now()
	go func() { rest <- useOthers(s.mnt, others, 2*others) }()
	select {
	case err := <-rest:
		if err != nil {
			t.Error(err)
		}
		t.Logf("reads and writes elsewhere took %.1f times what they took without a copy-up", float64(time.Since(start))/float64(usual))
	case <-time.After(20 * time.Second):
		t.Error("reads and writes elsewhere wait for the copy-up")
		defer func() {
			if err := <-rest; err != nil {
				t.Error(err)
			}
		}()
	}
	close(slow.goOn)
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// makeSparse makes a file of the given size that has a little data at off.
func makeSparse(t *testing.T, path string, size, off int64) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = unix.Pwrite(fd, make([]byte, 64<<10), off)
	if err := errors.Join(err, unix.Ftruncate(fd, size), unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
}

// scatter writes whole pages so far apart that each is written back by itself.
func scatter(path string, pages int) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	page := make([]byte, 4096)
	for i := range pages {
		if _, err := unix.Pwrite(fd, page, int64(i)<<20); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
	}
	return errors.Join(unix.Fsync(fd), unix.Close(fd))
}

// useOthers does what any program does in a tree.
func useOthers(root string, from, to int) error {
	for i := from; i < to; i++ {
		if _, err := os.ReadFile(filepath.Join(root, fmt.Sprint("other", i))); err != nil { // #nosec G304 -- a test's own
			return err
		}
		fd, err := unix.Open(filepath.Join(root, fmt.Sprint("new", i)), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, make([]byte, 1<<20))
		if err := errors.Join(err, unix.Fsync(fd), unix.Close(fd)); err != nil {
			return err
		}
		if _, err := os.ReadDir(root); err != nil {
			return err
		}
	}
	return nil
}
