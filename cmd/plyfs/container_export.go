package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/plyfs/plyfs/container"
	"github.com/plyfs/plyfs/layerstore"
)

func containerCommand() *cli.Command {
	return &cli.Command{
		Name:        "container",
		Usage:       "manage containers",
		Action:      noCommand,
		Subcommands: []*cli.Command{exportCommand(), rmCommand()},
	}
}

func exportCommand() *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "write the whole tree of a container as a tar",
		ArgsUsage: "NAME",
		Description: "The tar has what the image holds and what was changed in the container, which may be mounted or not. Owners, modes,\n" +
			"times, hard links, extended attributes, holes and device nodes are kept. GNU tar wants --xattrs --xattrs-include='*'\n" +
			"to unpack all of it; `plyfs import` makes an image of it.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`, which appears once it is complete", DefaultText: "standard output"},
		},
		Action: withStore(1, 1, func(c *cli.Context, st *layerstore.Store) error {
			path := c.String("output")
			export := func(w io.Writer) error {
				if err := container.Export(c.Context, st, c.Args().First(), w); err != nil {
					return fmt.Errorf("export: %w", err)
				}
				return nil
			}
			if path != "" && path != "-" {
				return writeFile("export", path, export)
			}
			if out, ok := c.App.Writer.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
				return errors.New("export: an archive is not written to a terminal; use -o FILE or redirect")
			}
			return export(c.App.Writer)
		}),
	}
}
