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
