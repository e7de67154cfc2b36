package fs

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// fusermount unmounts through the setuid helper of libfuse, which is how a user without privilege does it.
func fusermount(mountpoint string, lazy bool) error {
	bin, err := exec.LookPath("fusermount3")
	if err != nil {
		if bin, err = exec.LookPath("fusermount"); err != nil {
			return fmt.Errorf("%w: fusermount3 is not installed", ErrNoFUSE)
		}
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	out, err := exec.Command(bin, append(args, "--", mountpoint)...).CombinedOutput() // #nosec G204 -- a helper found in PATH
	switch {
	case err == nil:
		return nil
	case strings.Contains(string(out), "busy"):
		return unix.EBUSY
	case strings.Contains(string(out), "not found in"):
		return unix.EINVAL
	}
	return errors.New(strings.TrimSpace(string(out)))
}
