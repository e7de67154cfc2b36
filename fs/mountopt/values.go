package mountopt

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/plyfs/plyfs/fs"
)

// word is an option that has no value.
func word(f func(o *Options)) setter {
	return func(o *Options, opt Option) error {
		if opt.HasValue {
			return fmt.Errorf("%w %s: %s takes no value", ErrInvalid, opt, opt.Name)
		}
		f(o)
		return nil
	}
}

// nothing is an option that asks for what is so in any case.
func nothing() setter { return word(func(*Options) {}) }

// ignored is an option, with or without a value, that is not for the filesystem.
func ignored() setter { return func(*Options, Option) error { return nil } }

// text is an option with any value but an empty one.
func text(f func(o *Options, v string) error) setter {
	return func(o *Options, opt Option) error {
		if opt.Value == "" {
			return fmt.Errorf("%w %s: %s= needs a value", ErrInvalid, opt, opt.Name)
		}
		return f(o, opt.Value)
	}
}

// choice is an option that has one of a few values; each either does something or is refused for a reason.
func choice(names string, f func(o *Options, v string) error) setter {
	return func(o *Options, opt Option) error {
		for n := range strings.SplitSeq(names, "|") {
			if opt.HasValue && opt.Value == n {
				o.set[opt.Name] = opt.Value
				return f(o, opt.Value)
			}
		}
		return fmt.Errorf("%w %s: %s= is one of %s", ErrInvalid, opt, opt.Name, strings.ReplaceAll(names, "|", ", "))
	}
}

// boolean is an option that is 0 or 1.
func boolean(f func(o *Options, on bool)) setter {
	return choice("0|1", func(o *Options, v string) error {
		f(o, v == "1")
		return nil
	})
}

// refused is an option that cannot be honoured.
func refused(why string) setter {
	return func(_ *Options, opt Option) error {
		return fmt.Errorf("mount option %s %w: %s", opt, ErrUnsupported, why)
	}
}

// number is an option that is a whole number from least to most.
func number(least, most int64, f func(o *Options, n int64)) setter {
	return func(o *Options, opt Option) error {
		n, err := strconv.ParseInt(opt.Value, 10, 64)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%w %s: %s= is a number from %d to %d", ErrInvalid, opt, opt.Name, least, most)
		}
		f(o, n)
		return nil
	}
}

// maxSeconds is longer than anyone waits, and fits a time.Duration.
const maxSeconds = math.MaxUint32

// seconds is an option that is a time in seconds, in decimals.
func seconds(f func(o *Options, d *time.Duration)) setter {
	return func(o *Options, opt Option) error {
		s, err := strconv.ParseFloat(opt.Value, 64)
		if err != nil || math.IsNaN(s) || s < 0 || s > maxSeconds {
			return fmt.Errorf("%w %s: %s= is a number of seconds from 0 to %d", ErrInvalid, opt, opt.Name, int64(maxSeconds))
		}
		d := time.Duration(s * float64(time.Second))
		f(o, &d)
		return nil
	}
}

const (
	maxID     = math.MaxUint32 - 1 // the last one means "none" to chown(2)
	maxRanges = 340                // of a user namespace's map (user_namespaces(7))
)

// idMap is an option that maps owners: "kept:shown:count" once or several times over.
func idMap(f func(o *Options, m fs.IDMap)) setter {
	return func(o *Options, opt Option) error {
		fail := func(why string) error {
			return fmt.Errorf("%w %s: %s; it is ID:SHOWN-ID:COUNT, once or several times", ErrInvalid, opt, why)
		}
		parts := strings.Split(opt.Value, ":")
		if len(parts)%3 != 0 {
			return fail("not triples of numbers")
		}
		if len(parts)/3 > maxRanges {
			return fail(fmt.Sprintf("more than %d ranges", maxRanges))
		}
		var m fs.IDMap
		for i := 0; i < len(parts); i += 3 {
			var n [3]uint32
			for j := range n {
				v, err := strconv.ParseUint(parts[i+j], 10, 32)
				if err != nil {
					return fail(fmt.Sprintf("%q is no ID", parts[i+j]))
				}
				n[j] = uint32(v)
			}
			if n[2] == 0 || uint64(n[0])+uint64(n[2])-1 > maxID || uint64(n[1])+uint64(n[2])-1 > maxID {
				return fail(fmt.Sprintf("a range of %d IDs from %d and %d does not exist", n[2], n[0], n[1]))
			}
			m = append(m, fs.IDRange{Kept: n[0], Shown: n[1], Count: n[2]})
		}
		if overlaps(m) {
			return fail("ranges overlap")
		}
		f(o, m)
		return nil
	}
}

func overlaps(m fs.IDMap) bool {
	meet := func(a, b, n, k uint32) bool {
		return uint64(a) < uint64(b)+uint64(k) && uint64(b) < uint64(a)+uint64(n)
	}
	for i, a := range m {
		for _, b := range m[:i] {
			if meet(a.Kept, b.Kept, a.Count, b.Count) || meet(a.Shown, b.Shown, a.Count, b.Count) {
				return true
			}
		}
	}
	return false
}
