package tarlayer

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/overlay"
	"golang.org/x/sys/unix"
)

func memfd(t testing.TB, b []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f
}

// seeds returns the archives of testdata/seeds, by file name: some made by GNU tar, some by Python's tarfile.
func seeds(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("testdata/seeds/*.tar.gz")
	if err != nil || len(names) == 0 {
		t.Fatal("no seeds", err)
	}
	m := make(map[string][]byte)
	for _, name := range names {
		z, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := gzip.NewReader(bytes.NewReader(z))
		if err != nil {
			t.Fatal(err)
		}
		if m[strings.TrimSuffix(filepath.Base(name), ".tar.gz")], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// repairTar makes the checksums of what look like header blocks right, so that mutations reach the parser.
func repairTar(b []byte) []byte {
	b = bytes.Clone(b)
	for i := 0; i+blockSize <= len(b); i += blockSize {
		if h := b[i : i+blockSize]; string(h[257:262]) == "ustar" {
			copy(h[148:156], "        ")
			sum := 0
			for _, c := range h {
				sum += int(c)
			}
			copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
		}
	}
	return b
}

// FuzzBuild gives Build any bytes: it must fail, or make an index that passes Verify and a walk without an error, and
// the same one each time.
func FuzzBuild(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	lim := Limits{MaxEntries: 5000, MaxExtents: 1000, MaxHeader: 64 << 10, MaxSize: 1 << 24}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, archive := range [][]byte{raw, repairTar(raw)} {
			idx, again := memfd(t, nil), memfd(t, []byte("an old index"))
			defer idx.Close()
			defer again.Close()
			st, err := Build(bytes.NewReader(archive), idx, lim)
			if err != nil {
				if !errors.Is(err, ErrArchive) && !errors.Is(err, ErrTooLarge) {
					t.Errorf("%v is neither ErrArchive nor ErrTooLarge", err)
				}
				continue
			}
			if _, err := Build(bytes.NewReader(archive), again, lim); err != nil {
				t.Fatal(err)
			}
			if a, b := contents(t, idx), contents(t, again); !bytes.Equal(a, b) {
				t.Fatal("two builds of one archive differ")
			}
			l, err := Open(idx, memfd(t, archive), 1)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Verify(); err != nil {
				t.Error(err)
			}
			seen, err := walkAll(l)
			if err != nil {
				t.Error(err)
			}
			if seen > st.Entries+5000 {
				t.Errorf("walked over %d names of %d entries", seen, st.Entries)
			}
			l.Close()
		}
	})
}

func contents(t testing.TB, f *os.File) []byte {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// repairIndex makes the header's checksum and size right, so that mutations reach what lies behind them.
func repairIndex(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) >= headerSize {
		le.PutUint64(b[32:], uint64(len(b)))
		le.PutUint32(b[12:], 0)
		le.PutUint32(b[16:], crc32.Checksum(b[headerSize:], castagnoli))
		le.PutUint32(b[12:], crc32.Checksum(b[:headerSize], castagnoli))
	}
	return b
}

// FuzzOpen gives Open any bytes as an index: no call may panic, a walk must end, and one that Verify finds whole must
// be walked without an error.
func FuzzOpen(f *testing.F) {
	for _, b := range seeds(f) {
		idx := memfd(f, nil)
		if _, err := Build(bytes.NewReader(b), idx, Limits{}); err == nil {
			f.Add(contents(f, idx))
		}
		idx.Close()
	}
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, b := range [][]byte{raw, repairIndex(raw)} {
			idx, tarFile := memfd(t, b), memfd(t, nil)
			if len(b) >= headerSize {
				if err := tarFile.Truncate(int64(le.Uint64(b[24:]) % (1 << 40))); err != nil {
					t.Fatal(err)
				}
			}
			l, err := Open(idx, tarFile, 1)
			idx.Close()
			if err != nil {
				if !errors.Is(err, ErrStale) && !errors.Is(err, overlay.ErrCorrupt) {
					t.Errorf("%v is neither ErrStale nor ErrCorrupt", err)
				}
				tarFile.Close()
				continue
			}
			verr := l.Verify()
			if verr != nil && !errors.Is(verr, overlay.ErrCorrupt) {
				t.Errorf("%v is not ErrCorrupt", verr)
			}
			_, err = walkAll(l)
			if err != nil && verr == nil {
				t.Errorf("verified, but: %v", err)
			}
			l.Close()
		}
	})
}

// walkAll calls every method for everything that can be reached, going on after errors, and returns how many names it
// saw and the first error.
func walkAll(l *Layer) (names int, first error) {
	note := func(err error) bool {
		if err != nil && first == nil {
			first = err
		}
		return err == nil
	}
	dirs := []overlay.Entry{overlay.RootEntry}
	note(visit(l, overlay.RootEntry))
	for i := 0; i < len(dirs); i++ {
		if i > int(l.head.inodes) {
			panic("the walk does not end")
		}
		items, err := list(l, dirs[i], 5)
		note(err)
		for _, d := range items {
			names++
			it, err := l.Lookup(dirs[i], d.Name)
			if note(err) && it != d.Item {
				note(fmt.Errorf("%q: lookup and listing differ", d.Name))
			}
			if d.IsWhiteout() {
				continue
			}
			note(visit(l, d.Entry))
			if d.Mode == unix.S_IFDIR {
				dirs = append(dirs, d.Entry)
			}
		}
	}
	return names, first
}

// visit calls every method that asks about one entry.
func visit(l *Layer, e overlay.Entry) error {
	var a overlay.Attr
	if err := l.Attr(e, &a); err != nil {
		return err
	}
	l.Implied(e)
	names, err := l.Xattrs(e)
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, err := l.Xattr(e, n); err != nil {
			return err
		}
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		to, err := l.Readlink(e)
		if err == nil && uint64(len(to)) != a.Size {
			err = errors.New("a symlink has a wrong size")
		}
		return err
	case unix.S_IFREG:
		off := int64(0)
		for range 2000 {
			r, err := l.Data(e, off)
			if err != nil {
				return err
			}
			if r.Len == 0 {
				break
			}
			if r.Len < 0 || r.FD >= 0 && (r.Pos < 0 || uint64(r.Pos+r.Len) > l.head.tarSize) {
				panic("a run outside of the tar")
			}
			off += r.Len
		}
		return nil
	}
	if _, err := l.Data(e, 0); err == nil {
		return errors.New("data of what is no file")
	}
	return nil
}
