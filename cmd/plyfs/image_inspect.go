package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/cmd/plyfs/internal/format"
	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

// exitTemplate is the status of an inspect whose template cannot be parsed, as docker has it.
const exitTemplate = 64

// statusError is an error that chooses the exit status.
type statusError struct {
	error
	status int
}

// Unwrap tells the error.
func (e *statusError) Unwrap() error { return e.error }

// inspectCommand is `image inspect`, or the shorter `inspect`, which docker has for all that it keeps.
func inspectCommand(short bool) *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "print as json in one line, or by a Go template: `FORM`", DefaultText: "indented JSON"},
	}
	if short {
		flags = append(flags,
			&cli.StringFlag{Name: "type", Usage: "look for what is of `TYPE`: image", DefaultText: "image"},
			&cli.BoolFlag{Name: "size", Aliases: []string{"s"}, Usage: "taken as docker's: an image's size is always shown"})
	}
	return &cli.Command{
		Name:        "inspect",
		Usage:       "show all about images, as JSON",
		ArgsUsage:   "IMAGE...",
		Description: "The keys are docker's. What is not found is said after what is, and the exit status is then 1.",
		Flags:       flags,
		Action: withStore(1, -1, func(c *cli.Context, st *layerstore.Store) error {
			if kind := c.String("type"); kind != "" && kind != "image" {
				return usagef(c.Command, "--type %q: only image is known", kind)
			}
			return inspectImages(c, st)
		}),
	}
}

func inspectImages(c *cli.Context, st *layerstore.Store) error {
	var found []any
	failed := forEach(c.Context, c.Args().Slice(), func(name string) error {
		img, err := image.Resolve(c.Context, st, name)
		if err != nil {
			return err
		}
		v, err := image.Inspect(img)
		if err == nil {
			found = append(found, v)
		}
		return err
	})
	err := format.Inspect(c.App.Writer, c.String("format"), found)
	switch {
	case errors.Is(err, format.ErrTemplate):
		return &statusError{fmt.Errorf("inspect: %w", err), exitTemplate}
	case err == nil:
		return failed
	case failed == nil:
		return err
	}
	var each eachError
	errors.As(failed, &each)
	return append(each, err)
}
