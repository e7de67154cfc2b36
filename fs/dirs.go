package fs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// ErrNested says that upper and work directory lie one within the other.
var ErrNested = errors.New("upper and work directory must not contain each other")

// Of the descriptors that a process may have, directories that are layers share half, and the upper layer may keep a
// quarter for later use.
const (
	leastLayerFDs = 8
	mostLayerFDs  = 256
	mostUpperFDs  = 1024
)

// upperFDs is how many descriptors of the upper layer are kept.
func upperFDs() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return mostUpperFDs
	}
	return int(max(min(limit.Cur/4, mostUpperFDs), 1)) // #nosec G115 -- bounded
}

// OpenDirs opens directories as layers: all or none.
func OpenDirs(paths []string) ([]overlay.Layer, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	share := min(limit.Cur, 1<<20) / 2 / uint64(len(paths)+1)
	fds := int(min(max(share, leastLayerFDs), mostLayerFDs)) // #nosec G115 -- bounded
	layers := make([]overlay.Layer, 0, len(paths))
	for _, p := range paths {
		l, err := overlay.NewDirLayer(p, fds)
		if err != nil {
			return nil, errors.Join(err, closeAll(layers))
		}
		layers = append(layers, l)
	}
	return layers, nil
}

// holdTimeout is how long a server that has been unmounted may take to let go of its upper layer.
const holdTimeout = 10 * time.Second

// HoldUpper keeps other servers from an upper and work directory until the Closer is closed. Two of them would remove
// each other's unfinished work. It waits for one that is about to end, and returns ErrBusy while one goes on, ErrNested
// when the directories contain each other.
func HoldUpper(upper, work string) (io.Closer, error) {
	if err := checkSeparate(upper, work); err != nil {
		return nil, err
	}
	var held holds
	for _, dir := range []string{upper, work} {
		f, err := overlay.OpenApart(dir)
		if err == nil {
			held = append(held, f)
			err = lockDir(f)
		}
		if err != nil {
			return nil, errors.Join(err, held.Close())
		}
	}
	return held, nil
}

type holds []*os.File

// Close gives the directories up.
func (h holds) Close() error {
	var err error
	for _, f := range h {
		err = errors.Join(err, f.Close())
	}
	return err
}

func lockDir(f *os.File) error {
	end := time.Now().Add(holdTimeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) // #nosec G115 -- a descriptor
		switch {
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil // held, or on a filesystem that knows no locks of directories
		case time.Now().After(end):
			return fmt.Errorf("upper or work directory %s: %w by another plyfs mount, or by programs that still use one that was detached", f.Name(), ErrBusy)
		}
		time.Sleep(pause)
	}
}

func checkSeparate(upper, work string) error {
	var real [2]string
	for i, p := range []string{upper, work} {
		abs, err := filepath.Abs(p)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			return fmt.Errorf("%s directory: %w", []string{"upper", "work"}[i], err)
		}
		real[i] = abs
	}
	within := func(a, b string) bool {
		rel, err := filepath.Rel(b, a)
		return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
	}
	if within(real[0], real[1]) || within(real[1], real[0]) {
		return fmt.Errorf("%w: %s, %s", ErrNested, upper, work)
	}
	return nil
}
