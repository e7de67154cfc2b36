package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/container"
	"github.com/plyfs/plyfs/fs/mountopt"
	"github.com/plyfs/plyfs/layerstore"
)

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "mount an image as a new container, or a container again, and print the mountpoint",
		ArgsUsage: "IMAGE|NAME [MOUNTPOINT]",
		Description: "What is changed in the mount stays in the container, which `plyfs rm` deletes. NAME mounts a container\n" +
			"again with its changes. Without MOUNTPOINT the container's own directory in the store is mounted on.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "make a container called `NAME`", DefaultText: "chosen"},
			&cli.BoolFlag{Name: "read-only", Usage: "make a container that cannot be written to"},
			&cli.StringFlag{Name: "options", Aliases: []string{"o"}, Usage: "mount `OPTIONS`, as mount(8) takes them; see man plyfs-overlay"},
			&cli.BoolFlag{Name: "foreground", Usage: "serve the mount in this process, until it is unmounted or interrupted"},
		},
		Action: withStore(1, 2, func(c *cli.Context, st *layerstore.Store) error {
			var printErr error
			o, _, err := mountopt.Image([]string{c.String("options")}, false)
			switch {
			case err != nil:
				return usagef(c.Command, "%v", err)
			case o.Name != "" || o.Root != "":
				return usagef(c.Command, "name= and root= are for mount -t plyfs: use --name and --root")
			}
			create := container.CreateOptions{Name: c.String("name"), ReadOnly: c.Bool("read-only")}
			_, err = container.MountByName(c.Context, st, c.Args().First(), create, container.MountOptions{
				Mountpoint: c.Args().Get(1),
				Foreground: c.Bool("foreground"),
				Options:    c.String("options"),
				LogLevel:   logLevel(c),
				Ready:      func(mountpoint string) { _, printErr = fmt.Fprintln(c.App.Writer, mountpoint) },
			})
			if err == nil {
				err = printErr
			}
			return err
		}),
	}
}

func umountCommand() *cli.Command {
	return &cli.Command{
		Name:      "umount",
		Aliases:   []string{"unmount"},
		Usage:     "unmount containers; their changes are kept",
		ArgsUsage: "NAME|MOUNTPOINT...",
		Action: withStore(1, -1, func(c *cli.Context, st *layerstore.Store) error {
			return forEach(c.Context, c.Args().Slice(), func(arg string) error {
				return container.Unmount(c.Context, st, arg)
			})
		}),
	}
}

func rmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "delete containers that are not mounted, with their changes",
		ArgsUsage: "NAME...",
		Action: withStore(1, -1, func(c *cli.Context, st *layerstore.Store) error {
			return forEach(c.Context, c.Args().Slice(), func(name string) error {
				if err := container.Remove(c.Context, st, name); err != nil {
					return err
				}
				_, err := fmt.Fprintln(c.App.Writer, name)
				return err
			})
		}),
	}
}
