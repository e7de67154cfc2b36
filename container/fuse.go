package container

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/fs"
	"github.com/plyfs/plyfs/layerstore"
)

const (
	fuseDevice = "/dev/fuse"
	// fusermount is the set-user-ID helper of libfuse that mounts for users, by the names of its versions.
	fusermount3, fusermount2 = "fusermount3", "fusermount"
)

// explainMount says why a mount failed and what to do. What the kernel and fusermount say to a user is the same whatever
// is wrong: that it is not permitted.
func explainMount(c layerstore.Container, mountpoint string, err error) error {
	if errors.Is(err, fs.ErrNoFUSE) && os.Geteuid() != 0 {
		if why := obstacle(mountpoint); why != nil {
			err = why
		}
	}
	return fmt.Errorf("mounting %s: %w", c.Name, err)
}

// obstacle finds what keeps a user from mounting, nil if that is not to be seen from here.
func obstacle(mountpoint string) error {
	err := unix.Access(fuseDevice, unix.R_OK|unix.W_OK)
	switch {
	case errors.Is(err, iofs.ErrNotExist):
		return fmt.Errorf("%w: there is no %s; have its kernel module loaded with `modprobe fuse`", fs.ErrNoFUSE, fuseDevice)
	case errors.Is(err, iofs.ErrPermission):
		return fmt.Errorf("%w: only root may open %s here; have it opened to users with `chmod 0666 %[2]s`, or mount as root", fs.ErrNoFUSE, fuseDevice)
	}
	if !installed(fusermount3) && !installed(fusermount2) {
		return fmt.Errorf("%w: users need %s for it; have the package fuse3 installed, or mount as root", fs.ErrNoFUSE, fusermount3)
	}
	if unix.Access(mountpoint, unix.W_OK) != nil {
		return fmt.Errorf("%w %s: users can mount only on directories that they may write to; name one", ErrMountpoint, mountpoint)
	}
	return nil
}

// installed looks where go-fuse does.
func installed(program string) bool {
	for _, name := range []string{program, "/bin/" + program} {
		if _, err := exec.LookPath(name); err == nil {
			return true
		}
	}
	return false
}
