package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

func imageCommand() *cli.Command {
	return &cli.Command{
		Name:        "image",
		Usage:       "manage images",
		Action:      noCommand,
		Subcommands: []*cli.Command{pullCommand(), imagesCommand("ls", "list"), rmiCommand("rm", "remove"), saveCommand()},
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

func imagesCommand(name string, aliases ...string) *cli.Command {
	return &cli.Command{
		Name:    name,
		Aliases: aliases,
		Usage:   "list the images of the store",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print IDs only"},
			&cli.BoolFlag{Name: "digests", Usage: "print the digests by which registries know the images"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print IDs in full"},
		},
		Action: withStore(0, 0, func(c *cli.Context, st *layerstore.Store) error {
			list, err := image.List(c.Context, st)
			if err != nil {
				return err
			}
			return printImages(c.App.Writer, list, imageFormat{
				quiet: c.Bool("quiet"), digests: c.Bool("digests"), full: c.Bool("no-trunc"), now: time.Now(),
			})
		}),
	}
}

// imageFormat says what of images is printed.
type imageFormat struct {
	quiet, digests, full bool
	now                  time.Time
}

// printImages prints a line for each name of each image, as docker does.
func printImages(w io.Writer, list []image.Listing, f imageFormat) error {
	table := tabwriter.NewWriter(w, 20, 1, 3, ' ', 0)
	if !f.quiet {
		fmt.Fprintln(table, f.columns("REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"))
	}
	for _, l := range list {
		id := shortDigest(l.ID)
		if f.full {
			id = l.ID.String()
		}
		if f.quiet {
			fmt.Fprintln(table, id)
			continue
		}
		created := "N/A"
		if !l.Created.IsZero() {
			created = units.HumanDuration(f.now.Sub(l.Created)) + " ago"
		}
		fmt.Fprintln(table, f.columns(l.Repository, l.Tag, l.Digest, id, created, size(l.Size)))
	}
	return table.Flush()
}

// columns joins the columns of a line; the third is the digest.
func (f imageFormat) columns(c ...string) string {
	if !f.digests {
		c = append(c[:2:2], c[3:]...)
	}
	return strings.Join(c, "\t")
}

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
