package tarlayer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
)

// reader parses an archive as it streams by, without seeking and without keeping file contents.
type reader struct {
	br   *bufio.Reader
	lim  *Limits
	off  int64           // bytes taken from br
	skip int64           // bytes of the last entry's data and padding not yet taken
	blk  [blockSize]byte // the entry's header block, into which h.name and h.link may point
	ext  [blockSize]byte // a block of a sparse map

	h       header
	nameBuf []byte
	globals paxDefaults
	sp      sparseState
	pending struct { // extended headers for the next entry
		any                      bool
		pax, name, link          []byte
		hasPAX, hasName, hasLink bool
	}
}

func newReader(r io.Reader, lim *Limits) *reader {
	return &reader{br: bufio.NewReaderSize(r, 256<<10), lim: lim}
}

// readError puts an error of the stream into words. A stream that ends early is the archive's fault.
func (r *reader) readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off at byte %d", ErrArchive, r.off)
	}
	return &streamError{r.off, err}
}

// streamError is an error of the stream, which is no fault of the archive.
type streamError struct {
	off int64
	err error
}

func (e *streamError) Error() string {
	return fmt.Sprintf("reading the layer archive at byte %d: %v", e.off, e.err)
}

func (e *streamError) Unwrap() error { return e.err }

// room fails if n more bytes would be too many.
func (r *reader) room(n int64) error {
	if n > r.lim.MaxSize-r.off {
		return fmt.Errorf("%w: it is longer than %d bytes", ErrTooLarge, r.lim.MaxSize)
	}
	return nil
}

func (r *reader) readFull(b []byte) error {
	if err := r.room(int64(len(b))); err != nil {
		return err
	}
	n, err := io.ReadFull(r.br, b)
	r.off += int64(n)
	if err != nil {
		return r.readError(err)
	}
	return nil
}

func (r *reader) discard(n int64) error {
	if err := r.room(n); err != nil {
		return err
	}
	for n > 0 {
		m, err := r.br.Discard(int(min(n, 1<<30)))
		r.off += int64(m)
		n -= int64(m)
		if err != nil {
			return r.readError(err)
		}
	}
	return nil
}

// drain reads what follows the end of the archive.
func (r *reader) drain() error {
	for {
		n, err := r.br.Discard(int(min(1<<30, r.lim.MaxSize-r.off+1)))
		r.off += int64(n)
		if r.off > r.lim.MaxSize {
			return r.room(1)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return r.readError(err)
		}
	}
}

// block reads the next header block into r.blk. It returns io.EOF at the end of the archive.
func (r *reader) block() error {
	if err := r.discard(r.skip); err != nil {
		return err
	}
	r.skip = 0
	if _, err := r.br.Peek(1); errors.Is(err, io.EOF) {
		return io.EOF // many writers leave the end marker out
	}
	if err := r.readFull(r.blk[:]); err != nil {
		return err
	}
	if r.blk != [blockSize]byte{} {
		return nil
	}
	if _, err := r.br.Peek(1); errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err := r.readFull(r.blk[:]); err != nil {
		return err
	}
	if r.blk != [blockSize]byte{} {
		return fmt.Errorf("%w: a lone block of zeros ends at byte %d and more follows", ErrArchive, r.off-blockSize)
	}
	return io.EOF
}

// next returns the next entry, or io.EOF when the archive has ended.
func (r *reader) next() (*header, error) {
	p, h := &r.pending, &r.h
	p.any, p.hasPAX, p.hasName, p.hasLink = false, false, false, false
	for {
		if err := r.block(); err != nil {
			if errors.Is(err, io.EOF) && p.any {
				return nil, fmt.Errorf("%w: it ends after an extended header at byte %d", ErrArchive, r.off)
			}
			return nil, err
		}
		h.at = r.off - blockSize
		if !checksumOK(&r.blk) {
			return nil, fmt.Errorf("%w: there is no tar header at byte %d", ErrArchive, h.at)
		}
		var err error
		if r.nameBuf, err = parseBlock(&r.blk, h, r.nameBuf); err == nil {
			var extended bool
			if extended, err = r.extended(h); extended && err == nil {
				continue
			}
		}
		if err == nil {
			err = r.finish(h)
		}
		if err != nil {
			return nil, r.entryError(h, err)
		}
		return h, nil
	}
}

// entryError names the entry at fault.
func (r *reader) entryError(h *header, err error) error {
	var se *streamError
	if errors.As(err, &se) || errors.Is(err, ErrArchive) {
		return err
	}
	if errors.Is(err, ErrTooLarge) {
		return fmt.Errorf("entry %s at byte %d: %w", quote(h.name), h.at, err)
	}
	return fmt.Errorf("%w: entry %s at byte %d: %w", ErrArchive, quote(h.name), h.at, err)
}

// extended takes in a header that only says more about the entries after it.
func (r *reader) extended(h *header) (bool, error) {
	p := &r.pending
	var err error
	switch h.typ {
	case typePAX, typePAXSun:
		p.pax, err = r.readExtended(h, p.pax)
		p.hasPAX = true
	case typeLongName:
		p.name, err = r.readExtended(h, p.name)
		p.hasName = true
	case typeLongLink:
		p.link, err = r.readExtended(h, p.link)
		p.hasLink = true
	case typeGlobal:
		var b []byte
		if b, err = r.readExtended(h, nil); err == nil {
			err = r.globals.parseGlobal(b)
		}
		return true, err
	default:
		return false, nil
	}
	p.any = true
	return true, err
}

// readExtended reads the data of an extended header into buf.
func (r *reader) readExtended(h *header, buf []byte) ([]byte, error) {
	if h.size > int64(r.lim.MaxHeader) {
		return buf, fmt.Errorf("%w: an extended header has %d bytes, more than %d", ErrTooLarge, h.size, r.lim.MaxHeader)
	}
	n := int(h.size)
	buf = slices.Grow(buf[:0], n)[:n]
	if err := r.readFull(buf); err != nil {
		return buf, err
	}
	r.skip = padding(h.size)
	return buf, nil
}

func padding(n int64) int64 { return -n & (blockSize - 1) }

func (h *header) regular() bool {
	return h.typ == typeReg || h.typ == typeRegOld || h.typ == typeCont || h.typ == typeSparse
}

// finish merges what the extended headers say into the entry's own header and works out where its data lies.
func (r *reader) finish(h *header) error {
	r.sp.reset()
	r.globals.apply(h)
	if r.pending.hasPAX {
		if err := r.mergePAX(h, r.pending.pax); err != nil {
			return err
		}
	}
	if r.pending.hasName {
		h.name = cut(r.pending.name)
	}
	if r.pending.hasLink {
		h.link = cut(r.pending.link)
	}
	if h.regular() {
		h.stored = h.size
	}
	if h.stored > r.lim.MaxSize-r.off {
		return fmt.Errorf("%w: with its %d bytes the archive is longer than %d", ErrTooLarge, h.stored, r.lim.MaxSize)
	}
	total := h.stored + padding(h.stored)
	if h.typ == typeSparse {
		if err := r.readOldSparse(h); err != nil {
			return err
		}
	}
	begin := r.off
	h.pos = begin
	if err := r.resolveSparse(h); err != nil {
		return err
	}
	r.skip = total - (r.off - begin)
	if !h.hasAtime {
		h.atime = h.mtime
	}
	if !h.hasCtime {
		h.ctime = h.mtime
	}
	return nil
}
