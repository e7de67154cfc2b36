package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

func loadCommand() *cli.Command {
	return &cli.Command{
		Name:  "load",
		Usage: "take in the images of an archive that docker, podman, skopeo, crane or plyfs wrote",
		Description: "The archive is a docker-archive or an OCI layout, as a tar that may be compressed with gzip, zstd, xz or bzip2,\n" +
			"or as a directory.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "input", Aliases: []string{"i"}, Usage: "read `FILE`, or a directory", DefaultText: "standard input"},
			&cli.StringFlag{Name: "platform", Usage: "take the image made for `OS/ARCH[/VARIANT]`", DefaultText: "this machine's"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
		},
		Action: withStore(0, 0, func(c *cli.Context, st *layerstore.Store) error {
			progress, finish := newProgress(c.App.ErrWriter, c.Bool("quiet"))
			loaded, err := loadImages(c, st, image.LoadOptions{Platform: c.String("platform"), Progress: progress})
			finish()
			for _, img := range loaded {
				for _, n := range img.Names {
					fmt.Fprintf(c.App.Writer, "Loaded image: %s\n", familiar(n))
				}
				if len(img.Names) == 0 {
					fmt.Fprintf(c.App.Writer, "Loaded image ID: %s\n", img.ID)
				}
			}
			if err != nil {
				return fmt.Errorf("load: %w", err)
			}
			return nil
		}),
	}
}

func loadImages(c *cli.Context, st *layerstore.Store, o image.LoadOptions) ([]image.Loaded, error) {
	in, closeIn, err := openInput(c, c.String("input"))
	if err != nil {
		return nil, err
	}
	defer closeIn()
	if f, ok := in.(*os.File); ok {
		if fi, err := f.Stat(); err == nil && fi.IsDir() {
			return image.LoadDir(c.Context, st, f.Name(), o)
		}
	}
	return image.Load(c.Context, st, in, o)
}

// openInput opens the file that a command reads: standard input for "" and "-", unless somebody would have to type it.
func openInput(c *cli.Context, name string) (in io.Reader, closeIn func(), err error) {
	if name == "" || name == "-" {
		if f, ok := c.App.Reader.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return nil, nil, errors.New("an archive is not read from a terminal; name a file or redirect standard input")
		}
		return c.App.Reader, func() {}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { _ = f.Close() }, nil // read only
}
