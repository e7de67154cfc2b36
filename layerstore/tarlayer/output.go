package tarlayer

import (
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// output writes the body of an index: it appends, and changes or reads back what it wrote.
type output struct {
	f     *os.File
	buf   []byte // what is not yet in the file
	start int64  // where buf belongs
}

const outputBuffer = 128 << 10

func newOutput(f *os.File) (*output, error) {
	if err := f.Truncate(0); err != nil {
		return nil, fmt.Errorf("emptying the layer index: %w", err)
	}
	return &output{f: f, buf: make([]byte, 0, outputBuffer), start: headerSize}, nil
}

func (o *output) pos() int64 { return o.start + int64(len(o.buf)) }

// append adds b and returns the offset at which it begins.
func (o *output) append(b []byte) (uint32, error) {
	at := o.pos()
	if at+int64(len(b)) > maxIndexSize {
		return 0, fmt.Errorf("%w: its index would have more than %d bytes", ErrTooLarge, int64(maxIndexSize))
	}
	if len(o.buf)+len(b) > cap(o.buf) {
		if err := o.flush(); err != nil {
			return 0, err
		}
	}
	if len(b) > cap(o.buf) {
		if err := o.write(b, o.start); err != nil {
			return 0, err
		}
		o.start += int64(len(b))
	} else {
		o.buf = append(o.buf, b...)
	}
	return uint32(at), nil //nolint:gosec // checked above
}

// align fills up with zeros to a multiple of n, a power of two of at most 64.
func (o *output) align(n int64) error {
	var zeros [64]byte
	_, err := o.append(zeros[:-o.pos()&(n-1)])
	return err
}

func (o *output) flush() error {
	err := o.write(o.buf, o.start)
	o.start += int64(len(o.buf))
	o.buf = o.buf[:0]
	return err
}

func (o *output) write(b []byte, at int64) error {
	if _, err := o.f.WriteAt(b, at); err != nil {
		return fmt.Errorf("writing the layer index: %w", err)
	}
	return nil
}

// patch overwrites what was appended as one piece at offset at.
func (o *output) patch(b []byte, at int64) error {
	if at >= o.start {
		copy(o.buf[at-o.start:], b)
		return nil
	}
	return o.write(b, at)
}

// read reads back what was appended as one piece at offset at.
func (o *output) read(b []byte, at int64) error {
	if at >= o.start {
		copy(b, o.buf[at-o.start:])
		return nil
	}
	if _, err := o.f.ReadAt(b, at); err != nil {
		return fmt.Errorf("reading back the layer index: %w", err)
	}
	return nil
}

// finish writes the header over the finished body.
func (o *output) finish(h *fileHeader) error {
	if err := o.flush(); err != nil {
		return err
	}
	h.indexSize = uint64(o.start) //nolint:gosec // not negative
	sum := crc32.New(castagnoli)
	buf := o.buf[:cap(o.buf)]
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(o.f, headerSize, o.start-headerSize), buf); err != nil {
		return fmt.Errorf("reading back the layer index: %w", err)
	}
	h.bodyCRC = sum.Sum32()
	return o.write(h.encode(), 0)
}
