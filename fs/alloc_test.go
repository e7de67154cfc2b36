package fs

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/overlay"
)

// TestAllocations: the requests that come most often make next to no work for the garbage collector.
func TestAllocations(t *testing.T) {
	base := t.TempDir()
	dir := func(name string) string {
		d := filepath.Join(base, name)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		return d
	}
	lower, upper, work := dir("lower"), dir("upper"), dir("work")
	for _, d := range []string{lower, upper} {
		for i := range 100 {
			name := filepath.Join(d, filepath.Base(d)+strconv.Itoa(i))
			if err := os.WriteFile(name, make([]byte, 8192), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	layers, err := OpenDirs([]string{lower})
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	u, err := overlay.New(overlay.Config{Lowers: layers, Upper: upper, Work: work, AdoptRoot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := newRaw(u, &Config{Log: log})
	var (
		root  = &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}
		entry fuse.EntryOut
		attr  fuse.AttrOut
		buf   = make([]byte, 4096)
		list  = make([]byte, 64<<10)
		want  = func(st fuse.Status) {
			if st != fuse.OK {
				t.Fatal(st)
			}
		}
	)
	for _, name := range []string{"lower7", "upper7"} {
		want(r.Lookup(nil, root, name, &entry))
		get := &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: entry.NodeId}}
		read := &fuse.ReadIn{InHeader: get.InHeader, Size: 4096}
		write := &fuse.WriteIn{InHeader: get.InHeader, WriteFlags: fuse.WRITE_CACHE}
		for _, c := range []struct {
			op     string
			most   float64
			upper  bool // of files in the upper layer alone
			answer func()
		}{
			// Of a directory layer or the upper layer the name is copied by which the inode is found.
			{"LOOKUP", 1, false, func() { want(r.Lookup(nil, root, name, &entry)); r.Forget(entry.NodeId, 1) }},
			{"LOOKUP of a missing name", 0, false, func() { want(r.Lookup(nil, root, "missing", &entry)) }},
			{"GETATTR", 1, false, func() { want(r.GetAttr(nil, get, &attr)) }},
			{"READ", 1, false, func() { // the result that go-fuse makes
				res, st := r.Read(nil, read, buf)
				want(st)
				res.Done()
			}},
			{"WRITE", 0, true, func() {
				_, st := r.Write(nil, write, buf)
				want(st)
			}},
		} {
			if c.upper && name != "upper7" {
				continue
			}
			if n := testing.AllocsPerRun(100, c.answer); n > c.most {
				t.Errorf("%s of %s makes %v allocations, want at most %v", c.op, name, n, c.most)
			}
		}
	}
	const least = 200 * int(unsafe.Sizeof(fuse.EntryOut{})) // what the listing has at least, bytes
	n := testing.AllocsPerRun(100, func() {
		out := fuse.NewDirEntryList(list, 0)
		want(r.ReadDirPlus(nil, &fuse.ReadIn{InHeader: *root}, out))
		if len(out.Bytes()) < least {
			t.Fatalf("the listing has %d bytes", len(out.Bytes()))
		}
	})
	if n > 150 {
		t.Errorf("READDIRPLUS of 200 names, half of them in a directory layer, makes %v allocations, want at most 150", n)
	}
}
