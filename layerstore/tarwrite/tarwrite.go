// Package tarwrite writes the tar of a tree as a stream: in the PAX format of POSIX.1-2008 (pax, "pax Interchange Format"), as
// GNU tar and the Go tools read it, with holes kept in GNU's sparse format 1.0 (GNU tar manual, "Sparse Formats") and
// extended attributes in SCHILY.xattr records (star). It keeps nothing of what it has written.
package tarwrite

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

const (
	blockSize = 512
	maxName   = 100 // bytes of a name in a header
	maxPrefix = 155 // bytes of what may go before it
)

// ErrShort says that a file had less data than was announced; the rest was written as zeros.
var ErrShort = errors.New("the file got shorter while it was read")

// ErrType says that a tar cannot hold a kind of file: a socket.
var ErrType = errors.New("a tar cannot hold it")

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Extent is a stretch of a file that holds data.
type Extent struct{ Off, Len int64 }

// Entry is one entry of an archive.
type Entry struct {
	Path     string       // without a slash at its ends; "." is the root
	Attr     overlay.Attr // Mode, UID, GID, Mtime, Rdev and Size of a regular file count
	Target   string       // of a symlink, or the path of the entry that this one is another name of
	HardLink bool         // Target is such a path
	Xattrs   []Xattr
	Data     io.ReaderAt // of a regular file
	Extents  []Extent    // where it has data, in order, when Sparse
	Sparse   bool
}

// Writer writes an archive.
type Writer struct {
	w   *bufio.Writer
	buf []byte
}

// NewWriter returns a Writer on w. Close ends the archive, but closes w not.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 64<<10), buf: make([]byte, 256<<10)}
}

// Close writes the end of the archive.
func (w *Writer) Close() error {
	if err := w.zeros(2 * blockSize); err != nil {
		return err
	}
	return w.w.Flush()
}

// Write writes an entry. Errors: ErrType, with nothing written; ErrShort, with a whole entry written; those of the writer and of
// Data, after which the archive cannot go on.
func (w *Writer) Write(e *Entry) error {
	h, err := newHeader(e)
	if err != nil {
		return err
	}
	if len(h.records) > 0 {
		if err := w.extended(e, h); err != nil {
			return err
		}
	}
	if err := w.block(h); err != nil {
		return err
	}
	if h.typ != '0' {
		return nil
	}
	return w.data(e, h)
}

// data writes a file's data and what fills it up to a whole block.
func (w *Writer) data(e *Entry, h *header) error {
	if _, err := w.w.WriteString(h.sparseMap); err != nil {
		return err
	}
	var short error
	for _, x := range h.extents {
		n, err := io.CopyBuffer(struct{ io.Writer }{w.w}, struct{ io.Reader }{io.NewSectionReader(e.Data, x.Off, x.Len)}, w.buf)
		if err != nil {
			return err
		}
		if n < x.Len {
			short = ErrShort
			if err := w.zeros(x.Len - n); err != nil {
				return err
			}
		}
	}
	if err := w.zeros(-h.size & (blockSize - 1)); err != nil {
		return err
	}
	return short
}

func (w *Writer) zeros(n int64) error {
	for n > 0 {
		k := min(n, int64(len(zeroBlocks)))
		if _, err := w.w.Write(zeroBlocks[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

var zeroBlocks [8 * blockSize]byte

// header is what a header block says, and the records of the extended header before it.
type header struct {
	name, prefix, link string
	typ                byte
	mode               uint32
	uid, gid           uint32
	size, mtime        int64 // size is that of what follows
	longSize           bool  // it stands in a record
	major, minor       uint32
	sparseMap          string
	extents            []Extent // of the data that follows
	records            [][2]string
}

func newHeader(e *Entry) (*header, error) {
	a := &e.Attr
	h := &header{mode: a.Mode & 0o7777, uid: a.UID, gid: a.GID, mtime: a.Mtime.Sec}
	name := e.Path
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.typ, name = '5', e.Path+"/"
	case unix.S_IFREG:
		h.typ = '0'
		if a.Size > 1<<62 {
			return nil, fmt.Errorf("%s: %d bytes are no file's", e.Path, a.Size)
		}
		h.size = int64(a.Size)
		h.extents = []Extent{{0, h.size}}
	case unix.S_IFLNK:
		h.typ = '2'
	case unix.S_IFCHR:
		h.typ = '3'
	case unix.S_IFBLK:
		h.typ = '4'
	case unix.S_IFIFO:
		h.typ = '6'
	default:
		return nil, ErrType
	}
	if h.typ == '3' || h.typ == '4' { // new_encode_dev of include/linux/kdev_t.h
		h.major, h.minor = a.Rdev>>8&0xfff, a.Rdev&0xff|a.Rdev>>12&0xfff00
	}
	if e.HardLink {
		h.typ, h.size = '1', 0
	}
	if h.typ == '0' && e.Sparse {
		h.sparse(e)
		name = path.Join(path.Dir(name), "GNUSparseFile.0", path.Base(name))
	}
	h.paths(name, e.Target)
	h.numbers(a)
	if h.typ != '1' {
		for _, x := range e.Xattrs {
			h.record("SCHILY.xattr."+xattrEscaper.Replace(x.Name), string(x.Value))
		}
	}
	slices.SortFunc(h.records, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return h, nil
}

// xattrEscaper does what GNU tar does to names, whose records end at the first "=".
var xattrEscaper = strings.NewReplacer("%", "%25", "=", "%3D")

func (h *header) record(key, value string) { h.records = append(h.records, [2]string{key, value}) }

// paths puts names into the header where they fit, and else into records.
func (h *header) paths(name, target string) {
	switch i := split(name); {
	case !plain(name) || i < 0:
		h.record("path", name)
		h.name = shorten(name)
	case i > 0:
		h.prefix, h.name = name[:i], name[i+1:]
	default:
		h.name = name
	}
	if target == "" || h.typ != '1' && h.typ != '2' {
		return
	}
	h.link = target
	if !plain(target) || len(target) > maxName {
		h.record("linkpath", target)
		h.link = shorten(target)
	}
}

// split tells where a slash of a name is at which it can be cut into prefix and name, 0 if it need not be, -1 if it
// cannot.
func split(name string) int {
	if len(name) <= maxName {
		return 0
	}
	for i := len(name) - maxName - 1; i <= min(maxPrefix, len(name)-2); i++ {
		if i > 0 && name[i] == '/' {
			return i
		}
	}
	return -1
}

func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
}

// shorten is a name for who does not read records.
func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '_'
		}
		return r
	}, s)
	if len(s) > maxName {
		s = strings.TrimRight(s[:maxName], "/")
	}
	return s
}

const (
	maxOctal7  = 1<<21 - 1
	maxOctal11 = 1<<33 - 1
)

// numbers puts those into records that fit into no field of the header.
func (h *header) numbers(a *overlay.Attr) {
	if h.uid > maxOctal7 {
		h.record("uid", strconv.FormatUint(uint64(h.uid), 10))
		h.uid = 0
	}
	if h.gid > maxOctal7 {
		h.record("gid", strconv.FormatUint(uint64(h.gid), 10))
		h.gid = 0
	}
	if a.Mtime.Nsec != 0 || h.mtime < 0 || h.mtime > maxOctal11 {
		h.record("mtime", decimalTime(a.Mtime))
		h.mtime = min(max(h.mtime, 0), maxOctal11)
	}
	if h.size > maxOctal11 {
		h.record("size", strconv.FormatInt(h.size, 10))
		h.longSize = true
	}
}

// decimalTime is a time as PAX writes it: a decimal number, which for a time before 1970 counts back from it.
func decimalTime(t overlay.Timespec) string {
	sec, nsec, sign := t.Sec, int64(t.Nsec), ""
	if sec < 0 {
		sign = "-"
		if sec = -sec; nsec > 0 {
			sec, nsec = sec-1, 1e9-nsec
		}
	}
	if nsec == 0 {
		return fmt.Sprintf("%s%d", sign, sec)
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, sec, nsec), "0")
}

// sparse makes the map that stands before the data of a file with holes.
func (h *header) sparse(e *Entry) {
	var b strings.Builder
	h.extents = aligned(e.Extents, h.size)
	if n := len(h.extents); n == 0 || h.extents[n-1].Off+h.extents[n-1].Len < h.size {
		h.extents = append(h.extents, Extent{h.size, 0}) // as GNU tar says where the file ends
	}
	fmt.Fprintf(&b, "%d\n", len(h.extents))
	data := int64(0)
	for _, x := range h.extents {
		fmt.Fprintf(&b, "%d\n%d\n", x.Off, x.Len)
		data += x.Len
	}
	b.Write(zeroBlocks[:-b.Len()&(blockSize-1)])
	h.sparseMap = b.String()
	h.record("GNU.sparse.major", "1")
	h.record("GNU.sparse.minor", "0")
	h.record("GNU.sparse.name", e.Path)
	h.record("GNU.sparse.realsize", strconv.FormatInt(h.size, 10))
	h.size = int64(b.Len()) + data
}

// aligned extends extents to whole blocks of the file. GNU tar begins to read each at a block of the archive, others where
// the one before ends.
func aligned(extents []Extent, size int64) []Extent {
	var list []Extent
	for _, x := range extents {
		from := x.Off &^ (blockSize - 1)
		to := min((x.Off+x.Len+blockSize-1)&^(blockSize-1), size)
		if n := len(list); n > 0 && from <= list[n-1].Off+list[n-1].Len {
			list[n-1].Len = to - list[n-1].Off
		} else {
			list = append(list, Extent{from, to - from})
		}
	}
	return list
}

// extended writes the records of an entry as an entry before it.
func (w *Writer) extended(e *Entry, h *header) error {
	var b strings.Builder
	for _, r := range h.records {
		b.WriteString(formatRecord(r[0], r[1]))
	}
	x := &header{typ: 'x', name: shorten(path.Join("PaxHeaders.0", path.Base(e.Path))), mode: 0o644, size: int64(b.Len())}
	if err := w.block(x); err != nil {
		return err
	}
	if _, err := w.w.WriteString(b.String()); err != nil {
		return err
	}
	return w.zeros(-x.size & (blockSize - 1))
}

// formatRecord is "LEN KEY=VALUE\n", in which the length counts itself.
func formatRecord(key, value string) string {
	rest := len(key) + len(value) + len(" =\n")
	n := rest + len(strconv.Itoa(rest))
	if len(strconv.Itoa(n)) > len(strconv.Itoa(rest)) {
		n++
	}
	return strconv.Itoa(n) + " " + key + "=" + value + "\n"
}

// block writes a header block (POSIX.1-2008, pax, "ustar Header Block").
func (w *Writer) block(h *header) error {
	var b [blockSize]byte
	copy(b[0:100], h.name)
	octal(b[100:108], int64(h.mode))
	octal(b[108:116], int64(h.uid))
	octal(b[116:124], int64(h.gid))
	if h.longSize {
		octal(b[124:136], 0)
	} else {
		octal(b[124:136], h.size)
	}
	octal(b[136:148], h.mtime)
	b[156] = h.typ
	copy(b[157:257], h.link)
	copy(b[257:265], "ustar\x0000")
	octal(b[329:337], int64(h.major))
	octal(b[337:345], int64(h.minor))
	copy(b[345:500], h.prefix)
	copy(b[148:156], "        ")
	sum := int64(0)
	for _, c := range b {
		sum += int64(c)
	}
	octal(b[148:155], sum)
	_, err := w.w.Write(b[:])
	return err
}

// octal fills a field, whose last byte stays zero.
func octal(field []byte, n int64) {
	s := strconv.FormatInt(n, 8)
	copy(field, strings.Repeat("0", max(len(field)-1-len(s), 0))+s)
	field[len(field)-1] = 0
}
