package fs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// posixSkips are tests of go-fuse's suite that ask for less than Linux gives.
var posixSkips = map[string]string{
	"FcntlFlockLocksFile": "wants two POSIX locks of one process to conflict, which they do on no local filesystem",
	"FdLeak":              "counts this process's descriptors, the server's among them, whose cache it takes for a leak",
}

func TestPosix(t *testing.T) {
	for name, f := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why := posixSkips[name]; why != "" {
				t.Skip(why)
			}
			s := newStage(t, 1)
			s.mount()
			f(t, s.mnt)
		})
	}
}

// TestPosixInLowerDirectory runs the suite below a directory that a lower layer has.
func TestPosixInLowerDirectory(t *testing.T) {
	for name, f := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why := posixSkips[name]; why != "" {
				t.Skip(why)
			}
			s := newStage(t, 2)
			write(t, filepath.Join(s.lowers[0], "d/other"), "other")
			write(t, filepath.Join(s.lowers[1], "d/more"), "more")
			s.mount()
			dir := filepath.Join(s.mnt, "d")
			for _, n := range []string{"other", "more"} {
				if err := os.Remove(filepath.Join(dir, n)); err != nil {
					t.Fatal(err)
				}
			}
			f(t, dir)
		})
	}
}
