package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/internal/format"
	"github.com/plyfs/plyfs/container"
	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
	"github.com/plyfs/plyfs/layerstore/changes"
)

func imageTreeCommand() *cli.Command {
	return &cli.Command{
		Name:      "tree",
		Usage:     "show which files each layer of an image adds, changes and hides",
		ArgsUsage: "IMAGE|NAME",
		Description: "A is what a layer adds, C what it changes and D what it hides of the layers below, with the bytes of each and the\n" +
			"bytes of lower layers that it wastes: those of files that no name shows any more. A directory that is new or hidden is\n" +
			"one line with all that is in it. NAME stands for the image of a container. On a terminal the layers can be browsed:\n" +
			"the arrow keys move, enter opens a layer or a directory, left goes back, / searches and q quits.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "list each file, of new and hidden directories too"},
			&cli.IntFlag{Name: "layer", Aliases: []string{"l"}, Usage: "list the files of layer `NUMBER` alone, 1 being the lowest", DefaultText: "all"},
			&cli.BoolFlag{Name: "plain", Usage: "print, also on a terminal, where the image is shown to browse otherwise"},
			&cli.BoolFlag{Name: "summary", Aliases: []string{"s"}, Usage: "list no files"},
			formatFlag("json"),
		},
		Action: withStore(1, 1, func(c *cli.Context, st *layerstore.Store) error {
			if err := wantFormat(c, "json"); err != nil {
				return err
			}
			list, closeAll, err := container.OpenImages(c.Context, st, c.Args().First())
			if err == nil {
				w := bufio.NewWriter(c.App.Writer)
				t := &treeReport{c: c, img: list[0], w: w, only: c.Int("layer"), all: c.Bool("all"), summary: c.Bool("summary")}
				if t.only < 0 || t.only > len(t.img.Open) {
					err = usagef(c.Command, "--layer %d: the image has layers 1 to %d", t.only, len(t.img.Open))
				} else if tty, ok := t.terminal(); ok {
					err = browse(c.Context, tty, c.Args().First(), t.img)
				} else {
					err = errors.Join(t.run(), w.Flush())
				}
			}
			return errors.Join(err, closeAll())
		}),
	}
}

// formatFlag is --format of commands that print a table or one of some forms.
func formatFlag(forms string) cli.Flag {
	return &cli.StringFlag{Name: "format", Usage: "print in `FORM`: " + forms, DefaultText: "a table"}
}

func wantFormat(c *cli.Context, forms ...string) error {
	form := c.String("format")
	for _, f := range append(forms, "", "table") {
		if form == f {
			return nil
		}
	}
	return usagef(c.Command, "--format %q: not one of table, %s", form, strings.Join(forms, ", "))
}

// treeReport prints what the layers of an image do.
type treeReport struct {
	c            *cli.Context
	img          container.ImageLayers
	w            io.Writer
	only         int // a layer's number, 0 for all
	all, summary bool
}

// terminal returns the terminals to browse on, unless something is asked for that is printed.
func (t *treeReport) terminal() (tty [2]*os.File, ok bool) {
	for _, name := range []string{"plain", "all", "layer", "summary", "format"} {
		if t.c.IsSet(name) {
			return tty, false
		}
	}
	return canBrowse(t.c.App.Reader, t.c.App.Writer)
}

func (t *treeReport) run() error {
	totals, err := t.totals()
	if err != nil {
		return err
	}
	if t.c.String("format") == "json" {
		return t.json(totals)
	}
	if err := t.table(totals); err != nil || t.summary {
		return err
	}
	s := changes.NewStack(t.img.Open)
	for i := range t.img.Open {
		if t.only != 0 && t.only != i+1 {
			if _, err := s.Next(t.c.Context, changes.Options{}, nil); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(t.w, "\nLayer %d %s\n", i+1, shortDigest(t.img.Layers[i].DiffID))
		if _, err := s.Next(t.c.Context, changes.Options{All: t.all}, t.line); err != nil {
			return err
		}
	}
	return nil
}

// totals counts without listing.
func (t *treeReport) totals() ([]changes.Totals, error) {
	s := changes.NewStack(t.img.Open)
	var totals []changes.Totals
	for range t.img.Open {
		one, err := s.Next(t.c.Context, changes.Options{}, nil)
		if err != nil {
			return nil, err
		}
		totals = append(totals, one)
	}
	return totals, nil
}

func (t *treeReport) table(totals []changes.Totals) error {
	by := image.CreatedBy(t.img.Image)
	table := tabwriter.NewWriter(t.w, 6, 1, 3, ' ', 0)
	fmt.Fprintln(table, "LAYER\tDIFF ID\tSIZE\tADDED\tCHANGED\tHIDDEN\tWASTED\tCREATED BY")
	var all changes.Totals
	for i, one := range totals {
		fmt.Fprintf(table, "%d\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n", i+1, shortDigest(t.img.Layers[i].DiffID), size(one.Size),
			one.Added, one.Changed, one.Deleted, size(one.Wasted), format.Ellipsis(by[i], 45))
		all.Size += one.Size
		all.Wasted += one.Wasted
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(t.w, "%s in files of %d layers, of which %s (%s) no name shows any more\n",
		size(all.Size), len(totals), size(all.Wasted), percent(all.Wasted, all.Size))
	return err
}

func percent(part, whole int64) string {
	if whole == 0 {
		return "0%"
	}
	return strconv.FormatFloat(float64(part)*100/float64(whole), 'f', 1, 64) + "%"
}

// line prints a change as a line.
func (t *treeReport) line(c *changes.Change) error {
	_, err := fmt.Fprintln(t.w, changeLine(c))
	return err
}

func changeLine(c *changes.Change) string {
	name := printable(c.Path)
	if c.Mode&unix.S_IFMT == unix.S_IFDIR && name != "/" {
		name += "/"
	}
	bytes := ""
	if c.Mode&unix.S_IFMT == unix.S_IFREG || c.Count > 1 {
		bytes = size(c.Size)
	}
	text := fmt.Sprintf("%c %8s  %s", c.Kind, bytes, name)
	var more []string
	if c.Count > 1 {
		more = append(more, strconv.Itoa(c.Count)+" entries")
	}
	if c.Wasted > 0 {
		more = append(more, size(c.Wasted)+" wasted")
	}
	if len(more) > 0 {
		text += "  (" + strings.Join(more, ", ") + ")"
	}
	return text
}

// printable is a name as a terminal may be shown it: what is no printable character is escaped as in Go, and so is a backslash.
// Names in layers are any bytes.
func printable(name string) string {
	if !strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || r == utf8.RuneError || !unicode.IsPrint(r) }) {
		return name
	}
	q := strconv.Quote(name)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// jsonChange is a change in the output of --format json. A path that is no UTF-8 is escaped, and says so.
type jsonChange struct {
	Kind    string `json:"kind"`
	Path    string `json:"path"`
	Escaped bool   `json:"escaped,omitempty"`
	Mode    string `json:"mode"` // octal, as in stat(2)
	Size    int64  `json:"size"`
	Wasted  int64  `json:"wasted,omitempty"`
	Entries int    `json:"entries"`
}

func toJSON(c *changes.Change) jsonChange {
	j := jsonChange{Kind: string(rune(c.Kind)), Path: c.Path, Mode: strconv.FormatUint(uint64(c.Mode), 8), Size: c.Size, Wasted: c.Wasted, Entries: c.Count}
	if !utf8.ValidString(j.Path) {
		j.Path, j.Escaped = printable(j.Path), true
	}
	return j
}

// jsonLayer is a layer in the output of --format json, where the changes follow.
type jsonLayer struct {
	DiffID    layerstore.Digest `json:"diffID"`
	CreatedBy string            `json:"createdBy,omitempty"`
	Size      int64             `json:"size"`
	Added     int               `json:"added"`
	Changed   int               `json:"changed"`
	Hidden    int               `json:"hidden"`
	Wasted    int64             `json:"wasted"`
}

// json writes one object, the changes as they are found.
func (t *treeReport) json(totals []changes.Totals) error {
	by := image.CreatedBy(t.img.Image)
	fmt.Fprintf(t.w, `{"id":%q,"layers":[`, t.img.ID)
	s := changes.NewStack(t.img.Open)
	separator := ""
	for i, one := range totals {
		skip := t.only != 0 && t.only != i+1
		if skip || t.summary {
			if _, err := s.Next(t.c.Context, changes.Options{}, nil); err != nil {
				return err
			}
		}
		if skip {
			continue
		}
		head, err := json.Marshal(jsonLayer{t.img.Layers[i].DiffID, by[i], one.Size, one.Added, one.Changed, one.Deleted, one.Wasted})
		if err != nil {
			return err
		}
		fmt.Fprintf(t.w, "%s%s", separator, strings.TrimSuffix(string(head), "}"))
		separator = ","
		if !t.summary {
			list := jsonList{w: t.w}
			fmt.Fprint(t.w, `,"changes":[`)
			if _, err := s.Next(t.c.Context, changes.Options{All: t.all}, list.add); err != nil {
				return err
			}
			fmt.Fprint(t.w, "]")
		}
		fmt.Fprint(t.w, "}")
	}
	_, err := fmt.Fprintln(t.w, "]}")
	return err
}

// jsonList writes changes as the elements of a JSON array, a line each.
type jsonList struct {
	w    io.Writer
	some bool
}

func (l *jsonList) add(c *changes.Change) error {
	b, err := json.Marshal(toJSON(c))
	if err != nil {
		return err
	}
	separator := "\n"
	if l.some {
		separator = ",\n"
	}
	l.some = true
	_, err = io.WriteString(l.w, separator+string(b))
	return err
}

func imageDiffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "show how the files of two images differ",
		ArgsUsage: "IMAGE|NAME IMAGE|NAME",
		Description: "A is what only the second image has, D what only the first has, and C what both have but not alike. Files are compared\n" +
			"by type, mode, owner, size, time, target and extended attributes, not by their data. NAME stands for the image of a\n" +
			"container.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "list each file, of directories that only one has too"},
			formatFlag("json"),
		},
		Action: withStore(2, 2, func(c *cli.Context, st *layerstore.Store) error {
			if err := wantFormat(c, "json"); err != nil {
				return err
			}
			list, closeAll, err := container.OpenImages(c.Context, st, c.Args().Slice()...)
			if err == nil {
				w := bufio.NewWriter(c.App.Writer)
				err = errors.Join(printDiff(c, w, list[0], list[1]), w.Flush())
			}
			return errors.Join(err, closeAll())
		}),
	}
}

func printDiff(c *cli.Context, w io.Writer, a, b container.ImageLayers) error {
	o := changes.Options{All: c.Bool("all")}
	if c.String("format") != "json" {
		_, err := changes.Diff(c.Context, a.Open, b.Open, o, func(ch *changes.Change) error {
			_, err := fmt.Fprintln(w, changeLine(ch))
			return err
		})
		return err
	}
	fmt.Fprintf(w, `{"from":%q,"to":%q,"changes":[`, a.ID, b.ID)
	list := jsonList{w: w}
	totals, err := changes.Diff(c.Context, a.Open, b.Open, o, list.add)
	if err == nil {
		_, err = fmt.Fprintf(w, "],\"added\":%d,\"changed\":%d,\"deleted\":%d}\n", totals.Added, totals.Changed, totals.Deleted)
	}
	return err
}
