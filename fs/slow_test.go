package fs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// slowLayer is a layer in which reading the data of one file waits.
type slowLayer struct {
	overlay.Layer
	ino     uint64
	entered chan struct{} // takes one for the first read that waits
	goOn    chan struct{} // closed to let them go on
}

func (s *slowLayer) Data(e overlay.Entry, off int64) (overlay.Run, error) {
	var a overlay.Attr
	if err := s.Attr(e, &a); err != nil {
		return overlay.Run{}, err
	}
	if a.Ino == s.ino {
		select {
		case s.entered <- struct{}{}:
		default:
		}
		<-s.goOn
	}
	return s.Layer.Data(e, off)
}

// TestLongCopyUpLeavesTheRestAlone: a program writes to a file whose copy-up takes as long as it likes, while others read
// and write other files.
func TestLongCopyUpLeavesTheRestAlone(t *testing.T) {
	const pages = 16
	s := newStage(t, 1)
	big := filepath.Join(s.lowers[0], "big")
	write(t, big, "")
	if err := os.Truncate(big, pages<<20); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		write(t, filepath.Join(s.lowers[0], fmt.Sprint("other", i)), string(make([]byte, 1<<20)))
	}
	slow := &slowLayer{ino: stat(t, big).Ino, entered: make(chan struct{}, 1), goOn: make(chan struct{})}
	s.wrap = func(l overlay.Layer) overlay.Layer {
		slow.Layer = l
		return slow
	}
	s.mount()
	wrote := make(chan error, 1)
	go func() { wrote <- scatter(filepath.Join(s.mnt, "big"), pages) }()
	<-slow.entered
	rest := make(chan error, 1)
	go func() { rest <- useOthers(s.mnt) }()
	select {
	case err := <-rest:
		if err != nil {
			t.Error(err)
		}
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
func useOthers(root string) error {
	for i := range 8 {
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
