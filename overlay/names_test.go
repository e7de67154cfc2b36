package overlay

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestNamesKeepApart puts and drops names of all lengths, which take each other's room.
func TestNamesKeepApart(t *testing.T) {
	var a nameArena
	rnd := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- repeatable
	kept := map[nameRef]string{}
	for i := range 20_000 {
		if i%3 == 2 {
			for r := range kept {
				a.drop(r)
				delete(kept, r)
				break
			}
			continue
		}
		name := strings.Repeat(string(rune('a'+i%26)), rnd.IntN(MaxName)+1)
		r := a.put(name)
		if old, ok := kept[r]; ok {
			t.Fatalf("%q was given the room of %q", name, old)
		}
		kept[r] = name
	}
	for r, want := range kept {
		if got := a.get(r); got != want {
			t.Fatalf("name %d is %q, was %q", r, got, want)
		}
	}
	if a.put("") != 0 || a.get(0) != "" {
		t.Error("the empty name takes room")
	}
}

func TestNamesTakeNoMoreWhenUsedAgain(t *testing.T) {
	var a nameArena
	for range 10_000 {
		for _, n := range []int{1, 15, 16, 31, 200, 255} {
			a.drop(a.put(strings.Repeat("n", n)))
		}
	}
	if len(a.chunks) > 1 {
		t.Errorf("%d pieces of memory for six names", len(a.chunks))
	}
}
