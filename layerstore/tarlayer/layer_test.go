package tarlayer

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/overlay"
)

// manyFiles is an archive of n files in directories of 100, each after its directory.
func manyFiles(t testing.TB, n int) []byte {
	t.Helper()
	var ents []ent
	for i := range n {
		if i%100 == 0 {
			ents = append(ents, ent{name: fmt.Sprintf("usr/share/d%d", i/100), typ: dirT})
		}
		ents = append(ents, ent{name: fmt.Sprintf("usr/share/d%d/file-%d", i/100, i), data: "x"})
	}
	return makeTar(t, ents...)
}

// TestListing reads a large directory in batches of every size.
func TestListing(t *testing.T) {
	var ents []ent
	want := map[string]bool{}
	for i := range 500 {
		name := fmt.Sprintf("n%d", i*7919)
		want[name] = true
		ents = append(ents, ent{name: "d/" + name})
	}
	l := open(t, makeTar(t, ents...))
	dir := find(t, l, "d").Entry
	for _, batch := range []int{1, 2, 3, 7, 499, 500, 501} {
		all, err := list(l, dir, batch)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(all, func(a, b overlay.DirEntry) int { return cmp.Compare(a.Cookie, b.Cookie) }) {
			t.Errorf("batches of %d: not sorted by cookie", batch)
		}
		got := map[string]bool{}
		for _, d := range all {
			got[d.Name] = true
			if d.Cookie != overlay.Cookie(d.Name) {
				t.Errorf("%s has cookie %d", d.Name, d.Cookie)
			}
		}
		if len(all) != len(want) || len(got) != len(want) {
			t.Errorf("batches of %d: %d names, %d distinct, of %d", batch, len(all), len(got), len(want))
		}
	}
	if n, err := l.ReadDir(dir, ^uint64(0), make([]overlay.DirEntry, 1)); n != 0 || err != nil {
		t.Errorf("after the last cookie: %d, %v", n, err)
	}
}

// TestChunks builds more inodes than a chunk holds, with directories whose records change after their chunk is written.
func TestChunks(t *testing.T) {
	var ents []ent
	for i := range 3000 {
		ents = append(ents, ent{name: fmt.Sprintf("d%d/f", i), data: fmt.Sprint(i)})
	}
	for i := range 3000 {
		ents = append(ents, ent{name: fmt.Sprintf("d%d", i), typ: dirT, mode: int64(i%0o777 + 1), uid: i})
	}
	for i := range 1000 {
		ents = append(ents, ent{name: fmt.Sprintf("d%d", i*3), data: "file"}) // drops what lies below
	}
	l := open(t, makeTar(t, ents...))
	if want := 1 + 2*3000 - 1000; l.Entries() != want {
		t.Errorf("%d entries, want %d", l.Entries(), want)
	}
	for i := range 3000 {
		it := find(t, l, fmt.Sprintf("d%d", i))
		var a overlay.Attr
		if err := l.Attr(it.Entry, &a); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if a.Mode != syscall.S_IFREG|0o644 {
				t.Fatalf("d%d: %+v", i, a)
			}
			continue
		}
		if a.Mode != syscall.S_IFDIR|uint32(i%0o777+1) || a.UID != uint32(i) || a.Nlink != 2 {
			t.Fatalf("d%d: %+v", i, a)
		}
		f, err := l.Lookup(it.Entry, "f")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := content(l, f.Entry); err != nil || string(b) != fmt.Sprint(i) {
			t.Fatalf("d%d/f: %q, %v", i, b, err)
		}
	}
}

// TestEntryNumbers holds the rule by which inodes are numbered, which is part of the format.
func TestEntryNumbers(t *testing.T) {
	l := open(t, makeTar(t,
		ent{name: "a/b/f"}, ent{name: "g"}, ent{name: "h", typ: lnkT, link: "g"}, ent{name: "a", typ: dirT}, ent{name: "g"}, ent{name: ".wh.x"},
		ent{name: "i"},
	))
	for name, want := range map[string]overlay.Entry{"a": 1, "a/b": 2, "a/b/f": 3, "h": 4, "g": 5, "i": 6} {
		if it := find(t, l, name); it.Entry != want || it.Ino != uint64(want)+1 {
			t.Errorf("%s is entry %d, inode %d, want %d", name, it.Entry, it.Ino, want)
		}
	}
}

// TestErrnos asks for what is not there.
func TestErrnos(t *testing.T) {
	l := open(t, makeTar(t, ent{name: "old"}, ent{name: "old"}, ent{name: "d/f", data: "abc"}, ent{name: "s", typ: symT, link: "t"}))
	file, dir, sym := find(t, l, "d/f").Entry, find(t, l, "d").Entry, find(t, l, "s").Entry
	if file != 4 {
		t.Fatalf("d/f is entry %d", file)
	}
	check := func(what string, err error, want syscall.Errno) {
		t.Helper()
		if !isErrno(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	for _, name := range []string{"", ".", "..", "D", "d/f", "\x00", strings.Repeat("x", 5000)} {
		_, err := l.Lookup(0, name)
		check("lookup of "+name, err, syscall.ENOENT)
	}
	_, err := l.Lookup(file, "x")
	check("lookup in a file", err, syscall.ENOTDIR)
	_, err = l.ReadDir(sym, 0, nil)
	check("listing of a symlink", err, syscall.ENOTDIR)
	_, err = l.Readlink(file)
	check("target of a file", err, syscall.EINVAL)
	_, err = l.Xattr(file, "user.x")
	check("xattr", err, syscall.ENODATA)
	_, err = l.Data(dir, 0)
	check("data of a directory", err, syscall.EISDIR)
	_, err = l.Data(sym, 0)
	check("data of a symlink", err, syscall.EINVAL)
	_, err = l.Data(file, -1)
	check("data at -1", err, syscall.EINVAL)
	for _, e := range []overlay.Entry{1, 7, 255, 256, 1 << 32, 1 << 48, ^overlay.Entry(0)} {
		check(fmt.Sprint("entry ", e), l.Attr(e, new(overlay.Attr)), syscall.ESTALE)
	}
	for _, off := range []int64{3, 4, 1 << 62} {
		if r, err := l.Data(file, off); err != nil || r.Len != 0 {
			t.Errorf("data at %d: %+v, %v", off, r, err)
		}
	}
	if r, err := l.Data(file, 1); err != nil || r.Len != 2 || r.FD < 0 {
		t.Errorf("data at 1: %+v, %v", r, err)
	}
}

// TestSparse reads files with holes that GNU tar stored in each of its formats.
func TestSparse(t *testing.T) {
	want := make([]byte, 300000)
	for _, i := range []int{0, 40000, 80000, 120000, 160000, 200000, 290000} {
		want[i] = 'x'
	}
	for _, name := range []string{"sparse_gnu", "sparse_00", "sparse_01", "sparse_10"} {
		l := open(t, seeds(t)[name])
		e := find(t, l, "sp").Entry
		b, err := content(l, e)
		if err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %d bytes, wrong ones or %v", name, len(b), err)
		}
		var a overlay.Attr
		if err := l.Attr(e, &a); err != nil || a.Size != 300000 || a.Blocks > 100 {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
		var data, holes int
		for off := int64(0); off < 300000; {
			r, err := l.Data(e, off)
			if err != nil {
				t.Fatal(err)
			}
			if r.FD < 0 {
				holes++
			} else {
				data++
			}
			mid, err := l.Data(e, off+r.Len/2)
			if err != nil || mid.Len != r.Len-r.Len/2 || (mid.FD < 0) != (r.FD < 0) {
				t.Errorf("%s: %+v in the middle of %+v", name, mid, r)
			}
			off += r.Len
		}
		if data != 7 || holes < 6 {
			t.Errorf("%s: %d runs of data, %d holes", name, data, holes)
		}
	}
}

// TestNoAllocations holds that what a mount asks for all the time costs no memory.
func TestNoAllocations(t *testing.T) {
	l := open(t, manyFiles(t, 300))
	sparse := open(t, seeds(t)["sparse_10"])
	dir, sp := find(t, l, "usr/share/d1").Entry, find(t, sparse, "sp").Entry
	file := find(t, l, "usr/share/d1/file-150").Entry
	buf := make([]overlay.DirEntry, 64)
	var a overlay.Attr
	var bad error
	note := func(err error) { bad = cmp.Or(bad, err) }
	for name, f := range map[string]func(){
		"Lookup":  func() { _, err := l.Lookup(dir, "file-150"); note(err) },
		"Attr":    func() { note(l.Attr(file, &a)) },
		"ReadDir": func() { _, err := l.ReadDir(dir, 0, buf); note(err) },
		"Data":    func() { _, err := l.Data(file, 0); note(err) },
		"holes":   func() { _, err := sparse.Data(sp, 50000); note(err) },
		"missing": func() { _, _ = l.Lookup(dir, "missing") },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	if bad != nil {
		t.Error(bad)
	}
}

// TestUnionNoAllocations holds the same of a union of such layers.
func TestUnionNoAllocations(t *testing.T) {
	// Who opened the layers closes them, and the union holds nothing else.
	u, err := overlay.New(overlay.Config{Lowers: []overlay.Layer{open(t, manyFiles(t, 200)), open(t, manyFiles(t, 300))}})
	if err != nil {
		t.Fatal(err)
	}
	var a overlay.Attr
	var bad error
	note := func(err error) { bad = cmp.Or(bad, err) }
	dir := overlay.RootID
	for _, name := range []string{"usr", "share", "d1"} {
		if dir, err = u.Lookup(dir, name, &a); err != nil {
			t.Fatal(err)
		}
	}
	file, err := u.Lookup(dir, "file-150", &a)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(){
		"Lookup": func() {
			id, err := u.Lookup(dir, "file-151", &a)
			note(err)
			u.Forget(id, 1)
		},
		"missing": func() { _, _ = u.Lookup(dir, "missing", &a) },
		"GetAttr": func() { note(u.GetAttr(file, &a)); note(u.GetAttr(dir, &a)) },
		"Data":    func() { _, err := u.Data(file, 0); note(err) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	if bad != nil {
		t.Error(bad)
	}
}

func openPair(t *testing.T, idx []byte, tarSize int64) (*Layer, error) {
	t.Helper()
	i, f := memfd(t, idx), memfd(t, nil)
	defer i.Close()
	if err := f.Truncate(tarSize); err != nil {
		t.Fatal(err)
	}
	l, err := Open(i, f, 1)
	if err != nil {
		f.Close()
		return nil, err
	}
	t.Cleanup(func() { l.Close() })
	return l, nil
}

// TestOpen gives Open indexes that are not the tar's, and damaged ones.
func TestOpen(t *testing.T) {
	archive := manyFiles(t, 300)
	f, _, err := build(t, archive, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	good, size := contents(t, f), int64(len(archive))
	l, err := openPair(t, good, size)
	if err != nil || l.Verify() != nil {
		t.Fatal(err, l.Verify())
	}
	if _, err := openPair(t, good, size+512); !errors.Is(err, ErrStale) {
		t.Errorf("another tar: %v", err)
	}
	old := bytes.Clone(good)
	old[8]++
	if _, err := openPair(t, old, size); !errors.Is(err, ErrStale) {
		t.Errorf("another version: %v", err)
	}
	for _, n := range []int{0, 7, headerSize - 1, headerSize, len(good) / 2, len(good) - 1} {
		if _, err := openPair(t, good[:n], size); !errors.Is(err, overlay.ErrCorrupt) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	for i := 0; i < len(good); i += max(1, len(good)/2000) {
		b := bytes.Clone(good)
		b[i] ^= 0x10
		l, err := openPair(t, b, size)
		if err != nil {
			if !errors.Is(err, overlay.ErrCorrupt) && !errors.Is(err, ErrStale) {
				t.Errorf("bit changed at %d: %v", i, err)
			}
			continue
		}
		if err := l.Verify(); !errors.Is(err, overlay.ErrCorrupt) {
			t.Errorf("bit changed at %d: %v", i, err)
		}
		if _, err := walkAll(l); err != nil && !errors.Is(err, overlay.ErrCorrupt) && !isErrno(err, syscall.ENOENT) && !isErrno(err, syscall.ESTALE) {
			t.Errorf("bit changed at %d: walk: %v", i, err)
		}
	}
}

// TestClose makes sure that a layer owns its tar, and not its index.
func TestClose(t *testing.T) {
	archive := makeTar(t, ent{name: "a", data: "x"})
	idx, _, err := build(t, archive, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "tar")
	if err := os.WriteFile(name, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(idx, f, 42)
	if err != nil {
		t.Fatal(err)
	}
	if l.ID() != 42 {
		t.Error(l.ID())
	}
	idx.Close()
	if b, err := content(l, find(t, l, "a").Entry); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the tar is still open: %v", err)
	}
}
