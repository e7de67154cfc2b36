package main

import (
	"strings"
	"testing"
)

func TestRatio(t *testing.T) {
	cases := []struct {
		name string
		a, b series
		want string
	}{
		{"clear", series{2.0, 2.1, 1.9}, series{1.0, 1.0, 1.1}, "2.00"},
		{"one outlier does not count", series{2.0, 2.0, 2.1, 2.0, 9.0}, series{1, 1, 1, 1, 1}, "2.00"},
		{"varies more than it differs", series{1.0, 1.5, 2.0}, series{1.2, 1.4, 1.6}, "none: runs vary by 36 %"},
		{"no difference at all", series{1, 1, 1}, series{1, 1, 1}, "1.00"},
		{"too few", series{2, 2}, series{1, 1}, "none: too few rounds"},
		{"not measured", nil, series{1, 1, 1}, "–"},
		{"zero", series{1, 1, 1}, series{0, 0, 0}, "none"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := ratioText(c.a, c.b); !strings.HasPrefix(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestQuantiles(t *testing.T) {
	s := series{5, 1, 3, 2, 4}
	if s.median() != 3 || s.quantile(0.25) != 2 || s.quantile(0.75) != 4 || s.spread() != 2 {
		t.Errorf("median %v, quartiles %v and %v", s.median(), s.quantile(0.25), s.quantile(0.75))
	}
	if got := (series{1, 2}).median(); got != 1.5 {
		t.Errorf("the median of 1 and 2 is %v", got)
	}
	if got := (series{}).median(); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
}
