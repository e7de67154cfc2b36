package overlay

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type panicky struct{ Layer }

func (panicky) Data(Entry, int64) (Run, error) { panic("damaged") }

// TestPanicInCopyUp: who comes after a copy-up that panicked does not wait for it.
func TestPanicInCopyUp(t *testing.T) {
	r := newRig(t, 1)
	r.low(0, "a", "data")
	r.wrap = func(l Layer) Layer { return panicky{l} }
	r.open()
	id := r.id("a")
	for range 2 {
		done := make(chan any)
		go func() {
			defer func() { done <- recover() }()
			_, _ = r.u.Write(id, []byte("x"), 0, false) // it panics
		}()
		select {
		case p := <-done:
			if p == nil {
				t.Error("no panic")
			}
		case <-time.After(time.Minute):
			t.Fatal("the copy-up never ends")
		}
	}
}

// TestDataOnFullDisk: a file whose attributes were changed and whose data do not fit keeps both.
func TestDataOnFullDisk(t *testing.T) {
	r := newRigIn(t, smallFS(t, "size=256k,nr_inodes=100"), 1)
	content := strings.Repeat("x", 600_000)
	p := r.low(0, "a", content)
	caps := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // struct vfs_cap_data, revision 2
	r.ok(unix.Setxattr(p, "security.capability", caps, 0))
	r.ok(os.Chtimes(p, epoch, epoch))
	r.open()
	r.chmod("a", 0o4755)
	before := r.attr("a")
	if before.Mtime.Sec != epoch.Unix() {
		t.Errorf("chmod made the file's time %d, was %d", before.Mtime.Sec, epoch.Unix())
	}
	r.want(second(r.u.Write(r.id("a"), []byte("z"), 0, false)), unix.ENOSPC)
	for range 2 {
		after := r.attr("a")
		if before.Mtime != after.Mtime || before.Mode != after.Mode || before.Size != after.Size {
			t.Errorf("was %+v, is %+v", before, after)
		}
		buf := make([]byte, 100)
		n, err := r.u.GetXattr(r.id("a"), "security.capability", buf)
		if err != nil || string(buf[:n]) != string(caps) {
			t.Errorf("capabilities are %q, %v", buf[:max(n, 0)], err)
		}
		r.reads("a", content)
		r.reopen()
	}
}

// TestModeOfSymlink: kernels before 6.6 send it, and chmod(2) would follow the symlink to the host's file.
func TestModeOfSymlink(t *testing.T) {
	r := newRig(t, 1).open()
	host := t.TempDir()
	r.ok(os.Chmod(host, 0o700)) // #nosec G302 -- a directory
	var a Attr
	id, err := r.u.Symlink(RootID, "l", host, Cred{}, &a)
	r.ok(err)
	r.held = append(r.held, id)
	mode := uint32(0o777)
	r.want(r.u.SetAttr(id, &SetAttr{Mode: &mode}, &a), unix.EOPNOTSUPP)
	st, err := os.Stat(host)
	r.ok(err)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("the host's directory has mode %o", st.Mode().Perm())
	}
}
