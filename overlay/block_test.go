package overlay

import (
	"testing"

	"golang.org/x/sys/unix"
)

// slow is a layer in which reading the data of one file waits.
type slow struct {
	Layer
	ino     uint64
	entered chan struct{} // takes one for each read that waits
	goOn    chan struct{} // closed to let them go on
}

func (s slow) Data(e Entry, off int64) (Run, error) {
	var a Attr
	if err := s.Attr(e, &a); err != nil {
		return Run{}, err
	}
	if a.Ino == s.ino {
		s.entered <- struct{}{}
		<-s.goOn
	}
	return s.Layer.Data(e, off)
}

// TestCopyUpBlocksItsFileAlone: while the data of one file come up, for as long as that takes, all else goes on.
func TestCopyUpBlocksItsFileAlone(t *testing.T) {
	r := newRig(t, 1)
	for _, n := range []string{"d/big", "d/other", "d/third", "d/s/deep", "e/f"} {
		r.low(0, n, n)
	}
	var st unix.Stat_t
	r.ok(unix.Lstat(r.lowers[0]+"/d/big", &st))
	s := slow{ino: st.Ino, entered: make(chan struct{}, 16), goOn: make(chan struct{})}
	r.wrap = func(l Layer) Layer {
		s.Layer = l
		return s
	}
	r.open()
	big := r.id("d/big")
	done := make(chan error)
	go func() { done <- second(r.u.Write(big, []byte("BIG"), 0, false)) }()
	<-s.entered
	r.reads("d/other", "d/other")
	r.write("d/other", "new")
	r.write("d/made", "made")
	r.mkdir("d/dir")
	r.ok(r.rename("d/other", "d/moved", 0))
	r.ok(r.rename("d/third", "e/third", 0))
	r.unlink("d/s/deep")
	r.chmod("d", 0o700)
	r.link("d/moved", "e/link")
	if n := len(r.list("d")); n != 5 {
		t.Errorf("%d names are listed, want 5", n)
	}
	if a := r.attr("d/big"); a.Size != 5 {
		t.Errorf("its size is %d, want 5", a.Size)
	}
	r.ok(r.rename("d", "e/d", 0))
	close(s.goOn)
	r.ok(<-done)
	r.reads("e/d/big", "BIGig")
	r.reopen()
	r.reads("e/d/big", "BIGig")
}
