package overlay

import (
	"testing"
)

func TestSipHashVectors(t *testing.T) {
	// Vectors of the paper's reference implementation: key 00..0f, input 00, 01, 02, … of each length.
	const k0, k1 = 0x0706050403020100, 0x0f0e0d0c0b0a0908
	in := make([]byte, 0, 16)
	for i := range 16 {
		in = append(in, byte(i))
	}
	for n, want := range map[int]uint64{
		0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 7: 0xab0200f58b01d137, 8: 0x93f5f5799a932462, 15: 0xa129ca6149be45e5,
	} {
		if got := sipHash(k0, k1, string(in[:n])); got != want {
			t.Errorf("sipHash of %d bytes = %#x, want %#x", n, got, want)
		}
	}
}
