package layerstore

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxZstdWindow bounds the memory of one zstd decoder, bytes: what `zstd -d` takes without --long, RFC 8878 asks for 8 MiB.
const maxZstdWindow = 128 << 20

// errCompression marks an error of a decompressor, to tell it from one of the pipeline.
var errCompression = damaged("damaged compression")

// newDecoder returns a reader of the uncompressed bytes of a layer that is gzip (several members are one stream; RFC
// 1952) or zstd (several frames; RFC 8878). What the bytes are decides, not what a media type claims. Bytes that follow
// the last member and begin none are an error.
func newDecoder(br *bufio.Reader) (io.ReadCloser, error) {
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, decodeError(err)
		}
		return zr, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		zr, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, decodeError(err)
		}
		return zr.IOReadCloser(), nil
	}
	return nil, damaged("neither gzip nor zstd, and not the uncompressed layer either")
}

func decodeError(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", errCompression, err)
}

// fill reads until p is full, the end (io.EOF) or an error.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}
