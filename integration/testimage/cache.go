package testimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNeedsRoot says that an image cannot be made without root: its files have owners, devices and capabilities.
var ErrNeedsRoot = errors.New("making this image needs root")

// CacheDir is where images are kept between runs: $PLYFS_TEST_CACHE, or plyfs-test in the user's cache directory. It is
// safe to delete while no test runs.
func CacheDir() (string, error) {
	if dir := os.Getenv("PLYFS_TEST_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory for test images, set PLYFS_TEST_CACHE: %w", err)
	}
	return filepath.Join(base, "plyfs-test"), nil
}

// cached returns the directory that build has filled for this name and recipe, building it when it is not there yet. Two
// processes that want the same one at once build it once. A build that fails or is killed leaves nothing behind that a
// later one would take for whole.
func cached(ctx context.Context, name, recipe string, build func(ctx context.Context, dir string) error) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(recipe))
	final := filepath.Join(cache, name+"-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	unlock, err := lockFile(filepath.Join(cache, name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	partial := final + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return "", err
	}
	if err := os.Mkdir(partial, 0o755); err != nil {
		return "", err
	}
	if err := build(ctx, partial); err != nil {
		return "", errors.Join(fmt.Errorf("make test image %s: %w", name, err), os.RemoveAll(partial))
	}
	if err := os.Rename(partial, final); err != nil {
		return "", err
	}
	return final, nil
}

// lockFile waits for an exclusive lock on the file and returns what gives it back.
func lockFile(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing gives the lock back
}
