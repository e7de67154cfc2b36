package tarlayer

import (
	"bytes"
	"math"

	"github.com/plyfs/plyfs/overlay"
)

// parseNumeric reads a number field of a header block: octal, or GNU's base-256 with the first bit set.
func parseNumeric(b []byte) (int64, bool) {
	if len(b) > 0 && b[0]&0x80 != 0 {
		return parseBase256(b)
	}
	b = bytes.Trim(b, " \x00")
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '7' || n > math.MaxInt64>>3 {
			return 0, false
		}
		n = n<<3 | int64(c-'0')
	}
	return n, true
}

// parseBase256 reads a big-endian two's complement number whose first bit is a mark and whose second is the sign.
func parseBase256(b []byte) (int64, bool) {
	var inv byte
	if b[0]&0x40 != 0 {
		inv = 0xff
	}
	var n uint64
	for i, c := range b {
		c ^= inv
		if i == 0 {
			c &= 0x7f
		}
		if n>>55 != 0 {
			return 0, false
		}
		n = n<<8 | uint64(c)
	}
	if n > math.MaxInt64 {
		return 0, false
	}
	if inv != 0 {
		return int64(^n), true //nolint:gosec // two's complement is meant
	}
	return int64(n), true
}

// parseDecimal reads a number of a PAX record: decimal digits, perhaps after a minus.
func parseDecimal(b []byte) (int64, bool) {
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxInt64-9)/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if neg {
		n = -n
	}
	return n, true
}

// parsePAXTime reads seconds with a decimal fraction, of which more than nine digits are cut off.
func parsePAXTime(b []byte) (overlay.Timespec, bool) {
	secs, frac, _ := bytes.Cut(b, []byte{'.'})
	neg := len(secs) > 0 && secs[0] == '-'
	sec, ok := parseDecimal(secs)
	if !ok {
		return overlay.Timespec{}, false
	}
	var nsec uint32
	for i := range max(9, len(frac)) {
		var c byte = '0'
		if i < len(frac) {
			c = frac[i]
		}
		if c < '0' || c > '9' {
			return overlay.Timespec{}, false
		}
		if i < 9 {
			nsec = nsec*10 + uint32(c-'0')
		}
	}
	if neg && nsec > 0 {
		sec, nsec = sec-1, 1e9-nsec
	}
	return overlay.Timespec{Sec: sec, Nsec: nsec}, true
}
