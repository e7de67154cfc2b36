package inorder

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestEach(t *testing.T) {
	for _, count := range []int{0, 1, 2, 7, 8, 9, 16, 17, 1000} {
		names := make([]string, count)
		for i := range names {
			names[i] = fmt.Sprint(i)
		}
		want := slices.Sorted(slices.Values(names))
		rand.Shuffle(count, func(i, j int) { names[i], names[j] = names[j], names[i] })
		var got []string
		scans := 0
		err := each(8, func(emit func(string, int)) error {
			scans++
			for i, n := range names {
				emit(n, i)
			}
			return nil
		}, func(name string, i int) error {
			if names[i] != name {
				t.Errorf("%s came with the value of %s", name, names[i])
			}
			got = append(got, name)
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("of %d names: %q, %v", count, got, err)
		}
		if most := count/8 + 1; scans > most {
			t.Errorf("%d names were listed %d times", count, scans)
		}
	}
}

func TestEachFails(t *testing.T) {
	failure := errors.New("failed")
	err := Each(func(func(string, int)) error { return failure }, func(string, int) error { return nil })
	if !errors.Is(err, failure) {
		t.Errorf("scan: %v", err)
	}
	visits := 0
	err = Each(func(emit func(string, int)) error { emit("a", 0); emit("b", 0); return nil }, func(string, int) error { visits++; return failure })
	if !errors.Is(err, failure) || visits != 1 {
		t.Errorf("visit: %v after %d", err, visits)
	}
}
