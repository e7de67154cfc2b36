package overlay

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestListingGoesOn: a listing that stops anywhere goes on with its cookie, also in a union that was put together anew.
func TestListingGoesOn(t *testing.T) {
	r := newRig(t, 2)
	const n = 300
	for i := range n {
		r.low(i%2, fmt.Sprint("d/", i), "")
	}
	r.open()
	for i := range n {
		r.create(fmt.Sprint("d/up", i))
	}
	r.unlink("d/7")
	seen := map[string]int{}
	after := uint64(0)
	for {
		count := 0
		r.ok(r.u.ReadDir(r.id("d"), after, func(e *ListEntry) bool {
			seen[e.Name]++
			after = e.Cookie
			count++
			return count < 50
		}))
		if count < 50 {
			break
		}
		r.reopen()
	}
	if want := 2*n - 1 + 2; len(seen) != want {
		t.Errorf("%d names are listed, want %d", len(seen), want)
	}
	for name, times := range seen {
		if times != 1 {
			t.Errorf("%s is listed %d times", name, times)
		}
	}
	if seen["7"] != 0 {
		t.Error("a removed name is listed")
	}
}

// TestListedNumbersAreThoseOfStat also for what was renamed, linked or copied up.
func TestListedNumbersAreThoseOfStat(t *testing.T) {
	r := newRig(t, 2)
	for _, n := range []string{"a/f", "a/g", "b/h", "b/sub/x"} {
		r.low(1, n, n)
	}
	r.low(0, "b/sub/y", "")
	r.ok(unix.Link(filepath.Join(r.lowers[1], "a/g"), filepath.Join(r.lowers[1], "b/g")))
	r.open()
	r.chmod("a/f", 0o600)
	r.ok(r.rename("a/f", "b/f", 0))
	r.ok(r.rename("b/sub", "a/sub", 0))
	r.link("b/h", "a/h")
	r.write("a/g", "new")
	r.mkdir("a/made")
	want := r.tree() // which compares them
	r.reopen()
	sameTree(t, r.tree(), want)
}
