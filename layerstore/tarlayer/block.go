package tarlayer

import (
	"bytes"

	"github.com/plyfs/plyfs/overlay"
)

// blockSize is the unit of a tar.
const blockSize = 512

// Type flags of a header block: POSIX.1-2017, pax, "ustar Interchange Format", and GNU tar's manual, "Basic Tar Format".
const (
	typeRegOld   = 0
	typeReg      = '0'
	typeLink     = '1'
	typeSymlink  = '2'
	typeChar     = '3'
	typeBlock    = '4'
	typeDir      = '5'
	typeFifo     = '6'
	typeCont     = '7'
	typePAX      = 'x'
	typePAXSun   = 'X'
	typeGlobal   = 'g'
	typeLongName = 'L'
	typeLongLink = 'K'
	typeSparse   = 'S'
)

// header is one entry of an archive. Its slices belong to the reader and are valid until the next entry.
type header struct {
	at                  int64 // where the entry's own header block is
	name, link          []byte
	typ                 byte
	mode                uint32 // permission bits
	uid, gid            uint32
	major, minor        uint32
	size                int64 // bytes of the file as it appears, holes included
	stored              int64 // bytes in the archive
	pos                 int64 // where the data begins
	mtime, atime, ctime overlay.Timespec
	hasAtime, hasCtime  bool
	xattrs              []xattr
	sparse              bool
	extents             []extent
}

type xattr struct{ name, value []byte }

// extent is a stretch of a sparse file's data: off in the file, pos in the tar.
type extent struct{ off, pos, len int64 }

// cut returns a text field up to its NUL.
func cut(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// checksumOK verifies a header block's sum, which some old writers took over signed bytes.
func checksumOK(b *[blockSize]byte) bool {
	want, ok := parseNumeric(b[148:156])
	if !ok {
		return false
	}
	var unsigned, signed int64
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

type format int

const (
	formatV7 format = iota
	formatUstar
	formatGNU
	formatStar
)

func formatOf(b *[blockSize]byte) format {
	switch {
	case string(b[257:265]) == "ustar  \x00":
		return formatGNU
	case string(b[257:263]) == "ustar\x00" && string(b[508:512]) == "tar\x00":
		return formatStar
	case string(b[257:263]) == "ustar\x00":
		return formatUstar
	}
	return formatV7
}

// fieldError names the field of a header block that cannot be read.
type fieldError string

func (e fieldError) Error() string { return "its header's " + string(e) + " cannot be read" }

// numbers reads the number fields of a block one after another and keeps the name of the first bad one.
type numbers struct {
	b   *[blockSize]byte
	err error
}

func (n *numbers) get(field string, from, to int, most int64) int64 {
	v, ok := parseNumeric(n.b[from:to])
	if (!ok || v > most || (v < 0 && field != "mtime")) && n.err == nil {
		n.err = fieldError(field)
		if ok && field == "size" {
			n.err = sizeError(v)
		}
	}
	return v
}

// parseBlock fills in h from a header block whose checksum is right. nameBuf takes a name put together of two fields.
func parseBlock(b *[blockSize]byte, h *header, nameBuf []byte) ([]byte, error) {
	n := numbers{b: b}
	const maxID = 1<<32 - 2
	*h = header{at: h.at, xattrs: h.xattrs[:0], extents: h.extents[:0]}
	h.name, h.link, h.typ = cut(b[:100]), cut(b[157:257]), b[156]
	h.mode = uint32(n.get("mode", 100, 108, 1<<62) & 0o7777)
	h.uid = uint32(n.get("uid", 108, 116, maxID)) //nolint:gosec // bounded
	h.gid = uint32(n.get("gid", 116, 124, maxID)) //nolint:gosec // bounded
	h.size = n.get("size", 124, 136, maxFileSize)
	h.mtime.Sec = n.get("mtime", 136, 148, 1<<62)
	f := formatOf(b)
	if f != formatV7 && (h.typ == typeChar || h.typ == typeBlock) {
		h.major = uint32(n.get("devmajor", 329, 337, 1<<12-1)) //nolint:gosec // bounded
		h.minor = uint32(n.get("devminor", 337, 345, 1<<20-1)) //nolint:gosec // bounded
	}
	var prefix []byte
	switch f {
	case formatUstar:
		prefix = cut(b[345:500])
	case formatStar:
		prefix = cut(b[345:476])
		h.blockTimes(b[476:488], b[488:500])
	case formatGNU:
		if !h.blockTimes(b[345:357], b[357:369]) {
			// Writers of Go before 1.8 put a prefix into GNU headers where these times belong.
			prefix = cut(b[345:500])
		}
	case formatV7:
	}
	if len(prefix) > 0 {
		nameBuf = append(append(append(nameBuf[:0], prefix...), '/'), h.name...)
		h.name = nameBuf
	}
	return nameBuf, n.err
}

// blockTimes takes over the access and change time of a GNU or star header, if they are there and are numbers.
func (h *header) blockTimes(a, c []byte) bool {
	at, aok := parseNumeric(a)
	ct, cok := parseNumeric(c)
	if !aok || !cok {
		return false
	}
	if a[0] != 0 {
		h.atime, h.hasAtime = overlay.Timespec{Sec: at}, true
	}
	if c[0] != 0 {
		h.ctime, h.hasCtime = overlay.Timespec{Sec: ct}, true
	}
	return true
}
