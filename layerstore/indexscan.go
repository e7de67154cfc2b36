package layerstore

import (
	"strconv"
	"strings"
	"unicode/utf8"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// scanIndex reads index.json in the very form that writeIndex gives it, many times faster than encoding/json reads any
// JSON: every command reads all of it. Of another form, as other tools write it, it says false, and nothing else.
func scanIndex(b []byte) (ix v1.Index, ok bool) {
	if !utf8.Valid(b) {
		return ix, false
	}
	s := scanner(b)
	ok = s.skip(`{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","manifests":[`)
	ix.SchemaVersion, ix.MediaType = 2, v1.MediaTypeImageIndex
	for more := ok && !s.skip("]"); more; {
		var d v1.Descriptor
		if d, ok = s.descriptor(); !ok {
			return v1.Index{}, false
		}
		ix.Manifests = append(ix.Manifests, d)
		if more = s.skip(","); !more {
			ok = s.skip("]")
		}
	}
	return ix, ok && s.skip("}") && s == ""
}

// scanner is what is left to read.
type scanner string

func (s *scanner) skip(prefix string) bool {
	rest, ok := strings.CutPrefix(string(*s), prefix)
	*s = scanner(rest)
	return ok
}

func (s *scanner) descriptor() (d v1.Descriptor, ok bool) {
	var text, size string
	if !s.skip(`{"mediaType":`) || !s.text(&d.MediaType) || !s.skip(`,"digest":`) || !s.text(&text) || !s.skip(`,"size":`) {
		return d, false
	}
	d.Digest = Digest(text)
	end := strings.IndexAny(string(*s), ",}")
	if end < 0 {
		return d, false
	}
	size, *s = string((*s)[:end]), (*s)[end:]
	n, err := strconv.ParseInt(size, 10, 64)
	if d.Size = n; err != nil || strconv.FormatInt(n, 10) != size {
		return d, false
	}
	if !s.skip(`,"annotations":{`) {
		return d, s.skip("}")
	}
	d.Annotations = make(map[string]string, 8)
	for more := true; more; more = s.skip(",") {
		var key string
		if !s.text(&key) || !s.skip(":") || !s.text(&text) {
			return d, false
		}
		d.Annotations[key] = text
	}
	return d, s.skip("}}")
}

// text reads a string without escapes.
func (s *scanner) text(to *string) bool {
	if !s.skip(`"`) {
		return false
	}
	end := strings.IndexByte(string(*s), '"')
	if end < 0 {
		return false
	}
	*to, *s = string((*s)[:end]), (*s)[end+1:]
	for i := range len(*to) {
		if c := (*to)[i]; c == '\\' || c < ' ' {
			return false
		}
	}
	return true
}
