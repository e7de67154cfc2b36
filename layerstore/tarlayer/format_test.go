package tarlayer

import (
	"archive/tar"
	"bytes"
	"testing"
	"time"

	"github.com/plyfs/plyfs/overlay"
)

// TestTimes reads access and change times from GNU and PAX headers.
func TestTimes(t *testing.T) {
	for _, format := range []tar.Format{tar.FormatGNU, tar.FormatPAX} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, h := range []tar.Header{
			{Name: "all", ModTime: time.Unix(-5, 0), AccessTime: time.Unix(6, 0), ChangeTime: time.Unix(1<<33, 0)},
			{Name: "one", ModTime: time.Unix(-5, 0)},
		} {
			h.Format, h.Typeflag, h.Mode = format, tar.TypeReg, 0o644
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		l := open(t, buf.Bytes())
		var all, one overlay.Attr
		if err := l.Attr(find(t, l, "all").Entry, &all); err != nil {
			t.Fatal(err)
		}
		if err := l.Attr(find(t, l, "one").Entry, &one); err != nil {
			t.Fatal(err)
		}
		ts := func(s int64) overlay.Timespec { return overlay.Timespec{Sec: s} }
		if all.Mtime != ts(-5) || all.Atime != ts(6) || all.Ctime != ts(1<<33) {
			t.Errorf("%v: %+v", format, all)
		}
		if one.Mtime != ts(-5) || one.Atime != ts(-5) || one.Ctime != ts(-5) {
			t.Errorf("%v: %+v", format, one)
		}
	}
}

// TestOldGoPrefix reads the GNU headers that Go before 1.8 wrote with a prefix, in old images.
func TestOldGoPrefix(t *testing.T) {
	b := makeTar(t, ent{name: "file", data: "x"})
	b = patchHeader(patchHeader(b, 257, "ustar  \x00"), 345, "usr/share/doc")
	l := open(t, b)
	if s := describe(t, l, find(t, l, "usr/share/doc/file").Entry); s != `100644 0:0 1000.0 n1 "x"` {
		t.Error(s)
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
		ok   bool
	}{
		{"", 0, true},
		{" 0000644\x00", 0o644, true},
		{"0000644 ", 0o644, true},
		{"777777777777777777777", 1<<63 - 1, true},
		{"1777777777777777777777", 0, false},
		{"8", 0, false},
		{"-1", 0, false},
		{"\x80\x00\x00\x00\x00\x00\x00\x01", 1, true},
		{"\xff\xff\xff\xff", -1, true},
		{"\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", 1<<63 - 1, true},
		{"\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\x00\x00", -1 << 63, true},
		{"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 0, false},
		{"\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00", 0, false},
	} {
		if got, ok := parseNumeric([]byte(c.in)); ok != c.ok || ok && got != c.want {
			t.Errorf("%q: %d, %v", c.in, got, ok)
		}
	}
	for _, c := range []struct {
		in   string
		sec  int64
		nsec uint32
		ok   bool
	}{
		{"0", 0, 0, true},
		{"1.5", 1, 5e8, true},
		{"-1.25", -2, 75e7, true},
		{"-0.000000001", -1, 999999999, true},
		{"7.1234567899", 7, 123456789, true},
		{"5.", 5, 0, true},
		{".5", 0, 0, false},
		{"", 0, 0, false},
		{"-", 0, 0, false},
		{"1.-5", 0, 0, false},
		{"99999999999999999999", 0, 0, false},
		{"253402300800", 253402300800, 0, true},
	} {
		got, ok := parsePAXTime([]byte(c.in))
		if ok != c.ok || ok && got != (overlay.Timespec{Sec: c.sec, Nsec: c.nsec}) {
			t.Errorf("%q: %v, %v", c.in, got, ok)
		}
	}
}

// generator streams an archive of many small files without keeping it.
type generator struct {
	n, most, perDir int
	buf             bytes.Buffer
	w               *tar.Writer
	body            []byte
}

func newGenerator(most, perDir, body int) *generator {
	g := &generator{most: most, perDir: perDir, body: make([]byte, body)}
	g.w = tar.NewWriter(&g.buf)
	return g
}

// Read implements io.Reader.
func (g *generator) Read(p []byte) (int, error) {
	for g.buf.Len() == 0 && g.n < g.most {
		h := tar.Header{
			Name: genName(g.n, g.perDir), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(g.body)),
			ModTime: time.Unix(1e9, 0), Format: tar.FormatUSTAR,
		}
		if err := g.w.WriteHeader(&h); err != nil {
			return 0, err
		}
		if _, err := g.w.Write(g.body); err != nil {
			return 0, err
		}
		if err := g.w.Flush(); err != nil {
			return 0, err
		}
		g.n++
	}
	return g.buf.Read(p)
}
