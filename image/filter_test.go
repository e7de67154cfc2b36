package image

import (
	"testing"
	"time"
)

func TestParseUntil(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	local := func(y int, m time.Month, d, h, min, s int) time.Time {
		return time.Date(y, m, d, h, min, s, 0, time.Local)
	}
	for text, want := range map[string]time.Time{
		"24h": now.Add(-24 * time.Hour), "10m": now.Add(-10 * time.Minute), "1h30m": now.Add(-90 * time.Minute),
		"2006-01-02T15:04:05": local(2006, 1, 2, 15, 4, 5), "2006-01-02": local(2006, 1, 2, 0, 0, 0),
		"2006-01-02T15:04:05.25Z": time.Date(2006, 1, 2, 15, 4, 5, 25e7, time.UTC), "2006-01-02Z": time.Date(2006, 1, 2, 0, 0, 0, 0, time.UTC),
		"1136073845": time.Unix(1136073845, 0), "1136073845.000000001": time.Unix(1136073845, 1),
	} {
		if got, err := ParseUntil(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "soon", "12x", "2006-13-01", "1.x"} {
		if got, err := ParseUntil(text, now); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
