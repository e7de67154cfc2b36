package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"

	"github.com/plyfs/plyfs/layerstore"
)

// maxWindow bounds what a decompressor keeps of the past, bytes; xz -9 wants 64 MiB.
const maxWindow = 128 << 20

// ErrArchive says that a file is no archive of images or files, or a damaged one.
var ErrArchive = errors.New("bad archive")

func archiveErrorf(format string, args ...any) error {
	e := &kindError{kind: ErrArchive, msg: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if err, ok := a.(error); ok {
			e.cause = err
		}
	}
	return e
}

// unpacker reads the uncompressed bytes of a stream that may be gzip, zstd, xz or bzip2: the content decides. A stream that
// unpacks to more than layerstore.DefaultMaxUnpacked of what was read of it is taken for a bomb.
type unpacker struct {
	in    *countingReader
	r     io.Reader
	close func()
	plain bool
	out   int64
}

func newUnpacker(r io.Reader) (*unpacker, error) {
	in := &countingReader{r: r}
	br := bufio.NewReaderSize(in, copyBuffer)
	magic, err := br.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	u := &unpacker{in: in, r: br, close: func() {}}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}): // RFC 1952
		u.r, err = gzip.NewReader(br)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}): // RFC 8878
		var zr *zstd.Decoder
		zr, err = zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			u.r, u.close = zr, zr.Close
		}
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")): // https://tukaani.org/xz/xz-file-format.txt
		u.r, err = xz.NewReader(br, maxWindow)
	case bytes.HasPrefix(magic, []byte("BZh")):
		u.r = bzip2.NewReader(br)
	default:
		u.plain = true
	}
	if err != nil && (!u.plain || !errors.Is(err, io.EOF)) {
		return nil, archiveErrorf("its compression is damaged: %s", clean(err.Error()))
	}
	return u, nil
}

func (u *unpacker) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	u.out += int64(n)
	switch {
	case u.plain:
		return n, err
	case u.in.err != nil && !errors.Is(u.in.err, io.EOF):
		return n, u.in.err
	case u.out > layerstore.DefaultMaxUnpacked(u.in.n):
		return n, &kindError{kind: layerstore.ErrTooLarge, msg: fmt.Sprintf("%d compressed bytes unpack to more than %d: it is taken for a "+
			"decompression bomb", u.in.n, layerstore.DefaultMaxUnpacked(u.in.n))}
	case err != nil && !errors.Is(err, io.EOF):
		return n, archiveErrorf("its compression is damaged: %s", clean(err.Error()))
	}
	return n, err
}

// Close releases the decompressor's memory.
func (u *unpacker) Close() error {
	u.close()
	return nil
}

// countingReader counts the bytes read and remembers the error that ended them.
type countingReader struct {
	r   io.Reader
	n   int64
	err error
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.err = err
	return n, err
}
