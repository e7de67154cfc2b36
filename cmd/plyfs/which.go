package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/fs"
)

func whichCommand() *cli.Command {
	return &cli.Command{
		Name:      "which",
		Usage:     "print the layer that a path of a mount comes from",
		ArgsUsage: "PATH...",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "print all layers that hold it, the one that shows first"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usagef(c.Command, "which: no path given")
			}
			return forEach(c.Context, c.Args().Slice(), func(path string) error {
				layers, err := fs.Which(path)
				if err != nil {
					return err
				}
				if !c.Bool("all") {
					layers = layers[:1]
				}
				for _, l := range layers {
					if _, err := fmt.Fprintln(c.App.Writer, l); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
