package tarlayer

import (
	"errors"
	"fmt"
)

// path is a name of the archive cut into components, relative to the root: "/", "." and empty components are gone, ".."
// has been resolved by what is written, as every other tool does it.
type path struct {
	buf  []byte
	ends []int // where each component ends in buf
}

func (p *path) len() int { return len(p.ends) }

func (p *path) comp(i int) []byte {
	if i == 0 {
		return p.buf[:p.ends[0]]
	}
	return p.buf[p.ends[i-1]:p.ends[i]]
}

func (p *path) base() []byte { return p.comp(len(p.ends) - 1) }

func (p *path) truncate(n int) {
	p.ends = p.ends[:n]
	if n == 0 {
		p.buf = p.buf[:0]
	} else {
		p.buf = p.buf[:p.ends[n-1]]
	}
}

func (p *path) push(c []byte) {
	p.buf = append(p.buf, c...)
	p.ends = append(p.ends, len(p.buf))
}

// set takes a name apart.
func (p *path) set(name []byte, lim *Limits) error {
	p.truncate(0)
	if len(name) == 0 {
		return errors.New("it has no name")
	}
	if len(name) > lim.MaxPathLen {
		return fmt.Errorf("%w: the path has %d bytes, more than %d", ErrTooLarge, len(name), lim.MaxPathLen)
	}
	for start := 0; start <= len(name); {
		end := start
		for end < len(name) && name[end] != '/' {
			end++
		}
		c := name[start:end]
		start = end + 1
		switch {
		case len(c) == 0 || string(c) == ".":
		case string(c) == "..":
			if p.len() == 0 {
				return fmt.Errorf("the path %s leads out of the root", quote(name))
			}
			p.truncate(p.len() - 1)
		case len(c) > lim.MaxNameLen:
			return fmt.Errorf("%w: the name %s is longer than %d bytes", ErrTooLarge, quote(c), lim.MaxNameLen)
		default:
			p.push(c)
		}
	}
	return nil
}

// Whiteouts: OCI image specification, "Image Layer Filesystem Changeset".
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // names of AUFS's own, of which only the opaque marker means something in a layer
	whiteoutOpaque = ".wh..wh..opq"
)

type nameKind int

const (
	plainName   nameKind = iota
	whiteout             // hides a name
	opaqueMark           // hides all that lies below its directory
	ignoredName          // AUFS's own files
)

// classify tells what a path stands for.
func (p *path) classify() (nameKind, error) {
	last := p.len() - 1
	for i := range p.ends {
		c := p.comp(i)
		switch {
		case !hasPrefix(c, whiteoutPrefix):
		case i == last && string(c) == whiteoutOpaque:
			return opaqueMark, nil
		case hasPrefix(c, whiteoutMeta):
			return ignoredName, nil
		case i < last:
			return 0, fmt.Errorf("it lies in the whiteout %s", quote(c))
		default:
			if hidden := string(c[len(whiteoutPrefix):]); hidden == "" || hidden == "." || hidden == ".." {
				return 0, errors.New("it is a whiteout that hides no name")
			}
			return whiteout, nil
		}
	}
	return plainName, nil
}
