package image

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxNested is how deep ${A:-${B:-…}} may go.
const maxNested = 16

// keyValues reads KEY=VALUE..., or the old form KEY VALUE with one pair.
func keyValues(text string, env []string) ([][2]string, error) {
	first, rest := cutWord(text)
	if !strings.Contains(first, "=") {
		if rest == "" {
			return nil, changeErrorf("%s must have two arguments", clean(first))
		}
		value, err := expand(rest, env)
		return [][2]string{{first, value}}, err
	}
	list, err := words(text, env)
	if err != nil {
		return nil, err
	}
	pairs := make([][2]string, len(list))
	for i, w := range list {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return nil, changeErrorf("can't find = in %q: it must be of the form name=value", clean(w))
		}
		pairs[i] = [2]string{key, value}
	}
	return pairs, nil
}

func oneWord(text string, env []string) (string, error) {
	list, err := words(text, env)
	if err == nil && len(list) != 1 {
		err = changeErrorf("it requires exactly one argument")
	}
	if err != nil {
		return "", err
	}
	return list[0], nil
}

// words splits a text at its blanks as a shell does, apart from what a shell has for commands and files: quotes,
// backslashes and variables.
func words(text string, env []string) ([]string, error) {
	l := lexer{text: text, env: env, split: true}
	err := l.run()
	return l.words, err
}

// expand is words of a text that stays one.
func expand(text string, env []string) (string, error) {
	l := lexer{text: text, env: env}
	err := l.run()
	return l.word.String(), err
}

// lexer reads a text of words.
type lexer struct {
	text  string // what is left of it
	env   []string
	split bool
	depth int

	word  strings.Builder
	some  bool // there is a word, perhaps an empty one in quotes
	words []string
}

func (l *lexer) run() error {
	for l.text != "" {
		c := l.text[0]
		l.text = l.text[1:]
		var err error
		switch {
		case l.split && (c == ' ' || c == '\t' || c == '\n'):
			l.endWord()
			continue
		case c == '\'':
			err = l.single()
		case c == '"':
			err = l.double()
		case c == '\\' && l.text != "":
			l.word.WriteByte(l.text[0])
			l.text = l.text[1:]
		case c == '$':
			err = l.variable()
		default:
			l.word.WriteByte(c)
		}
		l.some = true
		if err == nil && l.word.Len() > maxChanges {
			err = changeErrorf("a value has more than %d bytes", maxChanges)
		}
		if err != nil {
			return err
		}
	}
	if l.split {
		l.endWord()
	}
	return nil
}

func (l *lexer) endWord() {
	if l.some {
		l.words = append(l.words, l.word.String())
	}
	l.word.Reset()
	l.some = false
}

func (l *lexer) single() error {
	in, after, ok := strings.Cut(l.text, "'")
	if !ok {
		return changeErrorf("unexpected end of statement while looking for matching single-quote")
	}
	l.word.WriteString(in)
	l.text = after
	return nil
}

func (l *lexer) double() error {
	for l.text != "" {
		c := l.text[0]
		l.text = l.text[1:]
		switch {
		case c == '"':
			return nil
		case c == '$':
			if err := l.variable(); err != nil {
				return err
			}
		case c == '\\' && l.text != "" && strings.IndexByte(`"$\`, l.text[0]) >= 0:
			l.word.WriteByte(l.text[0])
			l.text = l.text[1:]
		default:
			l.word.WriteByte(c)
		}
		if l.word.Len() > maxChanges {
			return changeErrorf("a value has more than %d bytes", maxChanges)
		}
	}
	return changeErrorf("unexpected end of statement while looking for matching double-quote")
}

// variable takes what follows a $: NAME, {NAME} or {NAME:-WORD} and the like.
func (l *lexer) variable() error {
	if !strings.HasPrefix(l.text, "{") {
		name := nameOf(l.text)
		if name == "" {
			l.word.WriteByte('$')
			return nil
		}
		l.text = l.text[len(name):]
		value, _ := l.lookup(name)
		l.word.WriteString(value)
		return nil
	}
	name := nameOf(l.text[1:])
	rest := l.text[1+len(name):]
	if name == "" || rest == "" {
		return changeErrorf("bad substitution %q", clean("$"+l.text))
	}
	if rest[0] == '}' {
		l.text = rest[1:]
		value, _ := l.lookup(name)
		l.word.WriteString(value)
		return nil
	}
	return l.substitution(name, rest)
}

// substitution is what stands after the name in ${NAME:-WORD}.
func (l *lexer) substitution(name, rest string) error {
	wantSome := rest[0] == ':' // an empty value is none
	if wantSome {
		rest = rest[1:]
	}
	end := closing(rest)
	if end < 1 || l.depth == maxNested {
		return changeErrorf("bad substitution of %s", clean(name))
	}
	inner := lexer{text: rest[1:end], env: l.env, depth: l.depth + 1}
	if err := inner.run(); err != nil {
		return err
	}
	value, set := l.lookup(name)
	set = set && (value != "" || !wantSome)
	switch rest[0] {
	case '-':
		if !set {
			value = inner.word.String()
		}
	case '+':
		if value = ""; set {
			value = inner.word.String()
		}
	case '?':
		if !set {
			return changeErrorf("%s: %s", clean(name), clean(inner.word.String()))
		}
	default:
		return changeErrorf("unsupported modifier (%s) in substitution", clean(rest[:1]))
	}
	l.text = rest[end+1:]
	l.word.WriteString(value)
	return nil
}

// closing is where the brace is that closes the one before the text, -1 if there is none.
func closing(text string) int {
	open := 1
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '{':
			open++
		case '}':
			if open--; open == 0 {
				return i
			}
		}
	}
	return -1
}

func (l *lexer) lookup(name string) (string, bool) {
	for _, e := range l.env {
		if key, value, _ := strings.Cut(e, "="); key == name {
			return value, true
		}
	}
	return "", false
}

// nameOf is the name of a variable with which a text begins.
func nameOf(text string) string {
	for i := range len(text) {
		c := text[i]
		letter := c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return text[:i]
		}
	}
	return text
}

// isSignal tells whether a text is a signal's name, with or without SIG, or its number.
func isSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n > 0 && n <= 64
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	base, offset, isRT := name, "", false
	for _, rt := range []string{"SIGRTMIN+", "SIGRTMAX-"} {
		if after, ok := strings.CutPrefix(name, rt); ok {
			base, offset, isRT = rt, after, true
		}
	}
	if isRT {
		n, err := strconv.Atoi(offset)
		return base != "" && err == nil && n >= 0 && n <= 30
	}
	return name == "SIGRTMIN" || name == "SIGRTMAX" || unix.SignalNum(name) != 0
}
