package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/container"
	"github.com/plyfs/plyfs/fs/mountopt"
	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

// mountImage is mount.plyfs: `mount -t plyfs IMAGE MOUNTPOINT -o name=…`. Unlike `plyfs mount`, it mounts the container
// of that name again when there is one of that image, as a line of /etc/fstab wants it at the next boot.
func mountImage(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	m, err := parseMountArgs("mount.plyfs", args, true)
	if err != nil {
		return err
	}
	switch {
	case m.help:
		_, err := fmt.Fprintln(stdout, "usage: mount -t plyfs IMAGE|NAME MOUNTPOINT [-o name=NAME,root=DIR,ro,…]; see `man plyfs-overlay`")
		return err
	case m.version:
		_, err := fmt.Fprintf(stdout, "plyfs version %s\n", versionString())
		return err
	}
	if err := m.wantMountpoint(); err != nil {
		return err
	}
	o, left, err := mountopt.Image(m.options, m.sloppy)
	for _, opt := range left {
		fmt.Fprintf(stderr, "plyfs: mount option %s is left out\n", opt)
	}
	if err != nil {
		return m.usagef("%w", err)
	}
	if m.fake {
		return nil
	}
	logrus.SetFormatter(plainFormatter{})
	logrus.SetLevel(logrus.WarnLevel)
	root, err := rootDir(o.Root)
	if err != nil {
		return err
	}
	st, err := layerstore.Open(root)
	if err != nil {
		return err
	}
	err = mountNamed(ctx, st, m, o)
	return errors.Join(err, st.Close())
}

func mountNamed(ctx context.Context, st *layerstore.Store, m *mountArgs, o mountopt.Options) error {
	what := m.source
	create := container.CreateOptions{Name: o.Name, ReadOnly: o.ReadOnly}
	if o.Name != "" {
		again, err := isContainerOf(ctx, st, o.Name, m.source)
		if err != nil {
			return err
		}
		if again {
			what, create = o.Name, container.CreateOptions{}
		}
	} else if c, err := st.Container(ctx, m.source); err == nil && c.Name == m.source {
		create = container.CreateOptions{}
	}
	_, err := container.MountByName(ctx, st, what, create, container.MountOptions{
		Mountpoint: m.mountpoint,
		LogLevel:   logrus.WarnLevel.String(),
		Options:    strings.Join(m.options, ","),
	})
	return err
}

// isContainerOf reports whether there is a container of that name, which must then be of that image.
func isContainerOf(ctx context.Context, st *layerstore.Store, name, ref string) (bool, error) {
	c, err := st.Container(ctx, name)
	if errors.Is(err, layerstore.ErrNotFound) || err == nil && c.Name != name {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if img, err := image.Resolve(ctx, st, ref); err != nil || img.ID != c.Image {
		return false, fmt.Errorf("container %s: %w and is of the image %s, not %s; give it another name", name, container.ErrExists, c.ImageName, ref)
	}
	return true, nil
}
