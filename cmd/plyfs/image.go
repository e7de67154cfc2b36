package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

func imageCommand() *cli.Command {
	return &cli.Command{
		Name:   "image",
		Usage:  "manage images",
		Action: noCommand,
		Subcommands: []*cli.Command{
			pullCommand(), imagesCommand("ls", "list"), rmiCommand("rm", "remove"), saveCommand(), loadCommand(), importCommand(),
			imageTreeCommand(), imageDiffCommand(), tagCommand(), historyCommand(), inspectCommand(false), imagePruneCommand(),
		},
	}
}

func pullCommand() *cli.Command {
	return &cli.Command{
		Name:      "pull",
		Usage:     "take an image from a registry into the store, and print its name",
		ArgsUsage: "IMAGE",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "platform", Usage: "take the image made for `OS/ARCH[/VARIANT]`", DefaultText: "this machine's"},
			&cli.BoolFlag{Name: "tls-verify", Usage: "want https and a certificate that can be verified", Value: true},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
		},
		Action: withStore(1, 1, func(c *cli.Context, st *layerstore.Store) error {
			progress, finish := newProgress(c.App.ErrWriter, c.Bool("quiet"))
			_, err := image.Pull(c.Context, st, c.Args().First(), image.PullOptions{
				Platform:  c.String("platform"),
				TLSVerify: c.Bool("tls-verify"),
				Progress:  progress,
			})
			finish()
			if err != nil {
				return err
			}
			ref, err := image.ParseReference(c.Args().First())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.App.Writer, ref)
			return err
		}),
	}
}
