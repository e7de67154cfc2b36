// Package container makes containers of images, mounts their root filesystems and takes both down again. It owns the
// process that serves a mount: how it is started, how it says that the mount answers, and when it ends.
package container

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

var (
	// ErrMounted says that a container is mounted, or still serves programs that were in its mount.
	ErrMounted = errors.New("is mounted")
	// ErrNotMounted says that no plyfs mount is there.
	ErrNotMounted = errors.New("is not mounted")
	// ErrExists says that a container exists and is of another kind than was asked for.
	ErrExists = errors.New("exists")
	// ErrMountpoint says that a directory cannot be mounted on.
	ErrMountpoint = errors.New("unusable mountpoint")
	// ErrServer says that the process that was to serve a mount could not.
	ErrServer = errors.New("the mount's server failed")
)

// MountOptions say how and where a container is mounted. The zero value mounts it in the background at its own
// directory in the store.
type MountOptions struct {
	Mountpoint string                  // "" is <root>/containers/<id>/merged; a relative path is taken from the working directory
	Foreground bool                    // serve in this process: Mount returns once the filesystem is unmounted
	Options    string                  // mount options, as mountopt.Image reads them: "ro,nosuid"
	LogLevel   string                  // logrus level of a server in the background; "" is "warning"
	Ready      func(mountpoint string) // called once when the mount answers; may be nil
}

// CreateOptions say what container is made of an image.
type CreateOptions struct {
	Name      string // "" has the store choose one
	ImageName string // the image as the user named it, kept for people to read
	ReadOnly  bool   // without a layer of its own: nothing can be written
}

// Create makes a container of an image. It returns layerstore.ErrNameTaken when another container has the name.
func Create(ctx context.Context, st *layerstore.Store, img layerstore.Image, o CreateOptions) (layerstore.Container, error) {
	c := layerstore.Container{
		Name:      o.Name,
		Image:     img.ID,
		ImageName: o.ImageName,
		Manifest:  img.Manifest,
		ReadOnly:  o.ReadOnly,
		Layers:    make([]layerstore.Digest, len(img.Layers)),
	}
	for i, l := range img.Layers {
		c.Layers[i] = l.DiffID
	}
	return st.CreateContainer(ctx, c)
}

// MountByName mounts the container of that name or ID again or else, if there is none or create.Name is given, a new
// container of that image. A new container whose mount never answered is removed again.
func MountByName(ctx context.Context, st *layerstore.Store, nameOrImage string, create CreateOptions, o MountOptions) (string, error) {
	img, imgErr := image.Resolve(ctx, st, nameOrImage)
	if create.Name == "" {
		c, err := st.Container(ctx, nameOrImage)
		switch {
		case err == nil && imgErr == nil && c.Name != nameOrImage:
			return "", fmt.Errorf("%s: %w: it is the beginning of container %.12s's ID and image %.12s; give the name of the container, or the image with its tag",
				nameOrImage, layerstore.ErrAmbiguous, c.ID, img.ID.Encoded())
		case err == nil && create.ReadOnly && !c.ReadOnly:
			return "", fmt.Errorf("container %s: %w as writable, which it stays; mount its image for a read-only one", c.Name, ErrExists)
		case err == nil:
			return Mount(ctx, st, c, o)
		case !errors.Is(err, layerstore.ErrNotFound):
			return "", err
		}
	}
	if errors.Is(imgErr, layerstore.ErrNotFound) {
		return "", fmt.Errorf("%s: no such container or image: %w in the store; get the image with `plyfs pull %s`", nameOrImage, layerstore.ErrNotFound, nameOrImage)
	}
	if imgErr != nil {
		return "", imgErr
	}
	create.ImageName = nameOrImage
	return mountImage(ctx, st, img, create, o)
}

func mountImage(ctx context.Context, st *layerstore.Store, img layerstore.Image, create CreateOptions, o MountOptions) (string, error) {
	if o.Mountpoint != "" {
		if _, err := checkMountpoint(o.Mountpoint); err != nil {
			return "", err
		}
	}
	c, err := Create(ctx, st, img, create)
	if err != nil {
		return "", err
	}
	answered, tell := false, o.Ready
	o.Ready = func(mountpoint string) {
		answered = true
		if tell != nil {
			tell(mountpoint)
		}
	}
	mountpoint, err := Mount(ctx, st, c, o)
	if err != nil && !answered {
		// The container goes also when it was Ctrl-C that ended the mount.
		if rmErr := Remove(context.WithoutCancel(ctx), st, c.ID); rmErr != nil {
			err = fmt.Errorf("%w (and the container made for it could not be removed: %w)", err, rmErr)
		}
	}
	return mountpoint, err
}

// Mount mounts a container and returns the absolute mountpoint once the mount answers, or, in the foreground, once it is
// unmounted. It returns ErrMounted when the container is mounted already and ErrMountpoint when the mountpoint cannot be
// used. When ctx ends first, nothing stays mounted.
func Mount(ctx context.Context, st *layerstore.Store, c layerstore.Container, o MountOptions) (string, error) {
	if o.Mountpoint == "" {
		o.Mountpoint = defaultMountpoint(st, c.ID)
	}
	abs, err := filepath.Abs(o.Mountpoint)
	if err != nil {
		return "", fmt.Errorf("%s: %w: %w", o.Mountpoint, ErrMountpoint, err)
	}
	if o.Foreground {
		return abs, Serve(ctx, st, c.ID, ServeOptions{Mountpoint: abs, Options: o.Options, Ready: o.Ready})
	}
	mountpoint, err := spawn(ctx, st, c.ID, abs, o)
	if err == nil && o.Ready != nil {
		o.Ready(mountpoint)
	}
	return mountpoint, err
}

// Remove deletes a container and its own layer. It returns ErrMounted while the container is mounted; a mount whose
// server has died is detached first.
func Remove(ctx context.Context, st *layerstore.Store, nameOrID string) error {
	c, err := st.Container(ctx, nameOrID)
	if err != nil {
		return err
	}
	lock, err := lockContainer(st, c)
	if err != nil {
		return err
	}
	// RemoveContainer takes the lock itself, and refuses if another was quicker.
	if err := errors.Join(detachDead(c.ID), lock.Release()); err != nil {
		return err
	}
	return st.RemoveContainer(ctx, c.ID)
}

// lockContainer takes a container for this process alone.
func lockContainer(st *layerstore.Store, c layerstore.Container) (*layerstore.Lock, error) {
	lock, err := st.LockContainer(c.ID, true)
	if err == nil || !errors.Is(err, layerstore.ErrBusy) {
		return lock, err
	}
	mounts, mountsErr := mountsOf(c.ID)
	switch {
	case mountsErr != nil:
		return nil, mountsErr
	case len(mounts) > 0:
		return nil, fmt.Errorf("container %s %w at %s; unmount it with `plyfs umount %s`", c.Name, ErrMounted, mounts[0], c.Name)
	default:
		return nil, fmt.Errorf("container %s %w where this process cannot see it, or programs still use what was unmounted, or it is being exported; end them first", c.Name, ErrMounted)
	}
}

// defaultMountpoint is where a container is mounted unless told otherwise.
func defaultMountpoint(st *layerstore.Store, id string) string {
	return filepath.Join(st.ContainerDir(id), "merged")
}
