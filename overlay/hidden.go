package overlay

import "strings"

// Prefixes of all marks, hidden from users of the union.
var hiddenPrefixes = []string{
	"trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", "trusted.plyfs.", "user.plyfs.",
	encodedPrefix, "security.fuseoverlayfs.",
}

// escapes are the prefixes under which users can keep xattrs of their own all the same, a union within the union its
// marks: on disk "overlay." stands behind the prefix once more, as kernel overlayfs has it
// (Documentation/filesystems/overlayfs.rst, "Nesting overlayfs mounts").
var escapes = []string{"trusted.overlay.", "user.overlay."}

const escape = "overlay."

// isHidden reports whether users of the union do not see an xattr that a layer keeps under a name.
func isHidden(kept string) bool {
	_, ok := showXattr(kept)
	return !ok
}

func isMark(name string) bool {
	for _, p := range hiddenPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// escapeXattr is the name that a layer keeps an xattr under which users of the union call name.
func escapeXattr(name string) string {
	for _, p := range escapes {
		if rest, ok := strings.CutPrefix(name, p); ok {
			return p + escape + rest
		}
	}
	return name
}

// showXattr is what users of the union call an xattr that a layer keeps under a name; ok is false for what they do not
// see.
func showXattr(kept string) (name string, ok bool) {
	for _, p := range escapes {
		if rest, ok := strings.CutPrefix(kept, p+escape); ok {
			return p + rest, true
		}
	}
	return kept, !isMark(kept)
}
