package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Control sequences of ECMA-48 and xterm (ctlseqs).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // another screen, no cursor, lines that are too long cut off
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	topLeft     = "\x1b[H"
	eraseLine   = "\x1b[K"
	eraseBelow  = "\x1b[J"
	reverse     = "\x1b[7m"
	plainText   = "\x1b[m"
)

// key is a key that was pressed: a character, or one of the names below.
type key string

const (
	keyUp        key = "up"
	keyDown      key = "down"
	keyLeft      key = "left"
	keyRight     key = "right"
	keyHome      key = "home"
	keyEnd       key = "end"
	keyPageUp    key = "page up"
	keyPageDown  key = "page down"
	keyEnter     key = "enter"
	keyEscape    key = "escape"
	keyBackspace key = "backspace"
	keyInterrupt key = "interrupt"
)

// sequences are what terminals send for keys.
var sequences = []struct {
	text string
	key  key
}{
	{"\x1b[A", keyUp},
	{"\x1bOA", keyUp},
	{"\x1b[B", keyDown},
	{"\x1bOB", keyDown},
	{"\x1b[C", keyRight},
	{"\x1bOC", keyRight},
	{"\x1b[D", keyLeft},
	{"\x1bOD", keyLeft},
	{"\x1b[H", keyHome},
	{"\x1bOH", keyHome},
	{"\x1b[1~", keyHome},
	{"\x1b[F", keyEnd},
	{"\x1bOF", keyEnd},
	{"\x1b[4~", keyEnd},
	{"\x1b[5~", keyPageUp},
	{"\x1b[6~", keyPageDown},
	{"\r", keyEnter},
	{"\n", keyEnter},
	{"\x7f", keyBackspace},
	{"\b", keyBackspace},
	{"\x03", keyInterrupt},
}

// parseKeys takes keys apart that came in one read. What is no key known here is passed over.
func parseKeys(in string) []key {
	var keys []key
next:
	for in != "" {
		for _, s := range sequences {
			if rest, ok := strings.CutPrefix(in, s.text); ok {
				keys, in = append(keys, s.key), rest
				continue next
			}
		}
		switch {
		case in == "\x1b":
			return append(keys, keyEscape)
		case in[0] == '\x1b': // another key's: up to its last letter
			i := strings.IndexFunc(in[1:], func(r rune) bool { return r >= '@' && r <= '~' && r != '[' && r != 'O' })
			if i < 0 {
				return keys
			}
			in = in[i+2:]
			continue
		case in[0] < ' ':
			in = in[1:]
			continue
		}
		_, n := utf8.DecodeRuneInString(in)
		keys, in = append(keys, key(in[:n])), in[n:]
	}
	return keys
}

// screen is a terminal whose keys are read one by one.
type screen struct {
	in, out *os.File
	keys    chan key
	resized chan os.Signal
	state   *term.State
}

// openScreen takes a terminal over. close gives it back, and must be called whatever happens.
func openScreen(in, out *os.File) (*screen, error) {
	state, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	s := &screen{in: in, out: out, keys: make(chan key), resized: make(chan os.Signal, 1), state: state}
	if _, err := io.WriteString(out, enterScreen); err != nil {
		return nil, errors.Join(err, s.close())
	}
	signal.Notify(s.resized, unix.SIGWINCH)
	return s, nil
}

func (s *screen) close() error {
	signal.Stop(s.resized)
	_, err := io.WriteString(s.out, leaveScreen)
	return errors.Join(err, term.Restore(int(s.in.Fd()), s.state))
}

// read passes keys on until ctx ends or there are none any more. A read that waits ends with the process.
func (s *screen) read(ctx context.Context) {
	defer close(s.keys)
	buf := make([]byte, 256)
	for {
		n, err := s.in.Read(buf)
		for _, k := range parseKeys(string(buf[:n])) {
			select {
			case s.keys <- k:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// draw shows lines, each from the left edge, and nothing besides.
func (s *screen) draw(lines []string) error {
	var b strings.Builder
	b.WriteString(topLeft)
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(l + plainText + eraseLine)
	}
	b.WriteString(eraseBelow)
	_, err := io.WriteString(s.out, b.String())
	return err
}

// size is how many columns and lines there are, at least one.
func (s *screen) size() (width, height int) {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width < 1 || height < 1 {
		return 80, 24
	}
	return width, height
}
