package tarwrite

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

func write(t *testing.T, entries ...*Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, e := range entries {
		if err := w.Write(e); err != nil {
			t.Fatalf("%s: %v", e.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if b.Len()%blockSize != 0 {
		t.Errorf("an archive of %d bytes", b.Len())
	}
	return b.Bytes()
}

func file(path, data string) *Entry {
	return &Entry{Path: path, Attr: overlay.Attr{Mode: unix.S_IFREG | 0o644, Size: uint64(len(data))}, Data: strings.NewReader(data)}
}

// TestReadBack has archive/tar read what was written, which is strict about lengths, checksums and records.
func TestReadBack(t *testing.T) {
	long := strings.Repeat("a", 90) + "/" + strings.Repeat("b", 90)
	longest := strings.Repeat(strings.Repeat("c", 200)+"/", 30) + "x"
	odd := file("ü\n", "")
	odd.Attr.Mode |= 0o7000
	odd.Attr.UID, odd.Attr.GID = 1<<21, 1<<32-1
	odd.Attr.Mtime = overlay.Timespec{Sec: -2, Nsec: 250_000_000}
	odd.Xattrs = []Xattr{{"user.a", []byte("1\x00=\n")}, {"security.capability", bytes.Repeat([]byte{0xff}, 60000)}}
	device := &Entry{Path: "dev", Attr: overlay.Attr{Mode: unix.S_IFBLK | 0o600, Rdev: 70000&0xff | 259<<8 | (70000&^0xff)<<12}}
	entries := []*Entry{
		{Path: ".", Attr: overlay.Attr{Mode: unix.S_IFDIR | 0o755, Mtime: overlay.Timespec{Sec: 1 << 33}}},
		file("a", strings.Repeat("x", 513)), file(long, "long"), file(longest, "longest"), odd, device,
		{Path: "link", Target: longest, Attr: overlay.Attr{Mode: unix.S_IFLNK | 0o777}},
		{Path: "hard", Target: "a", HardLink: true, Attr: overlay.Attr{Mode: unix.S_IFREG | 0o644, Size: 513}},
		{Path: "fifo", Attr: overlay.Attr{Mode: unix.S_IFIFO | 0o644}},
	}
	tr := tar.NewReader(bytes.NewReader(write(t, entries...)))
	for _, e := range entries {
		h, err := tr.Next()
		if err != nil {
			t.Fatalf("%q: %v", e.Path, err)
		}
		name, a := strings.TrimSuffix(h.Name, "/"), e.Attr
		if name != e.Path || h.Mode != int64(a.Mode&0o7777) || h.Uid != int(a.UID) || h.Gid != int(a.GID) ||
			!h.ModTime.Equal(time.Unix(a.Mtime.Sec, int64(a.Mtime.Nsec))) || h.Linkname != e.Target {
			t.Errorf("%q: read back %+v", e.Path, h)
		}
		want := map[string]string{}
		for _, x := range e.Xattrs {
			want["SCHILY.xattr."+x.Name] = string(x.Value)
		}
		maps.DeleteFunc(h.PAXRecords, func(k, _ string) bool { return !strings.HasPrefix(k, "SCHILY") })
		if !maps.Equal(h.PAXRecords, want) {
			t.Errorf("%q: records %q, want %q", e.Path, h.PAXRecords, want)
		}
		if e == device && (h.Devmajor != 259 || h.Devminor != 70000) {
			t.Errorf("device %d, %d", h.Devmajor, h.Devminor)
		}
		if h.Typeflag == tar.TypeReg {
			data, err := io.ReadAll(tr)
			if err != nil || uint64(len(data)) != a.Size {
				t.Errorf("%q: %d bytes, %v", e.Path, len(data), err)
			}
		}
	}
	if _, err := tr.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last entry: %v", err)
	}
}

func TestSparse(t *testing.T) {
	data := make([]byte, 1<<20)
	copy(data[5000:], "middle")
	copy(data[1<<20-3:], "end")
	for name, extents := range map[string][]Extent{
		"middle and end": {{5000, 6}, {1<<20 - 3, 3}}, "middle": {{4096, 4096}}, "hole": nil, "all": {{0, 1 << 20}},
	} {
		e := file("some/where/"+name, string(data))
		e.Sparse, e.Extents = true, extents
		b := write(t, e, file("after", "after"))
		want := make([]byte, 1<<20)
		for _, x := range extents {
			copy(want[x.Off:x.Off+x.Len], data[x.Off:])
		}
		tr := tar.NewReader(bytes.NewReader(b))
		h, err := tr.Next()
		if err != nil || h.Name != e.Path || h.Size != 1<<20 {
			t.Fatalf("%s: %+v, %v", name, h, err)
		}
		if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: other data, %v", name, err)
		}
		if h, err := tr.Next(); err != nil || h.Name != "after" {
			t.Errorf("%s: then %v, %v", name, h, err)
		}
		if _, err := exec.LookPath("tar"); err == nil { // GNU tar's own format
			cmd := exec.Command("tar", "-xOf", "-", e.Path)
			cmd.Stdin = bytes.NewReader(b)
			if got, err := cmd.CombinedOutput(); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: GNU tar unpacks %d bytes, %v: %.200s", name, len(got), err, got[min(len(got), 1<<20):])
			}
		}
	}
}

// TestLarge checks the header of a file that is too large for its field, of which nothing else is read.
func TestLarge(t *testing.T) {
	e := file("large", "")
	e.Attr.Size = 1 << 40
	h, err := newHeader(e)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := errors.Join(w.extended(e, h), w.block(h), w.w.Flush()); err != nil {
		t.Fatal(err)
	}
	got, err := tar.NewReader(&b).Next()
	if err != nil || got.Size != 1<<40 {
		t.Errorf("read back %+v, %v", got, err)
	}
}

func TestShort(t *testing.T) {
	e := file("short", "abc")
	e.Attr.Size = 1000
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := w.Write(e); !errors.Is(err, ErrShort) {
		t.Errorf("error %v", err)
	}
	if err := errors.Join(w.Write(file("after", "x")), w.Close()); err != nil {
		t.Fatal(err)
	}
	tr := tar.NewReader(&b)
	for _, want := range []string{"short", "after"} {
		if h, err := tr.Next(); err != nil || h.Name != want {
			t.Errorf("%v, %v, want %s", h, err, want)
		}
	}
	if err := w.Write(&Entry{Path: "socket", Attr: overlay.Attr{Mode: unix.S_IFSOCK}}); !errors.Is(err, ErrType) {
		t.Errorf("a socket: %v", err)
	}
}

func TestDecimalTime(t *testing.T) {
	for want, ts := range map[string]overlay.Timespec{
		"1": {Sec: 1}, "1.5": {Sec: 1, Nsec: 5e8}, "0.000000001": {Nsec: 1}, "-1": {Sec: -1}, "-0.5": {Sec: -1, Nsec: 5e8},
		"-1.25": {Sec: -2, Nsec: 75e7}, "10": {Sec: 10},
	} {
		if got := decimalTime(ts); got != want {
			t.Errorf("%+v is %s, want %s", ts, got, want)
		}
	}
}
