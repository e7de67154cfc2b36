// Package inorder gives the names of a directory in the order of their bytes where it is listed in another order, in memory
// that does not grow with the directory.
package inorder

import (
	"container/heap"
	"slices"
	"strings"
)

// window is how many names are kept at a time: a directory with more is listed several times.
const window = 32768

// Each calls visit for all that scan emits, in the order of the names, which must be different ones and stay valid. It
// calls scan again for each window of names; what comes and goes between may be missed or not, as in any listing. An error
// of scan or visit ends it.
func Each[T any](scan func(emit func(name string, v T)) error, visit func(name string, v T) error) error {
	return each(window, scan, visit)
}

func each[T any](window int, scan func(emit func(name string, v T)) error, visit func(name string, v T) error) error {
	last, first := "", true
	for {
		var kept largest[T]
		more := false
		err := scan(func(name string, v T) {
			switch {
			case !first && name <= last:
			case len(kept) < window:
				kept = append(kept, item[T]{name, v})
				if len(kept) == window {
					heap.Init(&kept)
				}
			case name < kept[0].name:
				kept[0] = item[T]{name, v}
				heap.Fix(&kept, 0)
				more = true
			default:
				more = true
			}
		})
		if err != nil {
			return err
		}
		slices.SortFunc(kept, func(a, b item[T]) int { return strings.Compare(a.name, b.name) })
		for _, it := range kept {
			if err := visit(it.name, it.v); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		last, first = kept[len(kept)-1].name, false
	}
}

type item[T any] struct {
	name string
	v    T
}

// largest is a heap with the largest name on top.
type largest[T any] []item[T]

// Len implements [heap.Interface].
func (h largest[T]) Len() int { return len(h) }

// Less implements [heap.Interface].
func (h largest[T]) Less(i, j int) bool { return h[i].name > h[j].name }

// Swap implements [heap.Interface].
func (h largest[T]) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements [heap.Interface]; nothing is pushed.
func (h largest[T]) Push(any) {}

// Pop implements [heap.Interface]; nothing is popped.
func (h largest[T]) Pop() any { return nil }
