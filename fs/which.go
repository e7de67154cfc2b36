package fs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// ErrNotOurs says that a path is not in a plyfs mount.
var ErrNotOurs = errors.New("not in a plyfs mount")

// Which returns the names of the layers that hold a path in a mount, top first. A symlink is not followed.
func Which(path string) ([]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(path, overlay.XattrLayers, buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EPERM) {
		// What is neither a regular file nor a directory has no user.* xattrs; root can ask another way.
		n, err = unix.Lgetxattr(path, "trusted"+strings.TrimPrefix(overlay.XattrLayers, "user"), buf)
	}
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return nil, fmt.Errorf("%s: %w", path, ErrNotOurs)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return strings.Split(string(buf[:n]), "\n"), nil
}
