package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

func rmiCommand(name string, aliases ...string) *cli.Command {
	return &cli.Command{
		Name:      name,
		Aliases:   aliases,
		Usage:     "take a name off an image, and with its last name delete it",
		ArgsUsage: "IMAGE...",
		Action: withStore(1, -1, func(c *cli.Context, st *layerstore.Store) error {
			return forEach(c.Context, c.Args().Slice(), func(name string) error {
				removed, err := image.Remove(c.Context, st, name)
				if err != nil {
					return err
				}
				for _, n := range removed.Untagged {
					fmt.Fprintf(c.App.Writer, "Untagged: %s\n", familiar(n))
				}
				for _, d := range removed.Deleted {
					fmt.Fprintf(c.App.Writer, "Deleted: %s\n", d)
				}
				return nil
			})
		}),
	}
}

// familiar is a full reference as docker prints it. An index.json that others wrote may hold any name.
func familiar(name string) string {
	ref, err := image.ParseReference(name)
	if err != nil {
		return fmt.Sprintf("%q", name)
	}
	return ref.Familiar()
}
