package tarlayer

import (
	"bytes"
	"errors"
	"fmt"
)

var errSparse = errors.New("its sparse map is damaged")

// sparseState gathers what an entry's extended header says about holes: GNU tar's manual, "Storing Sparse Files".
type sparseState struct {
	version  string // "" none, "0" for 0.0 and 0.1, "1.0"
	major    string
	minor    string
	name     []byte
	realSize int64
	hasSize  bool
	extents  []extent
	half     bool // an offset came, its length did not yet
}

func (s *sparseState) reset() { *s = sparseState{extents: s.extents[:0]} }

// record takes one GNU.sparse.* record in.
func (s *sparseState) record(key string, value []byte, most int) error {
	var n int64
	ok := true
	switch key {
	case "major":
		s.major = string(value[:min(len(value), 8)])
	case "minor":
		s.minor = string(value[:min(len(value), 8)])
	case "name":
		s.name, ok = value, bytes.IndexByte(value, 0) < 0
	case "size", "realsize":
		s.realSize, ok = parseDecimal(value)
		s.hasSize = true
		if ok && (s.realSize < 0 || s.realSize > maxFileSize) {
			return sizeError(s.realSize)
		}
	case "numblocks":
		s.version = "0"
		_, ok = parseDecimal(value)
	case "offset":
		n, ok = parseDecimal(value)
		ok = ok && !s.half
		s.extents, s.half = append(s.extents, extent{off: n}), true
	case "numbytes":
		n, ok = parseDecimal(value)
		if ok = ok && s.half; ok {
			s.extents[len(s.extents)-1].len, s.half = n, false
		}
	case "map":
		ok = s.parseMap(value, most)
	}
	if !ok {
		return badRecord([]byte(gnuSparse+key), value)
	}
	if len(s.extents) > most {
		return tooManyExtents(most)
	}
	return nil
}

func tooManyExtents(most int) error {
	return fmt.Errorf("%w: its sparse map has more than %d extents", ErrTooLarge, most)
}

// parseMap reads the map of version 0.1: offset,length,offset,length…
func (s *sparseState) parseMap(b []byte, most int) bool {
	s.extents = s.extents[:0]
	for len(b) > 0 && len(s.extents) <= most {
		off, rest, two := bytes.Cut(b, []byte{','})
		length, rest, _ := bytes.Cut(rest, []byte{','})
		o, ok1 := parseDecimal(off)
		n, ok2 := parseDecimal(length)
		if !two || !ok1 || !ok2 {
			return false
		}
		s.extents = append(s.extents, extent{off: o, len: n})
		b = rest
	}
	return true
}

// resolveSparse finds the extents of an entry, wherever its format keeps them, and reads those that lie before its data.
func (r *reader) resolveSparse(h *header) error {
	s := &r.sp
	switch {
	case h.typ == typeSparse:
		h.sparse = true
	case !h.regular():
		return nil
	case s.major == "1" && s.minor == "0":
		h.sparse = true
		if err := r.readMap(h); err != nil {
			return err
		}
	case s.major == "" || (s.major == "0" && (s.minor == "0" || s.minor == "1")):
		if h.sparse = s.version != ""; h.sparse {
			h.extents = append(h.extents[:0], s.extents...)
		}
	default:
		return fmt.Errorf("its sparse format %q.%q is not known", s.major, s.minor)
	}
	if !h.sparse {
		return nil
	}
	if s.name != nil {
		h.name = s.name
	}
	if s.hasSize {
		h.size = s.realSize
	}
	return h.placeExtents()
}

// placeExtents checks the map against the sizes and tells where in the tar each extent lies.
func (h *header) placeExtents() error {
	out, pos, end := h.extents[:0], h.pos, int64(0)
	for _, x := range h.extents {
		if x.off < end || x.len < 0 || x.off > h.size || x.len > h.size-x.off {
			return errSparse
		}
		end = x.off + x.len
		if x.len == 0 {
			continue // marks the end of the file
		}
		x.pos = pos
		pos += x.len
		out = append(out, x)
	}
	if pos-h.pos != h.stored {
		return fmt.Errorf("%w: it maps %d bytes, %d are there", errSparse, pos-h.pos, h.stored)
	}
	h.extents = out
	return nil
}

// readOldSparse reads the extents in the header block of the old GNU format and in the blocks that follow it.
func (r *reader) readOldSparse(h *header) error {
	size, ok := parseNumeric(r.blk[483:495])
	if !ok || formatOf(&r.blk) != formatGNU {
		return errSparse
	}
	if size < 0 || size > maxFileSize {
		return sizeError(size)
	}
	h.size = size
	fields, more := r.blk[386:482], r.blk[482] != 0
	for {
		for ; len(fields) >= 24 && fields[0] != 0; fields = fields[24:] {
			off, ok1 := parseNumeric(fields[:12])
			n, ok2 := parseNumeric(fields[12:24])
			if !ok1 || !ok2 {
				return errSparse
			}
			h.extents = append(h.extents, extent{off: off, len: n})
		}
		if len(h.extents) > r.lim.MaxExtents {
			return tooManyExtents(r.lim.MaxExtents)
		}
		if !more {
			return nil
		}
		if err := r.readFull(r.ext[:]); err != nil {
			return err
		}
		fields, more = r.ext[:504], r.ext[504] != 0
	}
}

// readMap reads the map of version 1.0, which lies before the data: decimal numbers, each on a line, padded to a block.
func (r *reader) readMap(h *header) error {
	var pending []byte
	used := 0
	line := func() (int64, error) {
		for {
			if i := bytes.IndexByte(pending[used:], '\n'); i >= 0 {
				n, ok := parseDecimal(pending[used : used+i])
				used += i + 1
				if !ok || n < 0 {
					return 0, errSparse
				}
				return n, nil
			}
			if len(pending)-used > 20 || h.stored < blockSize {
				return 0, errSparse
			}
			pending = append(pending[:0], pending[used:]...)
			used = 0
			if err := r.readFull(r.ext[:]); err != nil {
				return 0, err
			}
			pending = append(pending, r.ext[:]...)
			h.stored -= blockSize
			h.pos += blockSize
		}
	}
	count, err := line()
	if err != nil {
		return err
	}
	if count > int64(r.lim.MaxExtents) {
		return tooManyExtents(r.lim.MaxExtents)
	}
	h.extents = h.extents[:0]
	for range count {
		off, err := line()
		if err != nil {
			return err
		}
		n, err := line()
		if err != nil {
			return err
		}
		h.extents = append(h.extents, extent{off: off, len: n})
	}
	return nil
}
