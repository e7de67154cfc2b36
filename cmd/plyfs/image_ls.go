package main

import (
	"fmt"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/cmd/plyfs/internal/format"
	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

func imagesCommand(name string, aliases ...string) *cli.Command {
	return &cli.Command{
		Name:      name,
		Aliases:   aliases,
		Usage:     "list the images of the store",
		ArgsUsage: "[REPOSITORY[:TAG]]",
		Description: "Filters are dangling=BOOL, reference=PATTERN, label=KEY[=VALUE], before=IMAGE, since=IMAGE and until=TIME. Templates know\n" +
			".ID, .Repository, .Tag, .Digest, .CreatedSince, .CreatedAt and .Size.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "list parents of other images too that have no name"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print IDs only"},
			&cli.BoolFlag{Name: "digests", Usage: "print the digests by which registries know the images"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print IDs in full"},
			filterFlag("f"),
			listFormatFlag(),
		},
		Action: withStore(0, 1, func(c *cli.Context, st *layerstore.Store) error {
			filters, err := parseFilters(c)
			if err != nil {
				return err
			}
			if arg := c.Args().First(); arg != "" {
				filters["reference"] = append(filters["reference"], arg)
			}
			form := imagesForm(c)
			list, err := image.List(c.Context, st, image.ListOptions{All: c.Bool("all"), Digests: c.Bool("digests"), Filters: filters})
			if err != nil {
				return err
			}
			return imageColumns(time.Now(), c.Bool("no-trunc")).Write(c.App.Writer, form, list)
		}),
	}
}

func imagesForm(c *cli.Context) string {
	form := c.String("format")
	switch {
	case form != "" && form != format.Table:
		return form
	case c.Bool("quiet"):
		return format.ID
	case c.Bool("digests"):
		return `table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
	}
	return `table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
}

// createdAt is the form of docker's CreatedAt, in local time.
const createdAt = "2006-01-02 15:04:05 -0700 MST"

// notAvailable is what docker prints for what it has not counted.
const notAvailable = "N/A"

func imageColumns(now time.Time, full bool) format.Columns[image.Listing] {
	return format.Columns[image.Listing]{
		{Name: "ID", Header: "IMAGE ID", Value: func(l image.Listing) any { return imageID(l.ID, full) }},
		{Name: "Repository", Header: "REPOSITORY", Value: func(l image.Listing) any { return l.Repository }},
		{Name: "Tag", Header: "TAG", Value: func(l image.Listing) any { return l.Tag }},
		{Name: "Digest", Header: "DIGEST", Value: func(l image.Listing) any { return l.Digest }},
		{Name: "CreatedSince", Header: "CREATED", Value: func(l image.Listing) any { return since(now, l.Created) }},
		{Name: "CreatedAt", Header: "CREATED AT", Value: func(l image.Listing) any { return l.Created.Local().Format(createdAt) }},
		{Name: "Size", Header: "SIZE", Value: func(l image.Listing) any { return size(l.Size) }},
		{Name: "Containers", Header: "CONTAINERS", Value: func(image.Listing) any { return notAvailable }},
		{Name: "SharedSize", Header: "SHARED SIZE", Value: func(image.Listing) any { return notAvailable }},
		{Name: "UniqueSize", Header: "UNIQUE SIZE", Value: func(image.Listing) any { return notAvailable }},
	}
}

func imageID(id layerstore.Digest, full bool) string {
	if full {
		return id.String()
	}
	return shortDigest(id)
}

// since says how long ago something was made.
func since(now, then time.Time) string {
	if then.IsZero() {
		return notAvailable
	}
	return units.HumanDuration(now.Sub(then)) + " ago"
}

// listFormatFlag is --format of commands that docker has too.
func listFormatFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Usage: "print as table, as json, or by a Go template: `FORM`, or \"table TEMPLATE\"", DefaultText: "table"}
}

// filterFlag is --filter, with one letter where docker has one.
func filterFlag(letter ...string) cli.Flag {
	return &cli.GenericFlag{Name: "filter", Aliases: letter, Usage: "take only what `KEY=VALUE` says; may be given several times", Value: &textList{}}
}

func parseFilters(c *cli.Context) (image.Filters, error) {
	filters := image.Filters{}
	list, ok := c.Generic("filter").(*textList)
	if !ok {
		return filters, nil
	}
	for _, f := range *list {
		if err := filters.Parse(f); err != nil {
			return nil, usagef(c.Command, "--filter: %v", err)
		}
	}
	return filters, nil
}

func tagCommand() *cli.Command {
	return &cli.Command{
		Name:      "tag",
		Usage:     "give an image one more name",
		ArgsUsage: "IMAGE REPOSITORY[:TAG]",
		Action: withStore(2, 2, func(c *cli.Context, st *layerstore.Store) error {
			if err := image.Tag(c.Context, st, c.Args().Get(0), c.Args().Get(1)); err != nil {
				return fmt.Errorf("tag: %w", err)
			}
			return nil
		}),
	}
}
