// Package mountopt reads the options of a mount: those of kernel overlayfs, of fuse-overlayfs and of mount(8), in the
// words and the quoting that each of them has. It knows what the words are; what they mean is with overlay and fs.
// man/plyfs-overlay.8 lists them for users.
package mountopt

import (
	"errors"
	"fmt"
	"strings"

	"github.com/plyfs/plyfs/fs"
	"github.com/plyfs/plyfs/overlay"
)

var (
	// ErrUnknown says that there is no such option.
	ErrUnknown = errors.New("unknown mount option")
	// ErrUnsupported says that an option is known and cannot be honoured.
	ErrUnsupported = errors.New("is not supported")
	// ErrInvalid says that an option's value is none it can have, or that options contradict each other.
	ErrInvalid = errors.New("invalid mount option")
)

const (
	// MaxLength bounds one -o argument, bytes.
	MaxLength = 1 << 20
	// MaxOptions bounds the options of a mount.
	MaxOptions = 1 << 16
)

// Options are what a mount was asked to be.
type Options struct {
	Lowers []string // top first
	Upper  string   // "" for none
	Work   string
	Source string // what is shown as the device, "" for the default

	Name string // of a container (Image alone)
	Root string // of the store (Image alone)

	ReadOnly   bool
	AllowOther bool // asked for; root's mounts have it in any case
	Union      overlay.Modes
	FS         fs.Options

	set map[string]string // the options that contradict others, as they were given
}

// Option is one option as it was given.
type Option struct {
	Name, Value string
	HasValue    bool
}

// String is the option as one writes it.
func (o Option) String() string {
	if o.HasValue {
		return o.Name + "=" + o.Value
	}
	return o.Name
}

// Split takes the argument of one -o apart, at commas. A comma after a backslash, or within double quotes in the value
// of a security context, belongs to the value. Escapes stay as they are: Unescape is for those whose value has them.
func Split(arg string) ([]Option, error) {
	if len(arg) > MaxLength {
		return nil, fmt.Errorf("%w: %d bytes of options, at most %d", ErrInvalid, len(arg), MaxLength)
	}
	if strings.IndexByte(arg, 0) >= 0 {
		return nil, fmt.Errorf("%w: a zero byte", ErrInvalid)
	}
	var list []Option
	for arg != "" {
		n := optionEnd(arg)
		text := arg[:n]
		arg = arg[min(n+1, len(arg)):]
		if text == "" {
			continue
		}
		var o Option
		o.Name, o.Value, o.HasValue = strings.Cut(text, "=")
		list = append(list, o)
		if len(list) > MaxOptions {
			return nil, fmt.Errorf("%w: more than %d options", ErrInvalid, MaxOptions)
		}
	}
	return list, nil
}

// optionEnd returns the length of the option at the beginning of s.
func optionEnd(s string) int {
	name, _, _ := strings.Cut(s, "=")
	quotes, quoted := isContext(name), false
	for i := 0; i < len(s); i++ {
		switch {
		case quotes && s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && !quotes:
			i++
		case s[i] == ',' && !quoted:
			return i
		}
	}
	return len(s)
}

// Unescape takes the backslashes out that keep what follows them from having a meaning of its own.
func Unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// splitLowers takes the value of lowerdir= apart, at colons without a backslash before them.
func splitLowers(v string) ([]string, error) {
	var dirs []string
	start := 0
	for i := 0; i <= len(v); i++ {
		if i < len(v) && v[i] == '\\' {
			if i++; i == len(v) {
				return nil, fmt.Errorf("%w lowerdir=%s: nothing follows the last backslash", ErrInvalid, v)
			}
			continue
		}
		if i < len(v) && v[i] != ':' {
			continue
		}
		dir := Unescape(v[start:min(i, len(v))])
		start = i + 1
		if dir == "" && len(dirs) > 0 && i < len(v) {
			return nil, fmt.Errorf("lowerdir=%s: a layer of data alone (\"::\") %w", v, ErrUnsupported)
		}
		if dir == "" {
			return nil, fmt.Errorf("%w lowerdir=%s: an empty directory name", ErrInvalid, v)
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// setter takes one option in.
type setter func(o *Options, opt Option) error

// Overlay reads the options of a union of directories, each of args the argument of one -o. Later ones overrule
// earlier ones. With sloppy, as of mount -s, options that are not known or not supported are returned instead of being
// an error.
func Overlay(args []string, sloppy bool) (Options, []Option, error) {
	// What is written can go on under kernel overlayfs and fuse-overlayfs, which by default follow no metacopy.
	o := Options{Union: overlay.Modes{NoMetacopy: true}, set: map[string]string{}}
	left, err := o.read(args, sloppy, overlayOptions, fuseOptions, genericOptions)
	if err == nil {
		err = o.settle()
	}
	return o, left, err
}

// Image reads the options of a mount of an image.
func Image(args []string, sloppy bool) (Options, []Option, error) {
	o := Options{set: map[string]string{}}
	left, err := o.read(args, sloppy, imageOptions, fuseOptions, genericOptions)
	return o, left, err
}

func (o *Options) read(args []string, sloppy bool, tables ...map[string]setter) (left []Option, err error) {
	for _, arg := range args {
		list, err := Split(arg)
		if err != nil {
			return left, err
		}
		for _, opt := range list {
			err := o.take(opt, tables)
			if sloppy && (errors.Is(err, ErrUnknown) || errors.Is(err, ErrUnsupported)) {
				left = append(left, opt)
				continue
			}
			if err != nil {
				return left, err
			}
		}
	}
	return left, nil
}

func (o *Options) take(opt Option, tables []map[string]setter) error {
	for _, t := range tables {
		if set, ok := t[opt.Name]; ok {
			return set(o, opt)
		}
	}
	if isComment(opt.Name) {
		return nil
	}
	return fmt.Errorf("%w %s", ErrUnknown, opt)
}

// isComment reports whether an option is there for others than the filesystem: mount(8), systemd or people.
func isComment(name string) bool {
	return strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-")
}
