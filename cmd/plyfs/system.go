package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/cmd/plyfs/internal/format"
	"github.com/plyfs/plyfs/container"
	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

func systemCommand() *cli.Command {
	return &cli.Command{
		Name:        "system",
		Usage:       "manage the store and tell of the machine",
		Action:      noCommand,
		Subcommands: []*cli.Command{dfCommand(), pruneCommand(), checkCommand(), infoCommand()},
	}
}

func dfCommand() *cli.Command {
	return &cli.Command{
		Name:  "df",
		Usage: "show what takes room in the store",
		Description: "An image's SIZE is that of its layers, uncompressed; what several images share counts once in the sum. Containers are\n" +
			"active while they are mounted, images while a container is made of them.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "show each image and container"},
			listFormatFlag(),
		},
		Action: withStore(0, 0, func(c *cli.Context, st *layerstore.Store) error {
			u, err := st.Usage(c.Context)
			if err != nil {
				return err
			}
			form := c.String("format")
			if form == format.Table {
				form = ""
			}
			switch {
			case c.Bool("verbose") && form != "":
				return printObject(c, form, u)
			case c.Bool("verbose"):
				return printUsage(c, u)
			case form == "":
				form = `table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}`
			}
			return dfColumns.Write(c.App.Writer, form, dfRows(u))
		}),
	}
}

// dfRow is a line of system df, by docker's names.
type dfRow struct{ Type, TotalCount, Active, Size, Reclaimable string }

var dfColumns = format.Columns[dfRow]{
	{Name: "Type", Header: "TYPE", Value: func(r dfRow) any { return r.Type }},
	{Name: "TotalCount", Header: "TOTAL", Value: func(r dfRow) any { return r.TotalCount }},
	{Name: "Active", Header: "ACTIVE", Value: func(r dfRow) any { return r.Active }},
	{Name: "Size", Header: "SIZE", Value: func(r dfRow) any { return r.Size }},
	{Name: "Reclaimable", Header: "RECLAIMABLE", Value: func(r dfRow) any { return r.Reclaimable }},
}

// printObject prints a value as JSON or by a template.
func printObject(c *cli.Context, form string, v any) error {
	if form == format.JSON {
		return json.NewEncoder(c.App.Writer).Encode(v)
	}
	return format.Inspect(c.App.Writer, form, []any{v})
}

// newTable lines columns up as docker does.
func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 10, 1, 3, ' ', 0) }

func dfRows(u layerstore.Usage) []dfRow {
	active, mounted := 0, 0
	var size, resting int64
	for _, img := range u.Images {
		active += min(img.Containers, 1)
	}
	for _, ct := range u.Containers {
		size += ct.Size
		if ct.Active {
			mounted++
		} else {
			resting += ct.Size
		}
	}
	row := func(kind string, count, active int, size, unused int64) dfRow {
		reclaimable := units.HumanSize(float64(unused))
		if size > 0 {
			reclaimable += fmt.Sprintf(" (%d%%)", unused*100/size)
		}
		return dfRow{kind, strconv.Itoa(count), strconv.Itoa(active), units.HumanSize(float64(size)), reclaimable}
	}
	return []dfRow{
		row("Images", len(u.Images), active, u.Layers.Size, u.Layers.Unused),
		row("Containers", len(u.Containers), mounted, size, resting),
		row("Compressed Blobs", u.Blobs.Count, u.Blobs.Count, u.Blobs.Size, u.Blobs.Unused),
		row("Partial Downloads", u.Partial.Count, 0, u.Partial.Size, u.Partial.Unused),
		row("Unreferenced Files", u.Unreferenced.Count, 0, u.Unreferenced.Size, u.Unreferenced.Unused),
	}
}

// printUsage prints a line for each image and each container.
func printUsage(c *cli.Context, u layerstore.Usage) error {
	fmt.Fprint(c.App.Writer, "Images space usage:\n\n")
	w := newTable(c.App.Writer)
	fmt.Fprintln(w, "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS")
	human := func(n int64) string { return units.HumanSize(float64(n)) }
	for _, img := range u.Images {
		for _, l := range image.Listings(img.ImageSummary) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", l.Repository, l.Tag, shortDigest(l.ID), since(time.Now(), l.Created),
				human(img.Size), human(img.Shared), human(img.Size-img.Shared), img.Containers)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprint(c.App.Writer, "\nContainers space usage:\n\n")
	fmt.Fprintln(w, "CONTAINER ID\tIMAGE\tSIZE\tCREATED\tSTATUS\tNAMES")
	for _, ct := range u.Containers {
		status := "Unmounted"
		if ct.Active {
			status = "Mounted"
		}
		fmt.Fprintf(w, "%.12s\t%s\t%s\t%s\t%s\t%s\n", ct.ID, printable(ct.ImageName), human(ct.Size), since(time.Now(), ct.Created), status, ct.Name)
	}
	return w.Flush()
}

func infoCommand() *cli.Command {
	return &cli.Command{
		Name:  "info",
		Usage: "tell of the store, the machine and what of it plyfs can use",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "print as json, or by a Go template: `FORM`", DefaultText: "lines of text"},
		},
		Action: withStore(0, 0, func(c *cli.Context, st *layerstore.Store) error {
			h, err := container.Host(c.Context, st)
			if err != nil {
				return err
			}
			info := struct {
				Version string
				container.HostInfo
			}{c.App.Version, h}
			if form := c.String("format"); form != "" {
				return printObject(c, form, info)
			}
			hint := ""
			if h.IOUringHint != "" {
				hint = " (to switch it on: " + h.IOUringHint + ")"
			}
			fusermount := h.Fusermount
			if fusermount == "" {
				fusermount = "not installed: users cannot mount"
			}
			overlay := "not in this kernel"
			if h.Overlay {
				overlay = "available"
			}
			for _, l := range [][2]string{
				{"Version", info.Version},
				{"Store", fmt.Sprintf("%s (%s, %s free)", h.Root, h.Filesystem, units.HumanSize(float64(h.FreeBytes)))},
				{"Images", strconv.Itoa(h.Images)},
				{"Containers", fmt.Sprintf("%d (%d mounted)", h.Containers, h.ContainersMounted)},
				{"Operating System", h.OperatingSystem},
				{"Kernel Version", h.KernelVersion},
				{"Architecture", h.Architecture},
				{"CPUs", strconv.Itoa(h.NCPU)},
				{"Total Memory", units.BytesSize(float64(h.MemTotal))},
				{"User", strconv.Itoa(h.UID)},
				{"FUSE", h.FUSE},
				{"FUSE Passthrough", h.Passthrough},
				{"FUSE over io_uring", h.IOUring + hint},
				{"fusermount3", fusermount},
				{"Kernel Overlayfs", overlay},
				{"User Namespaces", h.UserNamespaces},
				{"Cgroup Version", strconv.Itoa(h.CgroupVersion)},
				{"Open Files", fmt.Sprintf("%d, at most %d", h.OpenFiles, h.OpenFilesMax)},
			} {
				if _, err := fmt.Fprintf(c.App.Writer, "%s: %s\n", l[0], l[1]); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}
