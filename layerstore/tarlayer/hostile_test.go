package tarlayer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

// TestHostile gives Build archives that must be refused, each with an error that names what is at fault.
func TestHostile(t *testing.T) {
	long := strings.Repeat("n", 300)
	for _, c := range []struct {
		name string
		ents []ent
		want []string
	}{
		{"parent directory", []ent{x("ok"), x("../../etc/passwd")}, []string{`"../../etc/passwd"`, "out of the root"}},
		{"parent inside", []ent{x("a/../../b")}, []string{`"a/../../b"`, "out of the root"}},
		{"parent of an absolute name", []ent{x("/../b")}, []string{`"/../b"`, "out of the root"}},
		{"absolute name", []ent{x("ok"), x("/etc/passwd")}, []string{`"/etc/passwd"`, "absolute"}},
		{"long name", []ent{x("a/" + long)}, []string{"nnn", "longer than 255"}},
		{"long path", []ent{x(strings.Repeat("d/", 2100) + "f")}, []string{"d/d", "4201 bytes, more than 4096"}},
		{"through a symlink", []ent{{name: "s", typ: symT, link: "/"}, x("s/etc/x")}, []string{`"s/etc/x"`, `below "s"`}},
		{"through a file", []ent{x("a/f"), x("a/f/x")}, []string{`"a/f/x"`, `below "a/f"`}},
		{"link through a symlink", []ent{{name: "s", typ: symT, link: "/"}, {name: "l", typ: lnkT, link: "s/x"}}, []string{`"l"`, `below "s"`}},
		{"link out of the root", []ent{{name: "l", typ: lnkT, link: "../x"}}, []string{`"l"`, `"../x"`, "out of the root"}},
		{"link to a later entry", []ent{{name: "l", typ: lnkT, link: "f"}, x("f")}, []string{`"l"`, `"f"`, "no earlier entry"}},
		{"link into a dropped directory", []ent{x("d/f"), x("d"), x("d2"), {name: "l", typ: lnkT, link: "d/f"}}, []string{`"l"`, `below "d"`}},
		{"through a link over its target's directory", []ent{x("d/f"), {name: "d", typ: lnkT, link: "d/f"}, x("d/g")}, []string{`"d/g"`, `below "d"`}},
		{"link to a whiteout", []ent{x(".wh.a"), {name: "l", typ: lnkT, link: "a"}}, []string{`"l"`, `"a"`, "no earlier entry"}},
		{"link to a directory", []ent{{name: "d", typ: dirT}, {name: "l", typ: lnkT, link: "d"}}, []string{`"l"`, `"d"`, "directory"}},
		{"link to itself", []ent{x("a"), {name: "./a", typ: lnkT, link: "a"}}, []string{`"./a"`, "to itself"}},
		{"link to the root", []ent{{name: "l", typ: lnkT, link: "/"}}, []string{`"l"`, `"/"`, "no earlier entry"}},
		{"file as root", []ent{x(".")}, []string{`"."`, "root directory"}},
		{"symlink as root", []ent{{name: "./", typ: symT, link: "/"}}, []string{`"./"`, "root directory"}},
		{"symlink without target", []ent{{name: "s", typ: symT}}, []string{`"s"`, "without a target"}},
		{"long target", []ent{{name: "s", typ: symT, link: strings.Repeat("t", 4096)}}, []string{`"s"`, "4096 bytes, more than 4095"}},
		{"whiteout of nothing", []ent{x("a/.wh.")}, []string{`"a/.wh."`, "hides no name"}},
		{"whiteout of the parent", []ent{x("a/.wh...")}, []string{`"a/.wh..."`, "hides no name"}},
		{"below a whiteout", []ent{x(".wh.a/b")}, []string{`".wh.a/b"`, `whiteout ".wh.a"`}},
		{"xattr name", []ent{{name: "a", pax: map[string]string{"SCHILY.xattr." + strings.Repeat("x", 256): ""}}}, []string{`"a"`, "xattr name"}},
		{"xattr value", []ent{{name: "a", pax: map[string]string{"SCHILY.xattr.user.k": strings.Repeat("v", 65537)}}}, []string{`"a"`, `"user.k"`, "65537"}},
		{"newline in a name", []ent{{name: "a\nb", typ: lnkT, link: "c\nd"}}, []string{`"a\nb"`, `"c\nd"`}},
	} {
		t.Run(c.name, func(t *testing.T) { mustFail(t, makeTar(t, c.ents...), Limits{}, c.want...) })
	}
}

// TestLimits goes one beyond each limit.
func TestLimits(t *testing.T) {
	files := makeTar(t, ent{name: "a/b/c"}, ent{name: "d"})
	if _, _, err := build(t, files, Limits{MaxEntries: 5}); err != nil {
		t.Error(err)
	}
	mustFail(t, files, Limits{MaxEntries: 4}, `"d"`, "more than 4 entries")
	if _, _, err := build(t, files, Limits{MaxSize: int64(len(files))}); err != nil {
		t.Error(err)
	}
	mustFail(t, files, Limits{MaxSize: int64(len(files)) - 1}, "longer than")
	mustFail(t, append(files, make([]byte, 5000)...), Limits{MaxSize: int64(len(files)) + 10}, "longer than")
	mustFail(t, makeTar(t, ent{name: "big", data: strings.Repeat("x", 9999)}), Limits{MaxSize: 5000}, `"big"`, "9999", "longer than 5000")
	xattrs := map[string]string{"SCHILY.xattr.user.k": "123", "SCHILY.xattr.user.l": "123"}
	mustFail(t, makeTar(t, ent{name: "a", pax: xattrs}), Limits{MaxXattrs: 17}, `"a"`, "17 bytes")
	mustFail(t, makeTar(t, ent{name: "a", pax: xattrs}), Limits{MaxHeader: 20}, "extended header", "more than 20")
	mustFail(t, makeTar(t, ent{name: "abc"}), Limits{MaxNameLen: 2}, `"abc"`, "longer than 2")
	mustFail(t, seeds(t)["sparse_10"], Limits{MaxExtents: 3}, "more than 3 extents")
	mustFail(t, seeds(t)["sparse_01"], Limits{MaxExtents: 3}, "more than 3 extents")
	mustFail(t, seeds(t)["sparse_00"], Limits{MaxExtents: 3}, "more than 3 extents")
	mustFail(t, seeds(t)["sparse_gnu"], Limits{MaxExtents: 3}, "more than 3 extents")
}

// patchHeader changes the first header block of an archive and makes its checksum right again.
func patchHeader(archive []byte, at int, field string) []byte {
	b := bytes.Clone(archive)
	copy(b[at:], field)
	return repairTar(b)
}

// TestHeaderFields gives Build header blocks with fields no writer of the tests writes.
func TestHeaderFields(t *testing.T) {
	plain := makeTar(t, ent{name: "f", data: "x"})
	for _, c := range []struct {
		name  string
		at    int
		field string
		want  []string // nil when it must pass
	}{
		{"negative size", 124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", []string{`"f"`, "size -2 is negative"}},
		{"size of 2^62", 124, "\x80\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00", []string{`"f"`, "size 4611686018427387904"}},
		{"size beyond 2^63", 124, "\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00", []string{`"f"`, "size cannot be read"}},
		{"size of 2^45", 124, "\x80\x00\x00\x00\x00\x00\x20\x00\x00\x00\x00\x00", []string{`"f"`, "35184372088832", "limit"}},
		{"size of 8 GiB", 124, "77777777777\x00", []string{"cut off"}},
		{"garbage size", 124, "12x45678901\x00", []string{`"f"`, "size cannot be read"}},
		{"negative uid", 108, "\xff\xff\xff\xff\xff\xff\xff\xff", []string{`"f"`, "uid cannot be read"}},
		{"uid of 2^32-1", 108, "\x80\x00\x00\x00\xff\xff\xff\xff", []string{`"f"`, "uid cannot be read"}},
		{"uid of 2^31", 108, "\x80\x00\x00\x00\x80\x00\x00\x00", nil},
		{"mtime before 1970", 136, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", nil},
		{"mtime after 2106", 136, "\x80\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00", nil},
		{"unknown type", 156, "Z", []string{`"f"`, `'Z'`}},
		{"contiguous file", 156, "7", nil},
		{"no name", 0, "\x00", []string{"no name"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := patchHeader(plain, c.at, c.field)
			if c.want != nil {
				mustFail(t, b, Limits{}, c.want...)
				return
			}
			open(t, b)
		})
	}
	broken := bytes.Clone(plain)
	broken[0] = 'g'
	mustFail(t, broken, Limits{}, "no tar header at byte 0")
	l := open(t, patchHeader(plain, 136, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"))
	if s := describe(t, l, find(t, l, "f").Entry); !strings.Contains(s, " -2.0 ") {
		t.Error(s)
	}
}

// TestExtendedHeaders gives Build PAX headers that writers refuse to write.
func TestExtendedHeaders(t *testing.T) {
	pax := func(typ byte, records ...string) []byte {
		var body strings.Builder
		for _, r := range records {
			n := len(r) + 3
			for len(fmt.Sprint(n))+len(r)+2 != n {
				n++
			}
			fmt.Fprintf(&body, "%d %s\n", n, r)
		}
		return rawPAX(t, typ, body.String())
	}
	file := makeTar(t, ent{name: "f", data: "x"})
	for _, c := range []struct {
		name string
		head []byte
		want []string
	}{
		{"negative size", pax(typePAX, "size=-1"), []string{`"f"`, "size -1 is negative"}},
		{"size of 2^62", pax(typePAX, "size=4611686018427387904"), []string{`"f"`, "size 4611686018427387904"}},
		{"size of 2^70", pax(typePAX, "size=1180591620717411303424"), []string{`"f"`, `"size"="1180591620717411303424"`}},
		{"NUL in a path", pax(typePAX, "path=a\x00b"), []string{`"a\x00b"`}},
		{"uid", pax(typePAX, "uid=4294967295"), []string{`"f"`, `"uid"="4294967295"`}},
		{"time", pax(typePAX, "mtime=12.x"), []string{`"f"`, `"mtime"="12.x"`}},
		{"record without an end", rawPAX(t, typePAX, "9 a=bcdef"), []string{`"f"`, "wrong length"}},
		{"record too long", rawPAX(t, typePAX, "90 a=b\n"), []string{`"f"`, "wrong length"}},
		{"record of length 0", rawPAX(t, typePAX, "0 a=b\n"), []string{`"f"`, "wrong length"}},
		{"record without a length", rawPAX(t, typePAX, "abc"), []string{`"f"`, "without a length"}},
		{"record without a key", rawPAX(t, typePAX, "5 =b\n"), []string{`"f"`, "without a key"}},
		{"path for all files", pax(typeGlobal, "path=x"), []string{`"path"`, "global"}},
		{"xattr for all files", pax(typeGlobal, "SCHILY.xattr.user.a=x"), []string{`"SCHILY.xattr.user.a"`, "global"}},
		{"half an extent", pax(typePAX, "GNU.sparse.numblocks=1", "GNU.sparse.numbytes=1"), []string{`"f"`, "GNU.sparse.numbytes"}},
		{"extent beyond the end", pax(typePAX, "GNU.sparse.numblocks=1", "GNU.sparse.size=5", "GNU.sparse.map=5,1"), []string{`"f"`, "sparse map"}},
		{"extents over each other", pax(typePAX, "GNU.sparse.numblocks=2", "GNU.sparse.size=5", "GNU.sparse.map=1,1,1,0"), []string{`"f"`, "sparse map"}},
		{"unmapped data", pax(typePAX, "GNU.sparse.numblocks=1", "GNU.sparse.size=5", "GNU.sparse.map=5,0"), []string{`"f"`, "maps 0 bytes, 1"}},
		{"sparse size of 2^62", pax(typePAX, "GNU.sparse.size=4611686018427387904"), []string{`"f"`, "size 4611686018427387904"}},
		{"unknown sparse format", pax(typePAX, "GNU.sparse.major=2", "GNU.sparse.minor=0"), []string{`"f"`, "2"}},
		{"no map", pax(typePAX, "GNU.sparse.major=1", "GNU.sparse.minor=0"), []string{`"f"`, "sparse map"}},
	} {
		t.Run(c.name, func(t *testing.T) { mustFail(t, append(c.head, file...), Limits{}, c.want...) })
	}
	mustFail(t, pax(typePAX, "path=x"), Limits{}, "ends after an extended header")
	l := open(t, append(pax(typeGlobal, "comment=x", "mtime=5.25", "uid=9"), append(pax(typePAX, "uid=", "SCHILY.xattr.user.e="), file...)...))
	if s := describe(t, l, find(t, l, "f").Entry); s != `100644 9:0 5.250000000 n1 "x" user.e=""` {
		t.Error(s)
	}
}

// TestXattrForms gives one xattr in both forms, in either order: star's counts.
func TestXattrForms(t *testing.T) {
	for _, body := range []string{
		"28 SCHILY.xattr.user.b=star\n30 LIBARCHIVE.xattr.user.b=bw\n", "30 LIBARCHIVE.xattr.user.b=bw\n28 SCHILY.xattr.user.b=star\n",
	} {
		l := open(t, append(rawPAX(t, typePAX, body), makeTar(t, ent{name: "f"})...))
		if v, err := l.Xattr(find(t, l, "f").Entry, "user.b"); err != nil || string(v) != "star" {
			t.Errorf("%q, %v", v, err)
		}
	}
}

// TestHugeSparseFiles claims more bytes than can be counted.
func TestHugeSparseFiles(t *testing.T) {
	var archive []byte
	for i := range 1025 {
		h := rawPAX(t, typePAX, "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"+
			"40 GNU.sparse.realsize=1125899906842624\n")
		f := makeTar(t, ent{name: fmt.Sprint(i), data: "0\n" + strings.Repeat("\x00", blockSize-2)})
		archive = append(append(archive, h...), f[:2*blockSize]...)
	}
	mustFail(t, archive, Limits{}, "more than 1152921504606846976 bytes")
	l := open(t, archive[:4*blockSize*2])
	if r, err := l.Data(find(t, l, "1").Entry, 1<<49); err != nil || r.FD != -1 || r.Len != 1<<49 {
		t.Errorf("%+v, %v", r, err)
	}
}

// rawPAX makes an extended header of any bytes.
func rawPAX(t *testing.T, typ byte, body string) []byte {
	t.Helper()
	b := makeTar(t, ent{name: "pax", data: body})
	b = patchHeader(b[:blockSize+(len(body)+blockSize-1)/blockSize*blockSize], 156, string(typ))
	return b
}

// TestTruncated cuts an archive at every block and in the middle of each.
func TestTruncated(t *testing.T) {
	whole := makeTar(t, ent{name: "a", data: strings.Repeat("x", 700)}, ent{name: "b", pax: map[string]string{"SCHILY.xattr.user.a": "b"}})
	ok := map[int]bool{0: true, 3 * blockSize: true, 6 * blockSize: true, 7 * blockSize: true, 8 * blockSize: true}
	if len(whole) != 8*blockSize {
		t.Fatalf("the archive has %d bytes", len(whole))
	}
	for n := 0; n <= len(whole); n += blockSize / 2 {
		if ok[n] {
			if _, _, err := build(t, whole[:n], Limits{}); err != nil {
				t.Errorf("cut at %d: %v", n, err)
			}
			continue
		}
		mustFail(t, whole[:n], Limits{}, "archive")
	}
	mustFail(t, append(make([]byte, blockSize), whole...), Limits{}, "lone block of zeros")
	if _, st, err := build(t, append(bytes.Clone(whole), "trailing"...), Limits{}); err != nil || st.Size != int64(len(whole))+8 {
		t.Errorf("trailing bytes: %+v, %v", st, err)
	}
}

// TestStreamErrors makes sure that errors of the stream and of the index file come through as they are.
func TestStreamErrors(t *testing.T) {
	whole := makeTar(t, ent{name: "a", data: strings.Repeat("x", 700), pax: map[string]string{"SCHILY.xattr.user.a": "b"}})
	reset := errors.New("connection reset")
	for n := 0; n < len(whole); n += 100 {
		f, err := os.CreateTemp(t.TempDir(), "index")
		if err != nil {
			t.Fatal(err)
		}
		_, err = Build(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(reset)), f, Limits{})
		if !errors.Is(err, reset) || errors.Is(err, ErrArchive) {
			t.Errorf("at %d: %v", n, err)
		}
		f.Close()
	}
	fd, err := unix.MemfdCreate("full", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	full := os.NewFile(uintptr(fd), "full")
	defer full.Close()
	if _, err := unix.FcntlInt(full.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(bytes.NewReader(whole), full, Limits{}); !errors.Is(err, unix.EPERM) || errors.Is(err, ErrArchive) {
		t.Errorf("an index that cannot grow: %v", err)
	}
}
