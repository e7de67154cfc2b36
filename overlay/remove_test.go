package overlay

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemoveAndMakeAgain: what is made where something of a lower layer was shows nothing of that, then and later.
func TestRemoveAndMakeAgain(t *testing.T) {
	r := newRig(t, 2)
	r.low(0, "d/top", "")
	r.low(1, "d/sub/bottom", "")
	r.low(1, "f", "old")
	r.open()
	d := r.id("d")
	r.want(r.u.Rmdir(RootID, "d"), unix.ENOTEMPTY)
	r.want(r.u.Unlink(RootID, "d"), unix.EISDIR)
	r.want(r.u.Rmdir(RootID, "f"), unix.ENOTDIR)
	r.unlink("d/top")
	r.unlink("d/sub/bottom")
	r.ok(r.u.Rmdir(d, "sub"))
	r.ok(r.u.Rmdir(RootID, "d"))
	r.unlink("f")
	var a Attr
	r.want(second(r.u.Mknod(d, "x", Cred{}, unix.S_IFREG, 0, &a)), unix.ENOENT)
	r.want(second(r.u.Lookup(d, "top", &a)), unix.ENOENT)
	r.ok(r.u.GetAttr(d, &a))
	if a.Nlink != 0 {
		t.Errorf("a removed directory has %d links", a.Nlink)
	}
	r.reopen()
	if names := r.list(""); len(names) != 0 {
		t.Errorf("the root holds %q", names)
	}
	r.mkdir("d")
	r.mkdir("f")
	for range 2 {
		if names := r.list("d"); len(names) != 0 {
			t.Errorf("the new directory holds %q", names)
		}
		if names := r.list("f"); len(names) != 0 {
			t.Errorf("the directory in a file's place holds %q", names)
		}
		r.reopen()
	}
}

// TestUnlinkedFileOfLowerLayer can be written by who holds it, and leaves nothing.
func TestUnlinkedFileOfLowerLayer(t *testing.T) {
	r := newRig(t, 1)
	r.low(0, "f", "data")
	r.open()
	id := r.id("f")
	r.unlink("f")
	r.ok(second(r.u.Write(id, []byte("DA"), 0, false)))
	got, err := r.readID(id)
	if got != "DAta" || err != nil {
		t.Errorf("it reads %q, %v", got, err)
	}
	r.write("f", "another")
	if got, _ := r.readID(id); got != "DAta" {
		t.Errorf("it reads %q once its name is another's", got)
	}
	r.close()
	if left, err := os.ReadDir(filepath.Join(r.work, "work")); err != nil || len(left) > 1 { // the whiteout
		t.Errorf("the work directory holds %v, %v", left, err)
	}
	r.open()
	r.reads("f", "another")
}

// TestTimesOfUnlinkedLowerFile: who tells the time again that a file without a name has had it copied up for nothing.
func TestTimesOfUnlinkedLowerFile(t *testing.T) {
	r := newRig(t, 1)
	r.low(0, "f", "data")
	r.open()
	id := r.id("f")
	var a Attr
	r.ok(r.u.GetAttr(id, &a))
	r.unlink("f")
	for _, c := range []struct {
		mtime unix.Timespec
		upper bool
	}{{a.Mtime.unix(), false}, {unix.Timespec{Sec: 1234, Nsec: 5}, true}, {unix.Timespec{Sec: 1234, Nsec: 5}, true}} {
		var now Attr
		r.ok(r.u.SetAttr(id, &SetAttr{Mtime: &c.mtime}, &now))
		if now.Mtime.unix() != c.mtime || now.Nlink != 0 || now.Size != 4 {
			t.Errorf("set to %v it has %+v", c.mtime, now)
		}
		if rec, _ := r.u.tab.get(id); rec.flags&flagUpper != 0 != c.upper {
			t.Errorf("set to %v: copied up is %v, want %v", c.mtime, !c.upper, c.upper)
		}
	}
}
