package fs_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestListingWhileOthersChange: each name that is there all the time is listed once, whatever comes and goes beside it,
// in a directory that is in two layers.
func TestListingWhileOthersChange(t *testing.T) {
	const stay = 50_000 // in each of lower and upper layer
	s := newStage(t, 1)
	for _, d := range []string{filepath.Join(s.lowers[0], "d"), filepath.Join(s.upper, "d")} {
		if err := os.Mkdir(d, 0o755); err != nil { // #nosec G301 -- a test's own
			t.Fatal(err)
		}
		for i := range stay {
			if err := unix.Mknod(fmt.Sprintf("%s/%s-%d", d, filepath.Base(filepath.Dir(d)), i), unix.S_IFREG|0o600, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.mount()
	dir := filepath.Join(s.mnt, "d")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			if err := comeAndGo(dir, g, stop); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		if err := countNames(dir, 2*stay); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if err := countNames(dir, 2*stay); err != nil {
		t.Error(err)
	}
}

// comeAndGo adds, renames and removes names, and writes to files that stay, until stop is closed.
func comeAndGo(dir string, g int, stop chan struct{}) error {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		name, other := fmt.Sprintf("%s/x%d-%d", dir, g, i), fmt.Sprintf("%s/y%d-%d", dir, g, i)
		err := errors.Join(
			unix.Mknod(name, unix.S_IFREG|0o600, 0), unix.Rename(name, other),
			unix.Chmod(fmt.Sprintf("%s/l0-%d", dir, i), 0o644), unix.Unlink(other),
		)
		if err != nil {
			return err
		}
	}
}

// countNames lists a directory and looks for want names that stay, each once.
func countNames(dir string, want int) error {
	f, err := os.Open(dir) // #nosec G304 -- a test's own
	if err != nil {
		return err
	}
	defer f.Close()
	seen := map[string]bool{}
	for {
		names, err := f.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if n[0] == 'x' || n[0] == 'y' {
				continue
			}
			if seen[n] {
				return fmt.Errorf("%s is listed twice", n)
			}
			seen[n] = true
		}
	}
	if len(seen) != want {
		return fmt.Errorf("%d of the names that stay are listed, want %d", len(seen), want)
	}
	return nil
}
