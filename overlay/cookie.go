package overlay

import (
	"encoding/binary"
	"math/bits"
)

// Cookies below firstCookie are kept for the start of a listing, "." and "..".
const (
	CookieStart  uint64 = 0 // before the first entry
	CookieDot    uint64 = 1 // the position after "."
	CookieDotDot uint64 = 2 // the position after ".."
	firstCookie  uint64 = 3
)

// cookieKey is the fixed SipHash key: cookies must mean the same to every server at any time, and are written into
// layer indexes.
const (
	cookieKey0 uint64 = 0x706c7966732d6469 // "plyfs-di"
	cookieKey1 uint64 = 0x722d636f6f6b6965 // "r-cookie"
)

// Cookie returns the position of a name in the listing of any directory: SipHash-2-4 of the name, of which 62 bits are
// kept so that it is a positive off_t for every user of telldir(3), raised above the positions of "." and "..".
func Cookie(name string) uint64 {
	return max(sipHash(cookieKey0, cookieKey1, name)>>2, firstCookie)
}

// sipHash is SipHash-2-4 of Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012).
func sipHash(k0, k1 uint64, s string) uint64 {
	v0 := k0 ^ 0x736f6d6570736575
	v1 := k1 ^ 0x646f72616e646f6d
	v2 := k0 ^ 0x6c7967656e657261
	v3 := k1 ^ 0x7465646279746573
	round := func() {
		v0 += v1
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v3
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 += v3
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 += v1
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v2 = bits.RotateLeft64(v2, 32)
	}
	last := uint64(len(s)) << 56
	for len(s) >= 8 {
		m := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		v3 ^= m
		round()
		round()
		v0 ^= m
		s = s[8:]
	}
	var tail [8]byte
	copy(tail[:], s)
	m := last | binary.LittleEndian.Uint64(tail[:])
	v3 ^= m
	round()
	round()
	v0 ^= m
	v2 ^= 0xff
	round()
	round()
	round()
	round()
	return v0 ^ v1 ^ v2 ^ v3
}
