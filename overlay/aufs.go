package overlay

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Whiteouts and opaque marks as AUFS made them, fuse-overlayfs makes them where it may not make devices, and OCI layers
// have them ("Image Layer Filesystem Changeset" of the OCI image specification). They are read, and what is written in
// their place takes the other form.
const (
	dotWhiteout = ".wh."         // and a name: hides it
	dotOpaque   = ".wh..wh..opq" // makes its directory opaque
)

func isDotName(name string) bool { return strings.HasPrefix(name, dotWhiteout) }

// dotHides reports whether a directory hides a name by a file.
func dotHides(dirfd int, name string) (bool, error) {
	if len(dotWhiteout)+len(name) > MaxName {
		return false, nil
	}
	return exists(place{dirfd, dotWhiteout + name})
}

// dotOpaqueIn reports whether a directory holds the file that makes it opaque. The place has a name.
func dotOpaqueIn(p place) (bool, error) {
	return exists(place{p.fd, p.name + "/" + dotOpaque})
}

func exists(p place) (bool, error) {
	var st unix.Stat_t
	err := p.stat(&st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// upperHides reports whether the upper directory hides a name by a file.
func (u *Union) upperHides(h *openFile, name string) (bool, error) {
	switch {
	case u.up.plain:
		return false, nil
	case isDotName(name):
		return true, nil
	}
	return dotHides(h.fd, name)
}

// convertDot turns a whiteout that is a file into one that is a device, so that what takes its name can take its place
// in one step. The caller holds the write lock of the directory.
func (u *Union) convertDot(h *openFile, name string) error {
	switch hidden, err := u.upperHides(h, name); {
	case err != nil || !hidden:
		return err
	case isDotName(name):
		return unix.EPERM // it would be a whiteout
	}
	if err := u.up.linkWhiteout(h.fd, name); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return ignoreMissing(unix.Unlinkat(h.fd, dotWhiteout+name, 0))
}

// readDots turns the names of a directory's listing that are whiteouts into what they hide. A name that is there
// besides is not hidden.
func (s *snapshot) readDots() {
	if !slices.ContainsFunc(s.entries, func(e snapEntry) bool { return isDotName(s.name(&e)) }) {
		return
	}
	there := map[string]bool{}
	for i := range s.entries {
		if e := &s.entries[i]; e.typ != dtWhiteout && !isDotName(s.name(e)) {
			there[s.name(e)] = true
		}
	}
	kept := s.entries[:0]
	for _, e := range s.entries {
		if name := s.name(&e); isDotName(name) {
			hidden := name[len(dotWhiteout):]
			if name == dotOpaque || there[hidden] {
				continue
			}
			e.off += uint32(len(dotWhiteout)) // #nosec G115 -- four
			e.nlen -= uint8(len(dotWhiteout)) // #nosec G115 -- four
			e.cookie, e.typ = Cookie(hidden), dtWhiteout
		}
		kept = append(kept, e)
	}
	s.entries = kept
}
