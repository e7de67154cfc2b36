package main

import (
	"fmt"
	"slices"
)

// series is what one contender took in each round, seconds or bytes.
type series []float64

// median is the middle of the values, 0 of none.
func (s series) median() float64 { return s.quantile(0.5) }

// spread is the distance between the first and the third quartile.
func (s series) spread() float64 { return s.quantile(0.75) - s.quantile(0.25) }

// quantile interpolates between the two values next to it.
func (s series) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 == len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// minRounds is how many rounds a ratio takes at least: with fewer there is no spread to hold it against.
const minRounds = 3

// ratio returns a's median over b's. ok is false when the runs of one of them vary by more than the medians differ, so
// that another series of rounds could as well show the opposite.
func ratio(a, b series) (r float64, ok bool) {
	if len(a) < minRounds || len(b) < minRounds || b.median() <= 0 {
		return 0, false
	}
	difference := a.median() - b.median()
	if difference < 0 {
		difference = -difference
	}
	return a.median() / b.median(), max(a.spread(), b.spread()) <= difference
}

// ratioText is a ratio for a table, or why there is none.
func ratioText(a, b series) string {
	if len(a) == 0 || len(b) == 0 {
		return "–"
	}
	if len(a) < minRounds || len(b) < minRounds {
		return "none: too few rounds"
	}
	r, ok := ratio(a, b)
	if !ok {
		return fmt.Sprintf("none: runs vary by %.0f %%", 100*max(a.spread(), b.spread())/b.median())
	}
	return fmt.Sprintf("%.2f", r)
}

// secondsText is a time and its spread for a table.
func secondsText(s series) string {
	if len(s) == 0 {
		return "–"
	}
	switch m := s.median(); {
	case m < 0.001:
		return fmt.Sprintf("%.0f µs ± %.0f", m*1e6, s.spread()/2*1e6)
	case m < 1:
		return fmt.Sprintf("%.1f ms ± %.1f", m*1e3, s.spread()/2*1e3)
	default:
		return fmt.Sprintf("%.2f s ± %.2f", m, s.spread()/2)
	}
}
