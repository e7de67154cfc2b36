package fs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/fs"
	"github.com/plyfs/plyfs/overlay"
)

// TestReadAhead has a large file read ahead in large requests, and the largest that there are, answered without a word.
func TestReadAhead(t *testing.T) {
	s := newStage(t, 1)
	want := make([]byte, 4<<20)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(want) // it never fails
	if err := os.WriteFile(filepath.Join(s.lowers[0], "f"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	for _, c := range []struct{ option, kib int }{{0, 512}, {1 << 20, 1024}} {
		l, err := overlay.NewDirLayer(s.lowers[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		cfg := fs.Config{Mountpoint: s.mnt, AllowOther: true, Lowers: []overlay.Layer{l}, Log: logrus.New()}
		cfg.Log.SetOutput(&said)
		cfg.Options.MaxReadAhead = c.option
		if s.server, err = fs.Mount(cfg); err != nil {
			t.Fatal(err)
		}
		s.settlePoll()
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, s.mnt, 0, unix.STATX_TYPE, &st); err != nil {
			t.Fatal(err)
		}
		kib, err := os.ReadFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", st.Dev_major, st.Dev_minor))
		if err != nil {
			t.Log(err)
		} else if got := strings.TrimSpace(string(kib)); got != fmt.Sprint(c.kib) {
			t.Errorf("the kernel reads %s KiB ahead, want %d", got, c.kib)
		}
		for _, flags := range []int{unix.O_RDONLY, unix.O_RDONLY | unix.O_DIRECT} {
			fd, err := unix.Open(filepath.Join(s.mnt, "f"), flags|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(want)+8192)
			n := 0
			for n < len(want) {
				c, err := unix.Pread(fd, got[n:min(n+1<<20, len(got))], int64(n))
				if err != nil || c == 0 {
					t.Fatalf("read at %d: %d, %v", n, c, err)
				}
				n += c
			}
			if !bytes.Equal(got[:n], want) {
				t.Errorf("with flags %#x other bytes are read", flags)
			}
			if err := unix.Close(fd); err != nil {
				t.Error(err)
			}
		}
		s.unmount()
	}
	if said.Len() > 0 {
		line, _, _ := strings.Cut(said.String(), "\n")
		t.Errorf("the server says %q", line)
	}
}
