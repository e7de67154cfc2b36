package main

import (
	"fmt"
	"io"
	"strings"
)

// mountArgs is the command line of fuse-overlayfs, or of a helper of mount(8).
type mountArgs struct {
	name    string // of the program, for its help
	helper  bool   // of mount(8): SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE] (mount(8), EXTERNAL HELPERS)
	options []string

	source, mountpoint string

	foreground, debug, single, help, version bool
	fake, sloppy                             bool // of mount(8)
}

func (m *mountArgs) usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...).Error() + "; see `man plyfs-overlay`"}
}

func parseMountArgs(name string, args []string, helper bool) (*mountArgs, error) {
	m := &mountArgs{name: name, helper: helper}
	var places []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			places = append(places, args...)
			args = nil
		case strings.HasPrefix(arg, "--"):
			var err error
			if args, err = m.long(arg, args); err != nil {
				return nil, err
			}
		case len(arg) > 1 && arg[0] == '-':
			var err error
			if args, err = m.letters(arg, args); err != nil {
				return nil, err
			}
		default:
			places = append(places, arg)
		}
	}
	return m, m.take(places)
}

func (m *mountArgs) take(places []string) error {
	most := 1
	if m.helper {
		most = 2
	}
	if len(places) > most {
		return m.usagef("%s takes no argument %q", m.name, places[most])
	}
	if n := len(places); n > 0 {
		m.mountpoint = places[n-1]
		if n == 2 {
			m.source = places[0]
		}
	}
	return nil
}

func (m *mountArgs) wantMountpoint() error {
	switch {
	case m.mountpoint == "":
		return m.usagef("%s needs a mountpoint", m.name)
	case m.helper && m.source == "":
		return m.usagef("%s needs a source and a mountpoint", m.name)
	}
	return nil
}

func (m *mountArgs) long(arg string, rest []string) ([]string, error) {
	switch arg {
	case "--help":
		m.help = true
	case "--version":
		m.version = true
	case "--debug":
		m.debug = true
	case "--foreground":
		m.foreground = true
	case "--sloppy":
		m.sloppy = true
	case "--source":
		if len(rest) == 0 {
			return nil, m.usagef("option %s needs a value", arg)
		}
		m.source = rest[0]
		return rest[1:], nil
	default:
		return nil, m.usagef("unknown option %s", arg)
	}
	return rest, nil
}

// letters takes options of one letter, of which several may follow one "-".
func (m *mountArgs) letters(arg string, rest []string) ([]string, error) {
	for i := 1; i < len(arg); i++ {
		c := arg[i]
		switch c {
		case 'o', 't', 'N':
			value := arg[i+1:]
			if value == "" {
				if len(rest) == 0 {
					return nil, m.usagef("option -%c needs a value", c)
				}
				value, rest = rest[0], rest[1:]
			}
			return rest, m.valued(c, value)
		case 'h':
			m.help = true
		case 'V':
			m.version = true
		case 'd':
			m.debug = true
		case 'f':
			m.foreground, m.fake = !m.helper, m.helper
		case 's':
			m.single, m.sloppy = !m.helper, m.helper
		case 'r', 'w':
			m.options = append(m.options, map[byte]string{'r': "ro", 'w': "rw"}[c])
		case 'n', 'v':
			if m.helper {
				continue // there is no /etc/mtab to write, and nothing more to say
			}
			fallthrough
		default:
			return nil, m.usagef("unknown option -%c", c)
		}
	}
	return rest, nil
}

func (m *mountArgs) valued(c byte, value string) error {
	switch {
	case c == 'o':
		m.options = append(m.options, value)
		return nil
	case c == 't' && m.helper:
		return nil // by which mount(8) found this helper
	case c == 'N' && m.helper:
		return m.usagef("-N %s: mounting in another namespace is not supported; use nsenter(1)", value)
	}
	return m.usagef("unknown option -%c", c)
}

const overlayHelp = `usage: %s [options] <mountpoint>

    -h   --help            print help
    -V   --version         print version
    -d   --debug, -o debug log every request (implies -f)
    -f   --foreground      serve in this process, until the mountpoint is unmounted
    -s                     serve one request at a time
    -o lowerdir=A:B        directories to merge, the topmost first
    -o upperdir=U          directory that takes the changes; without it the mount is read-only
    -o workdir=W           empty directory on the filesystem of U

man plyfs-overlay lists all options.
`

func (m *mountArgs) printHelp(w io.Writer) error {
	_, err := fmt.Fprintf(w, overlayHelp, m.name)
	return err
}
