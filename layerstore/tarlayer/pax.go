package tarlayer

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"

	"github.com/plyfs/plyfs/overlay"
)

const (
	schilyXattr     = "SCHILY.xattr."     // value as it is: star, GNU tar, archive/tar
	libarchiveXattr = "LIBARCHIVE.xattr." // name URL-encoded, value in base64: bsdtar
	gnuSparse       = "GNU.sparse."
)

// paxDefaults are what global headers set for all later entries. Only times and owners can be: what concerns one file
// alone, such as its path, is refused in a global header, since tools do not agree on what it means there.
type paxDefaults struct {
	mtime, atime, ctime          overlay.Timespec
	uid, gid                     uint32
	hasMtime, hasAtime, hasCtime bool
	hasUID, hasGID               bool
}

// apply sets what global headers say on an entry.
func (p *paxDefaults) apply(h *header) {
	if p.hasMtime {
		h.mtime = p.mtime
	}
	if p.hasAtime {
		h.atime, h.hasAtime = p.atime, true
	}
	if p.hasCtime {
		h.ctime, h.hasCtime = p.ctime, true
	}
	if p.hasUID {
		h.uid = p.uid
	}
	if p.hasGID {
		h.gid = p.gid
	}
}

// nextRecord splits the first record, "LEN KEY=VALUE\n", off an extended header.
func nextRecord(b []byte) (key, value, rest []byte, err error) {
	sp := bytes.IndexByte(b[:min(len(b), 20)], ' ')
	if sp < 1 {
		return nil, nil, nil, errors.New("its extended header has a record without a length")
	}
	n, ok := parseDecimal(b[:sp])
	if !ok || n < int64(sp)+2 || n > int64(len(b)) || b[n-1] != '\n' {
		return nil, nil, nil, errors.New("its extended header has a record of a wrong length")
	}
	key, value, ok = bytes.Cut(b[sp+1:n-1], []byte{'='})
	if !ok || len(key) == 0 || bytes.IndexByte(key, 0) >= 0 {
		return nil, nil, nil, errors.New("its extended header has a record without a key")
	}
	return key, value, b[n:], nil
}

func badRecord(key, value []byte) error {
	return fmt.Errorf("its extended header says %s=%s, which cannot be read", quote(key), quote(value))
}

// paxID reads an owner. 2^32-1 is no owner: chown(2) takes it for "leave as it is".
func paxID(key, value []byte) (uint32, error) {
	n, ok := parseDecimal(value)
	if !ok || n < 0 || n >= 1<<32-1 {
		return 0, badRecord(key, value)
	}
	return uint32(n), nil
}

// parseGlobal takes in a global header's records.
func (p *paxDefaults) parseGlobal(b []byte) error {
	for len(b) > 0 {
		key, value, rest, err := nextRecord(b)
		if err != nil {
			return err
		}
		b = rest
		if err := p.set(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (p *paxDefaults) set(key, value []byte) (err error) {
	ok, set := true, len(value) > 0 // an empty value takes an earlier one back
	switch string(key) {
	case "mtime":
		p.hasMtime = set
		if set {
			p.mtime, ok = parsePAXTime(value)
		}
	case "atime":
		p.hasAtime = set
		if set {
			p.atime, ok = parsePAXTime(value)
		}
	case "ctime":
		p.hasCtime = set
		if set {
			p.ctime, ok = parsePAXTime(value)
		}
	case "uid":
		if p.hasUID = set; set {
			p.uid, err = paxID(key, value)
		}
	case "gid":
		if p.hasGID = set; set {
			p.gid, err = paxID(key, value)
		}
	case "path", "linkpath", "size":
		return fmt.Errorf("a global header sets %s for all files", quote(key))
	default:
		if hasPrefix(key, schilyXattr) || hasPrefix(key, libarchiveXattr) || hasPrefix(key, gnuSparse) {
			return fmt.Errorf("a global header sets %s for all files", quote(key))
		}
	}
	if !ok {
		return badRecord(key, value)
	}
	return err
}

func hasPrefix(b []byte, p string) bool { return len(b) >= len(p) && string(b[:len(p)]) == p }

// mergePAX applies an entry's extended header to it.
func (r *reader) mergePAX(h *header, b []byte) error {
	for len(b) > 0 {
		key, value, rest, err := nextRecord(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case hasPrefix(key, schilyXattr):
			err = r.addXattr(h, key[len(schilyXattr):], value, true)
		case hasPrefix(key, libarchiveXattr):
			err = r.addLibarchive(h, key[len(libarchiveXattr):], value)
		case hasPrefix(key, gnuSparse):
			err = r.sp.record(string(key[len(gnuSparse):]), value, r.lim.MaxExtents)
		case len(value) > 0: // an empty value leaves what the header block says
			err = h.setPAX(key, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *header) setPAX(key, value []byte) (err error) {
	ok := true
	switch string(key) {
	case "path":
		h.name, ok = value, bytes.IndexByte(value, 0) < 0
	case "linkpath":
		h.link, ok = value, bytes.IndexByte(value, 0) < 0
	case "size":
		h.size, ok = parseDecimal(value)
		if ok && (h.size < 0 || h.size > maxFileSize) {
			return sizeError(h.size)
		}
	case "uid":
		h.uid, err = paxID(key, value)
	case "gid":
		h.gid, err = paxID(key, value)
	case "mtime":
		h.mtime, ok = parsePAXTime(value)
	case "atime":
		h.atime, ok = parsePAXTime(value)
		h.hasAtime = true
	case "ctime":
		h.ctime, ok = parsePAXTime(value)
		h.hasCtime = true
	}
	if !ok {
		return badRecord(key, value)
	}
	return err
}

type sizeError int64

func (e sizeError) Error() string {
	if e < 0 {
		return fmt.Sprintf("its size %d is negative", int64(e))
	}
	return fmt.Sprintf("its size %d is more than a file can have", int64(e))
}

// addXattr takes one xattr in; replace tells which of two of the same name stays.
func (r *reader) addXattr(h *header, name, value []byte, replace bool) error {
	if len(name) == 0 || len(name) > maxXattrName || bytes.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("xattr name %s must have 1 to %d bytes and no NUL", quote(name), maxXattrName)
	}
	if len(value) > maxXattrLen {
		return fmt.Errorf("%w: xattr %s has %d bytes, more than %d", ErrTooLarge, quote(name), len(value), maxXattrLen)
	}
	if reservedXattr(name) {
		return nil
	}
	total := len(name) + len(value)
	for i := range h.xattrs {
		if bytes.Equal(h.xattrs[i].name, name) {
			if replace {
				h.xattrs[i].value = value
			}
			return nil
		}
		total += len(h.xattrs[i].name) + len(h.xattrs[i].value)
	}
	if total > r.lim.MaxXattrs || len(h.xattrs) >= maxXattrCount {
		return fmt.Errorf("%w: its xattrs have more than %d bytes or %d names", ErrTooLarge, r.lim.MaxXattrs, maxXattrCount)
	}
	h.xattrs = append(h.xattrs, xattr{name, value})
	return nil
}

// maxXattrCount keeps the search for duplicates cheap. listxattr(2) gives 64 KiB of names.
const maxXattrCount = 4096

// addLibarchive takes in an xattr in bsdtar's form, which stands back behind the same one in star's form.
func (r *reader) addLibarchive(h *header, name, value []byte) error {
	n, err := url.PathUnescape(string(name))
	if err != nil {
		return badRecord(name, value)
	}
	value = bytes.TrimRight(value, "=")
	v := make([]byte, base64.RawStdEncoding.DecodedLen(len(value)))
	m, err := base64.RawStdEncoding.Decode(v, value)
	if err != nil {
		return badRecord(name, value)
	}
	return r.addXattr(h, []byte(n), v[:m], false)
}

// reservedXattr tells the names by which overlay file systems keep their own state: a layer must not forge it.
func reservedXattr(name []byte) bool {
	for _, p := range []string{"trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", "user.plyfs."} {
		if hasPrefix(name, p) {
			return true
		}
	}
	return false
}
