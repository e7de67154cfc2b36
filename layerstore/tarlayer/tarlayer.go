// Package tarlayer owns the form in which plyfs keeps an image layer: the uncompressed tar as it is, and beside it an
// index made while the tar streamed by. [Build] makes the index, [Open] maps it and gives the layer as an
// [overlay.Layer], reading file contents straight out of the tar. The index is a cache that can always be made again:
// docs/index-format.md describes it. Both the tar and the index are taken for hostile.
package tarlayer

import (
	"errors"
	"fmt"
)

var (
	// ErrArchive says that the bytes are no tar that can serve as a layer; the message names the entry.
	ErrArchive = errors.New("invalid layer archive")
	// ErrTooLarge says that a layer goes beyond one of the [Limits]; the message names the entry and the limit.
	ErrTooLarge = errors.New("layer archive exceeds a limit")
	// ErrStale says that an index is of another format version or not of this tar: it must be built again.
	ErrStale = errors.New("layer index is out of date")
)

// Limits bounds what a layer may ask for. A field that is 0 stands for its default.
type Limits struct {
	MaxEntries int   // names and inodes, implied directories and whiteouts included; default 16777216
	MaxNameLen int   // bytes of one component of a path; default and most 255
	MaxPathLen int   // bytes of a whole path, as written and cleaned; default 4096
	MaxLinkLen int   // bytes of a symlink's target; default 4095
	MaxHeader  int   // bytes of one PAX or GNU extended header; default 1 MiB
	MaxXattrs  int   // bytes of the names and values of one inode's xattrs; default 1 MiB
	MaxExtents int   // data extents of one sparse file; default 1048576
	MaxSize    int64 // bytes of the archive, padding and trailing bytes included; default 4 TiB
}

const (
	maxFileSize  = 1 << 50   // bytes a file may claim to have, holes included
	maxFilesSize = 1 << 60   // bytes all files together may claim to have
	maxXattrLen  = 64 << 10  // XATTR_SIZE_MAX of linux/limits.h
	maxXattrName = 255       // XATTR_NAME_MAX
	maxIndexSize = 1<<32 - 1 // offsets in an index have 32 bits
)

// withDefaults returns the limits with the defaults filled in.
func (l Limits) withDefaults() Limits {
	def := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	def(&l.MaxEntries, 1<<24)
	def(&l.MaxNameLen, 255)
	def(&l.MaxPathLen, 4096)
	def(&l.MaxLinkLen, 4095)
	def(&l.MaxHeader, 1<<20)
	def(&l.MaxXattrs, 1<<20)
	def(&l.MaxExtents, 1<<20)
	l.MaxEntries = min(l.MaxEntries, 1<<27)
	l.MaxNameLen = min(l.MaxNameLen, 255)
	if l.MaxSize <= 0 {
		l.MaxSize = 1 << 42
	}
	return l
}

// Stats tells what [Build] found.
type Stats struct {
	Entries   int   // inodes of the tree, the root included, whiteouts not
	Size      int64 // bytes of tar read, to the end of the stream
	FilesSize int64 // bytes of the regular files, each inode counted once, holes included
}

// quote renders an untrusted name for an error message: on one line, and not longer than a terminal's.
func quote(name []byte) string {
	const most = 80
	if len(name) > most {
		return fmt.Sprintf("%q… (%d bytes)", name[:most], len(name))
	}
	return fmt.Sprintf("%q", name)
}
