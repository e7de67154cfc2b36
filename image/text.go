package image

import (
	"strings"
	"unicode"

	"github.com/opencontainers/go-digest"
)

// maxText limits texts of others in our messages, in bytes.
const maxText = 512

// clean makes a text of a registry or a user fit for one line of a terminal: no control characters, bounded length.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// short is the digest as docker shortens it: 12 digits.
func short(d digest.Digest) string {
	_, hex, ok := strings.Cut(string(d), ":")
	if !ok || len(hex) < 12 {
		return clean(string(d))
	}
	return hex[:12]
}
