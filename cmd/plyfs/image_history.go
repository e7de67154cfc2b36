package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/cmd/plyfs/internal/format"
	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

func historyCommand() *cli.Command {
	return &cli.Command{
		Name:      "history",
		Usage:     "show the steps by which an image was made, the last first",
		ArgsUsage: "IMAGE",
		Description: "The size of a step is that of its uncompressed layer. Templates know .ID, .CreatedSince, .CreatedAt, .CreatedBy, .Size and\n" +
			".Comment.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "human", Aliases: []string{"H"}, Usage: "print sizes and times for people", Value: true},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print IDs only"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "cut nothing short"},
			listFormatFlag(),
		},
		Action: withStore(1, 1, func(c *cli.Context, st *layerstore.Store) error {
			img, err := image.Resolve(c.Context, st, c.Args().First())
			if err != nil {
				return err
			}
			history, err := image.History(img, st.LayerSize)
			if err != nil {
				return err
			}
			return historyColumns(time.Now(), c.Bool("human"), c.Bool("no-trunc")).Write(c.App.Writer, historyForm(c), history)
		}),
	}
}

func historyForm(c *cli.Context) string {
	form := c.String("format")
	switch {
	case form != "" && form != format.Table:
		return form
	case c.Bool("quiet"):
		return format.ID
	case !c.Bool("human"):
		return `table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`
	}
	return `table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`
}

// createdByWidth is how much docker shows of a step's command.
const createdByWidth = 45

func historyColumns(now time.Time, human, full bool) format.Columns[image.HistoryEntry] {
	// docker takes what was made before 2000 for a time that is not known: reproducible builds say 1970
	known := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(h image.HistoryEntry) string { return h.Created.Local().Format(time.RFC3339) }
	return format.Columns[image.HistoryEntry]{
		{Name: "ID", Header: "IMAGE", Value: func(h image.HistoryEntry) any {
			if hex, ok := strings.CutPrefix(h.ID, "sha256:"); ok && !full {
				return hex[:12]
			}
			return h.ID
		}},
		{Name: "CreatedSince", Header: "CREATED", Value: func(h image.HistoryEntry) any {
			switch {
			case !human:
				return at(h)
			case !h.Created.After(known):
				return notAvailable
			}
			return since(now, h.Created)
		}},
		{Name: "CreatedAt", Header: "CREATED AT", Value: func(h image.HistoryEntry) any { return at(h) }},
		{Name: "CreatedBy", Header: "CREATED BY", Value: func(h image.HistoryEntry) any {
			by := oneCell(h.CreatedBy)
			if !full {
				by = format.Ellipsis(by, createdByWidth)
			}
			return by
		}},
		{Name: "Size", Header: "SIZE", Value: func(h image.HistoryEntry) any {
			if human {
				return size(h.Size)
			}
			return strconv.FormatInt(h.Size, 10)
		}},
		{Name: "Comment", Header: "COMMENT", Value: func(h image.HistoryEntry) any { return oneCell(h.Comment) }},
	}
}

// oneCell makes a text of an image fit for a cell of a table and for a terminal.
func oneCell(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case !strconv.IsPrint(r):
			return -1
		}
		return r
	}, s)
}
