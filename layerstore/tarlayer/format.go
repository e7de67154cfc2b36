package tarlayer

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/plyfs/plyfs/overlay"
)

// The format of an index, as docs/index-format.md says it. All numbers are little-endian.
const (
	magic         = "plyfsidx"
	formatVersion = 1
	headerSize    = 128

	inodeSize  = 64
	chunkShift = 8 // inode records to a chunk: 256
	chunkLen   = 1 << chunkShift
	chunkBytes = chunkLen * inodeSize
	childSize  = 20
	extraSize  = 26 // what the extra block has before its first xattr
	extentSize = 24
	noEntry    = 1<<32 - 1 // a child that is a whiteout
)

// Flags of an inode record.
const (
	inodeImplied uint16 = 1 << iota // a directory that the archive never lists
	inodeOpaque                     // a directory that hides what lies below
	inodeSparse                     // a regular file with holes
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// fileHeader is the head of an index.
type fileHeader struct {
	bodyCRC    uint32
	tarSize    uint64
	indexSize  uint64
	filesSize  uint64
	inodes     uint32 // records, dead ones included
	live       uint32
	children   uint32
	chunkTable uint32 // offset
	childTable uint32 // offset
}

func (h *fileHeader) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	le.PutUint32(b[8:], formatVersion)
	le.PutUint32(b[16:], h.bodyCRC)
	le.PutUint64(b[24:], h.tarSize)
	le.PutUint64(b[32:], h.indexSize)
	le.PutUint64(b[40:], h.filesSize)
	le.PutUint32(b[48:], h.inodes)
	le.PutUint32(b[52:], h.live)
	le.PutUint32(b[56:], h.children)
	le.PutUint32(b[60:], h.chunkTable)
	le.PutUint32(b[64:], h.childTable)
	le.PutUint32(b[12:], crc32.Checksum(b, castagnoli))
	return b
}

func decodeHeader(b []byte) (h fileHeader, crcOK bool) {
	var c [headerSize]byte
	copy(c[:], b)
	le.PutUint32(c[12:], 0)
	return fileHeader{
		bodyCRC:    le.Uint32(b[16:]),
		tarSize:    le.Uint64(b[24:]),
		indexSize:  le.Uint64(b[32:]),
		filesSize:  le.Uint64(b[40:]),
		inodes:     le.Uint32(b[48:]),
		live:       le.Uint32(b[52:]),
		children:   le.Uint32(b[56:]),
		chunkTable: le.Uint32(b[60:]),
		childTable: le.Uint32(b[64:]),
	}, crc32.Checksum(c[:], castagnoli) == le.Uint32(b[12:])
}

// inode is an inode record. What a and b mean depends on the type:
//
//	regular file   a: size                b: where its data begins in the tar; with inodeSparse: offset of its extents
//	directory      a: first child, number of children (32 bits each)   b: parent, offset of its name (32 bits each)
//	symlink        a: length of target    b: offset of target
//	device         a: rdev
type inode struct {
	a, b     uint64
	mtime    overlay.Timespec
	mode     uint16 // type and permissions; 0 marks a dead record
	flags    uint16
	uid, gid uint32
	nlink    uint32
	extra    uint32 // offset of the extra block, 0 when there is none
	nameLen  uint8  // of a directory's name
}

func (n *inode) encode(b []byte) {
	_ = b[inodeSize-1]
	le.PutUint64(b[0:], n.a)
	le.PutUint64(b[8:], n.b)
	le.PutUint64(b[16:], uint64(n.mtime.Sec)) //nolint:gosec // two's complement is the format
	le.PutUint32(b[24:], n.mtime.Nsec)
	le.PutUint16(b[28:], n.mode)
	le.PutUint16(b[30:], n.flags)
	le.PutUint32(b[32:], n.uid)
	le.PutUint32(b[36:], n.gid)
	le.PutUint32(b[40:], n.nlink)
	le.PutUint32(b[44:], n.extra)
	clear(b[48:inodeSize])
	b[48] = n.nameLen
}

func (n *inode) decode(b []byte) {
	_ = b[inodeSize-1]
	n.a = le.Uint64(b[0:])
	n.b = le.Uint64(b[8:])
	n.mtime = overlay.Timespec{Sec: int64(le.Uint64(b[16:])), Nsec: le.Uint32(b[24:])} //nolint:gosec // see encode
	n.mode = le.Uint16(b[28:])
	n.flags = le.Uint16(b[30:])
	n.uid = le.Uint32(b[32:])
	n.gid = le.Uint32(b[36:])
	n.nlink = le.Uint32(b[40:])
	n.extra = le.Uint32(b[44:])
	n.nameLen = b[48]
}

func pair(lo, hi uint32) uint64           { return uint64(lo) | uint64(hi)<<32 }
func unpair(v uint64) (lo, hi uint32)     { return uint32(v), uint32(v >> 32) } //nolint:gosec // the halves are meant
func (n *inode) children() (at, k uint32) { return unpair(n.a) }

// child is a record of a directory's listing.
type child struct {
	cookie  uint64
	name    uint32 // offset
	entry   uint32 // inode, noEntry for a whiteout
	nameLen uint8
	typ     uint8 // S_IFMT >> 12, 0 for a whiteout
	flags   uint8 // overlay.ItemFlags
}

func (c *child) encode(b []byte) {
	_ = b[childSize-1]
	le.PutUint64(b[0:], c.cookie)
	le.PutUint32(b[8:], c.name)
	le.PutUint32(b[12:], c.entry)
	b[16], b[17], b[18], b[19] = c.nameLen, c.typ, c.flags, 0
}

func (c *child) decode(b []byte) {
	_ = b[childSize-1]
	c.cookie = le.Uint64(b[0:])
	c.name = le.Uint32(b[8:])
	c.entry = le.Uint32(b[12:])
	c.nameLen, c.typ, c.flags = b[16], b[17], b[18]
}
