package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/docker/go-units"
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
		Description: "An image given by its ID loses all its names if they are of one repository and tag. One that a container uses, or from\n" +
			"which another image was made, stays.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "take all names of an image given by its ID, and the last one of an image in use; an image that is not there is no failure"},
			&cli.BoolFlag{Name: "no-prune", Usage: "keep parents that have no name"},
		},
		Action: withStore(1, -1, func(c *cli.Context, st *layerstore.Store) error {
			o := layerstore.RemoveOptions{Force: c.Bool("force"), NoPrune: c.Bool("no-prune")}
			var missing eachError
			failed := forEach(c.Context, c.Args().Slice(), func(name string) error {
				removed, err := image.Remove(c.Context, st, name, o)
				if o.Force && errors.Is(err, layerstore.ErrNotFound) {
					missing = append(missing, err)
					return nil
				}
				if err != nil {
					return err
				}
				printRemoved(c.App.Writer, removed, "Untagged", "Deleted")
				return nil
			})
			report(c.App.ErrWriter, errorOrNil(missing)) // which is no failure
			return failed
		}),
	}
}

func errorOrNil(each eachError) error {
	if len(each) == 0 {
		return nil
	}
	return each
}

func printRemoved(w io.Writer, removed layerstore.Removed, untagged, deleted string) {
	for _, n := range removed.Untagged {
		fmt.Fprintf(w, "%s: %s\n", untagged, familiar(n))
	}
	for _, d := range removed.Deleted {
		fmt.Fprintf(w, "%s: %s\n", deleted, d)
	}
}

func imagePruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "delete images that nothing uses",
		Description: "Deleted are images without a tag that no container uses and from which no other image was made, with `--all` those with a\n" +
			"tag too. It asks first. A filter is until=TIME or until=DURATION, label=KEY[=VALUE] or label!=KEY[=VALUE].",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "delete all images that no container uses, not only those without a tag"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "do not ask"},
			filterFlag(),
		},
		Action: withStore(0, 0, func(c *cli.Context, st *layerstore.Store) error {
			filters, err := parseFilters(c)
			if err != nil {
				return err
			}
			what := "all dangling images"
			if c.Bool("all") {
				what = "all images without at least one container associated to them"
			}
			if !c.Bool("force") && !confirm(c, "This will remove "+what+".\n") {
				return nil
			}
			removed, err := image.Prune(c.Context, st, c.Bool("all"), filters)
			if err != nil {
				return err
			}
			if len(removed.Deleted) > 0 {
				fmt.Fprintln(c.App.Writer, "Deleted Images:")
				printRemoved(c.App.Writer, removed, "untagged", "deleted")
				fmt.Fprintln(c.App.Writer)
			}
			_, err = fmt.Fprintln(c.App.Writer, "Total reclaimed space:", units.HumanSize(float64(removed.Freed)))
			return err
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
