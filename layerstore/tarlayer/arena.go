package tarlayer

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The builder keeps its tables outside the Go heap: a layer of a million files would otherwise let the garbage
// collector double what they cost, and growing slices would copy them. The element types hold no pointers.

// mapSlice returns n zeroed elements, to be given back with unmapSlice.
func mapSlice[T any](n int) ([]T, error) {
	if n == 0 {
		return nil, nil
	}
	var zero T
	size := n * int(unsafe.Sizeof(zero))
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes of memory for a layer index: %w", size, err)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

func unmapSlice[T any](s []T) {
	if len(s) == 0 {
		return
	}
	size := len(s) * int(unsafe.Sizeof(s[0]))
	_ = unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), size))
}

const vectorShift = 15

// vector is a growing array whose elements never move.
type vector[T any] struct {
	chunks [][]T
	n      int
}

func (v *vector[T]) at(i uint32) *T {
	return &v.chunks[i>>vectorShift][i&(1<<vectorShift-1)]
}

func (v *vector[T]) push(x T) error {
	if v.n>>vectorShift == len(v.chunks) {
		c, err := mapSlice[T](1 << vectorShift)
		if err != nil {
			return err
		}
		v.chunks = append(v.chunks, c)
	}
	*v.at(uint32(v.n)) = x //nolint:gosec // MaxEntries bounds it
	v.n++
	return nil
}

func (v *vector[T]) free() {
	for _, c := range v.chunks {
		unmapSlice(c)
	}
	*v = vector[T]{}
}

// alias makes a string of b without a copy: it is valid as long as b is not changed.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
