package layerstore

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

const (
	dirMode  = 0o700
	fileMode = 0o600
)

// storeError is a sentence for the user together with the errors it stands for, whose own texts would repeat it.
type storeError struct {
	text string
	is   []error
}

func (e *storeError) Error() string   { return e.text }
func (e *storeError) Unwrap() []error { return e.is }

// damaged is ErrCorrupt said of something that is no layer.
func damaged(format string, args ...any) error {
	return &storeError{fmt.Sprintf(format, args...), []error{ErrCorrupt}}
}

// firstError returns the first error that is one. A user gets one line: what failed after that is its consequence.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// explain turns an error of the host into one that says what is wrong with the store and what to do.
func (s *Store) explain(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoSpace), errors.Is(err, ErrNotWritable):
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return &storeError{
			fmt.Sprintf("%s: no space left for %s on the file system at %s (%s): free some space there, "+
				"or choose another store with --root, and try again", doing, s.root, mountpointOf(s.root), freeSpace(s.root)),
			[]error{ErrNoSpace, err},
		}
	case errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission):
		return &storeError{fmt.Sprintf("%s: the store %s cannot be written (%v): run as its owner, or choose another store with --root",
			doing, s.root, cause(err)), []error{ErrNotWritable, err}}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// cause is the errno in an error, without the path that the sentence names already.
func cause(err error) error {
	var no unix.Errno
	if errors.As(err, &no) {
		return no
	}
	return err
}

func freeSpace(path string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Bsize <= 0 {
		return "its free space is unknown"
	}
	return units.BytesSize(float64(st.Bavail)*float64(st.Bsize)) + " free"
}

// mountpointOf is the highest directory above path on the same file system.
func mountpointOf(path string) string {
	var st, up unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return path
	}
	for path != "/" {
		parent := filepath.Dir(path)
		if unix.Stat(parent, &up) != nil || up.Dev != st.Dev {
			return path
		}
		path = parent
	}
	return path
}

// randomHex returns 2n hexadecimal digits.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand.Read never fails: it ends the process instead
	return hex.EncodeToString(b)
}

// syncDir makes the names of a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir) //nolint:gosec // a directory of the store
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// writeFile makes b the content of path, durably and at once. The caller holds the store lock, shared or exclusive: that
// is how Collect knows that no temporary file it meets is still written to.
func (s *Store) writeFile(path string, b []byte) error {
	tmp := s.path(dirIngest, tmpPrefix+randomHex(8))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode) //nolint:gosec // a name of our own
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// removeIfThere deletes a file that may not exist.
func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isRegular reports whether path is a regular file, and its size.
func isRegular(path string) (int64, bool) {
	fi, err := os.Lstat(path)
	if err != nil || !fi.Mode().IsRegular() {
		return 0, false
	}
	return fi.Size(), true
}
