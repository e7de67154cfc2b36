package image

import (
	"path"
	"strings"
)

// splitName reads a full reference of the store. Those are many in a list, so what is plainly of our own form is not parsed
// as what a user writes; else ok tells whether ParseReference takes it.
func splitName(full string) (r nameParts, ok bool) {
	name, digest, _ := strings.Cut(full, "@")
	tag := ""
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
	}
	domain, _, ok := strings.Cut(name, "/")
	if ok && strings.ContainsAny(domain, ".:") && !strings.ContainsFunc(full, foreign) && (tag != "" || digest != "") {
		return nameParts{familiarName(name), tag, digest}, true
	}
	ref, err := ParseReference(full)
	if err != nil {
		return nameParts{}, false
	}
	return nameParts{ref.FamiliarName(), ref.Tag, string(ref.Digest)}, true
}

// nameParts is a reference as docker lists it.
type nameParts struct{ repository, tag, digest string }

// foreign tells of a character that no reference has.
func foreign(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return false
	}
	return !strings.ContainsRune("._:/@-+[]", r)
}

// familiarName shortens a repository in full as docker does.
func familiarName(name string) string {
	rest, ok := strings.CutPrefix(name, "docker.io/")
	if !ok {
		return name
	}
	if short, ok := strings.CutPrefix(rest, "library/"); ok && !strings.Contains(short, "/") {
		return short
	}
	return rest
}

// String is the reference as docker prints it.
func (n nameParts) String() string {
	s := n.repository
	if n.tag != "" {
		s += ":" + n.tag
	}
	if n.digest != "" {
		s += "@" + n.digest
	}
	return s
}

// matches tells whether a pattern, as path.Match has them, takes the reference or its repository.
func (n nameParts) matches(pattern string) (bool, error) {
	if ok, err := path.Match(pattern, n.String()); ok || err != nil {
		return ok, err
	}
	return path.Match(pattern, n.repository)
}
