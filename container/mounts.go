package container

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/fs"
	"github.com/plyfs/plyfs/layerstore"
)

const (
	// fsType is the type of our mounts in /proc/self/mountinfo.
	fsType = "fuse.plyfs"
	// sourcePrefix stands before the short container ID in a mount's source, by which its container is found again.
	sourcePrefix = "plyfs:"
	shortID      = 12
)

// releaseTimeout bounds how long a server may take to end once its filesystem is unmounted.
const releaseTimeout = 10 * time.Second

// mountSource is what a container's mount shows as its source, in df among others.
func mountSource(id string) string {
	return sourcePrefix + id[:shortID]
}

// plyfsMounts lists our mounts that match, in the order of mounting.
func plyfsMounts(match func(*mountinfo.Info) bool) ([]*mountinfo.Info, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != fsType || !match(m), false
	})
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	return mounts, nil
}

// mountsOf lists where a container is mounted, in this process's mount namespace.
func mountsOf(id string) ([]string, error) {
	source := mountSource(id)
	mounts, err := plyfsMounts(func(m *mountinfo.Info) bool { return m.Source == source })
	if err != nil {
		return nil, err
	}
	paths := make([]string, len(mounts))
	for i, m := range mounts {
		paths[i] = m.Mountpoint
	}
	return paths, nil
}

// mountAt finds our mount on a path, the topmost when there are several; nil when there is none.
func mountAt(path string) (*mountinfo.Info, error) {
	mounts, err := plyfsMounts(func(m *mountinfo.Info) bool { return m.Mountpoint == path })
	if err != nil || len(mounts) == 0 {
		return nil, err
	}
	return mounts[len(mounts)-1], nil
}

// checkMountpoint returns the absolute path without symlinks of a directory that can be mounted on.
func checkMountpoint(path string) (string, error) {
	resolved, err := filepath.Abs(path)
	if err == nil {
		resolved, err = filepath.EvalSymlinks(resolved)
	}
	var info os.FileInfo
	if err == nil {
		info, err = os.Stat(resolved)
	}
	switch {
	case errors.Is(err, iofs.ErrNotExist):
		return "", fmt.Errorf("%w %s: it does not exist; make it with `mkdir -p %s`", ErrMountpoint, path, path)
	case errors.Is(err, syscall.ENOTCONN):
		return "", fmt.Errorf("%w %s: the mount there has lost its server; detach it with `plyfs umount %s`", ErrMountpoint, path, path)
	case err != nil:
		return "", fmt.Errorf("%w %s: %w", ErrMountpoint, path, err)
	case !info.IsDir():
		return "", fmt.Errorf("%w %s: it is not a directory; name one, or make it with `mkdir`", ErrMountpoint, path)
	}
	// Where the kernel says at once that nothing is mounted here, the mount table need not be read.
	if mounted, sure, err := mountinfo.MountedFast(resolved); err == nil && sure && !mounted {
		return resolved, nil
	}
	m, err := mountAt(resolved)
	if err != nil {
		return "", err
	}
	if m != nil {
		return "", fmt.Errorf("%w %s: it is busy with another plyfs mount (%s); unmount that with `plyfs umount %s`", ErrMountpoint, path, m.Source, path)
	}
	return resolved, nil
}

// dead reports whether a mount has lost its server.
func dead(mountpoint string) bool {
	var st unix.Statfs_t
	return errors.Is(unix.Statfs(mountpoint, &st), unix.ENOTCONN)
}

// detachDead detaches what a server that died left mounted of a container. The caller holds the container's lock.
func detachDead(id string) error {
	mounts, err := mountsOf(id)
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := fs.Unmount(mounts[i], true); err != nil {
			return fmt.Errorf("detaching the dead mount at %s: %w", mounts[i], err)
		}
	}
	return nil
}

// Unmount unmounts a container, given by name or ID, or the filesystem at a mountpoint, and returns once its server has
// let go of the container. It returns ErrNotMounted when there is no such mount and fs.ErrBusy while programs use it; a
// mount whose server has died is detached even so.
func Unmount(ctx context.Context, st *layerstore.Store, nameOrMountpoint string) error {
	m, err := findMount(ctx, st, nameOrMountpoint)
	if err != nil {
		return err
	}
	err = fs.Unmount(m.Mountpoint, dead(m.Mountpoint))
	switch {
	case errors.Is(err, fs.ErrBusy):
		return fmt.Errorf("%s is %w: a program has its root, its working directory or a file there; end it (`fuser -vm %s` shows which) and try again", nameOrMountpoint, fs.ErrBusy, m.Mountpoint)
	case errors.Is(err, fs.ErrNotMounted):
		// Another process unmounted it in the meantime, which is what was asked for.
	case err != nil:
		return fmt.Errorf("%s: %w", nameOrMountpoint, err)
	}
	id, ours := strings.CutPrefix(m.Source, sourcePrefix)
	if !ours {
		return nil // a union of directories, which is no container
	}
	c, err := st.Container(ctx, id)
	if errors.Is(err, layerstore.ErrNotFound) {
		return nil // of another store, whose lock is not ours to watch
	}
	if err != nil {
		return err
	}
	return waitReleased(ctx, st, c, releaseTimeout)
}

// findMount finds the mount that a user means by a container's name or a path.
func findMount(ctx context.Context, st *layerstore.Store, arg string) (*mountinfo.Info, error) {
	if !strings.Contains(arg, "/") {
		c, err := st.Container(ctx, arg)
		if err == nil {
			return findContainerMount(c)
		}
		if !errors.Is(err, layerstore.ErrNotFound) {
			return nil, err
		}
	}
	return findPathMount(arg)
}

func findContainerMount(c layerstore.Container) (*mountinfo.Info, error) {
	source := mountSource(c.ID)
	mounts, err := plyfsMounts(func(m *mountinfo.Info) bool { return m.Source == source })
	if err != nil {
		return nil, err
	}
	if len(mounts) == 0 {
		return nil, fmt.Errorf("container %s %w", c.Name, ErrNotMounted)
	}
	return mounts[len(mounts)-1], nil
}

// findPathMount tries the path with only its parent's symlinks resolved first, since the last element can be a dead mount,
// of which nothing can be asked.
func findPathMount(path string) (*mountinfo.Info, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(parent, filepath.Base(abs))
	}
	m, err := mountAt(abs)
	if m != nil || err != nil {
		return m, err
	}
	if resolved, err := filepath.EvalSymlinks(abs); err == nil && resolved != abs {
		if m, err := mountAt(resolved); m != nil || err != nil {
			return m, err
		}
	}
	if strings.Contains(path, "/") {
		return nil, fmt.Errorf("%s %w: no plyfs filesystem has it as its mountpoint; `findmnt -t %s` lists them", path, ErrNotMounted, fsType)
	}
	return nil, fmt.Errorf("%s %w: no container has this name and no plyfs filesystem this mountpoint; `findmnt -t %s` lists them", path, ErrNotMounted, fsType)
}

// waitReleased waits until the server of a container has ended its work, so that the container can be removed or mounted
// again at once.
func waitReleased(ctx context.Context, st *layerstore.Store, c layerstore.Container, timeout time.Duration) error {
	end := time.Now().Add(timeout)
	for pause := time.Millisecond; ; pause = min(pause*5/4, 20*time.Millisecond) {
		lock, err := st.LockContainer(c.ID, false)
		if err == nil {
			return lock.Release()
		}
		if !errors.Is(err, layerstore.ErrBusy) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w to end: container %s is unmounted, but is still served after %s; see %s", ErrServer, c.Name, timeout, logPath(st, c.ID))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
