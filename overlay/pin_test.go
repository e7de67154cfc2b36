package overlay

import (
	"fmt"
	"testing"
)

// TestLinkedFilesTakeNoDescriptors: a program that makes second names for many files and removes the first, or the
// second, holds none of them open; nor may the server, whose descriptors are few.
func TestLinkedFilesTakeNoDescriptors(t *testing.T) {
	const files = 300
	for _, goes := range []string{"a", "b"} {
		r := newRig(t, 1).open()
		r.mkdir("a")
		r.mkdir("b")
		for i := range files {
			from, to := fmt.Sprint("a/", i), fmt.Sprint("b/", i)
			r.write(from, from)
			r.link(from, to)
		}
		for i := range files { // the kernel holds the inodes by the names that stay
			r.unlink(fmt.Sprint(goes, "/", i))
		}
		if n := len(r.u.pins); n > 0 {
			t.Errorf("%s goes: %d descriptors are held", goes, n)
		}
		stays := map[string]string{"a": "b", "b": "a"}[goes]
		for i := range files {
			r.reads(fmt.Sprint(stays, "/", i), fmt.Sprint("a/", i))
		}
	}
}
