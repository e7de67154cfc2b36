package tarlayer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plyfs/plyfs/overlay"
	"golang.org/x/sys/unix"
)

// ent is an entry of a test archive.
type ent struct {
	name, link, data string
	typ              byte // '0' when 0
	mode             int64
	uid, gid         int
	mtime            time.Time
	pax              map[string]string
	major, minor     int64
}

// makeTar writes an archive with archive/tar.
func makeTar(t testing.TB, ents ...ent) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range ents {
		if e.typ == 0 {
			e.typ = typeReg
		}
		if e.mode == 0 {
			e.mode = 0o644
		}
		if e.mtime.IsZero() {
			e.mtime = time.Unix(1000, 0)
		}
		h := &tar.Header{
			Name: e.name, Linkname: e.link, Typeflag: e.typ, Mode: e.mode, Uid: e.uid, Gid: e.gid, Size: int64(len(e.data)),
			ModTime: e.mtime, PAXRecords: e.pax, Devmajor: e.major, Devminor: e.minor, Format: tar.FormatPAX,
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// build makes the index of an archive.
func build(t testing.TB, archive []byte, lim Limits) (*os.File, Stats, error) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "index")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := Build(bytes.NewReader(archive), f, lim)
	return f, st, err
}

// open builds, opens and verifies a layer.
func open(t testing.TB, archive []byte) *Layer {
	t.Helper()
	idx, st, err := build(t, archive, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if st.Size != int64(len(archive)) {
		t.Fatalf("read %d bytes of %d", st.Size, len(archive))
	}
	name := filepath.Join(t.TempDir(), "tar")
	if err := os.WriteFile(name, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(idx, f, 7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.Verify(); err != nil {
		t.Fatal(err)
	}
	if l.Entries() != st.Entries || l.FilesSize() != st.FilesSize {
		t.Fatalf("index counts %d entries and %d bytes, Build %+v", l.Entries(), l.FilesSize(), st)
	}
	return l
}

// mustFail builds an archive that is to be refused with a one-line error that says all of want.
func mustFail(t *testing.T, archive []byte, lim Limits, want ...string) {
	t.Helper()
	_, _, err := build(t, archive, lim)
	if err == nil {
		t.Fatalf("no error, want one with %q", want)
	}
	if !errors.Is(err, ErrArchive) && !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v is neither ErrArchive nor ErrTooLarge", err)
	}
	if strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 400 {
		t.Errorf("not one line: %q", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// list reads a directory in batches of n names.
func list(l *Layer, dir overlay.Entry, n int) ([]overlay.DirEntry, error) {
	var all []overlay.DirEntry
	buf := make([]overlay.DirEntry, n)
	after := overlay.CookieDotDot
	for {
		k, err := l.ReadDir(dir, after, buf)
		if err != nil {
			return nil, err
		}
		all = append(all, buf[:k]...)
		if k < n {
			return all, nil
		}
		after = buf[k-1].Cookie
	}
}

// content reads a file by its runs.
func content(l *Layer, e overlay.Entry) ([]byte, error) {
	var out []byte
	for off := int64(0); ; {
		r, err := l.Data(e, off)
		if err != nil || r.Len == 0 {
			return out, err
		}
		b := make([]byte, r.Len)
		if r.FD >= 0 {
			if n, err := unix.Pread(r.FD, b, r.Pos); err != nil || int64(n) != r.Len {
				return nil, fmt.Errorf("read %d bytes: %w", n, err)
			}
		}
		out = append(out, b...)
		off += r.Len
	}
}

// describe renders everything about an entry but its name.
func describe(t *testing.T, l *Layer, e overlay.Entry) string {
	t.Helper()
	var a overlay.Attr
	if err := l.Attr(e, &a); err != nil {
		t.Fatal(err)
	}
	s := fmt.Sprintf("%o %d:%d %d.%d n%d", a.Mode, a.UID, a.GID, a.Mtime.Sec, a.Mtime.Nsec, a.Nlink)
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		b, err := content(l, e)
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprintf(" %q", b)
	case unix.S_IFLNK:
		to, err := l.Readlink(e)
		if err != nil {
			t.Fatal(err)
		}
		s += " -> " + to
	case unix.S_IFCHR, unix.S_IFBLK:
		s += fmt.Sprintf(" rdev %#x", a.Rdev)
	}
	names, err := l.Xattrs(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		v, err := l.Xattr(e, n)
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprintf(" %s=%q", n, v)
	}
	if l.Implied(e) {
		s += " implied"
	}
	return s
}

// walk renders a tree, a line an entry, sorted by path.
func walk(t *testing.T, l *Layer) []string {
	t.Helper()
	var lines []string
	var visit func(dir overlay.Entry, at string)
	visit = func(dir overlay.Entry, at string) {
		names, err := list(l, dir, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range names {
			it, err := l.Lookup(dir, d.Name)
			if err != nil || it != d.Item {
				t.Fatalf("%s%s: lookup gives %+v (%v), listing %+v", at, d.Name, it, err, d.Item)
			}
			line := at + d.Name
			if it.IsWhiteout() {
				lines = append(lines, line+" whiteout")
				continue
			}
			line += " " + describe(t, l, it.Entry)
			if it.Flags&overlay.FlagOpaque != 0 {
				line += " opaque"
			}
			if it.Flags&overlay.FlagLinked != 0 {
				line += fmt.Sprintf(" inode %d", it.Ino)
			}
			lines = append(lines, line)
			if it.Mode == unix.S_IFDIR {
				visit(it.Entry, at+d.Name+"/")
			}
		}
	}
	visit(overlay.RootEntry, "")
	sort.Strings(lines)
	root := ". " + describe(t, l, overlay.RootEntry)
	if l.RootOpaque() {
		root += " opaque"
	}
	return append([]string{root}, lines...)
}

// find looks a path up.
func find(t testing.TB, l *Layer, name string) overlay.Item {
	t.Helper()
	it := overlay.Item{Mode: unix.S_IFDIR}
	for c := range strings.SplitSeq(name, "/") {
		var err error
		if it, err = l.Lookup(it.Entry, c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return it
}

func isErrno(err error, want syscall.Errno) bool { return errors.Is(err, want) }
