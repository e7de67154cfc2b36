package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

func importCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "make an image of a tar of a root filesystem, and print its ID",
		ArgsUsage: "FILE|URL|- [REPOSITORY[:TAG]]",
		Description: "The tar may be compressed with gzip, zstd, xz or bzip2. - reads standard input. A change is an instruction as a\n" +
			"Dockerfile has it: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR.",
		Flags: []cli.Flag{
			&cli.GenericFlag{Name: "change", Aliases: []string{"c"}, Usage: "apply a Dockerfile `INSTRUCTION`; may be given several times", Value: &textList{}},
			&cli.StringFlag{Name: "message", Aliases: []string{"m"}, Usage: "set the `TEXT` of the image's history", DefaultText: "Imported from FILE"},
			&cli.StringFlag{Name: "platform", Usage: "say that the image is made for `OS/ARCH[/VARIANT]`", DefaultText: "this machine's"},
		},
		Action: withStore(1, 2, func(c *cli.Context, st *layerstore.Store) error {
			o := image.ImportOptions{
				Name:     c.Args().Get(1),
				Message:  c.String("message"),
				Source:   c.Args().First(),
				Platform: c.String("platform"),
			}
			if list, ok := c.Generic("change").(*textList); ok {
				o.Changes = *list
			}
			id, err := importFrom(c, st, o)
			if err != nil {
				return fmt.Errorf("import: %w", err)
			}
			_, err = fmt.Fprintln(c.App.Writer, id)
			return err
		}),
	}
}

func importFrom(c *cli.Context, st *layerstore.Store, o image.ImportOptions) (layerstore.Digest, error) {
	if image.IsURL(o.Source) {
		in, err := image.OpenURL(c.Context, o.Source)
		if err != nil {
			return "", err
		}
		defer in.Close() //nolint:errcheck // read only
		return image.Import(c.Context, st, in, o)
	}
	in, closeIn, err := openInput(c, o.Source)
	if err != nil {
		return "", err
	}
	defer closeIn()
	return image.Import(c.Context, st, in, o)
}

// textList is an option that may be given several times, whose values may have commas in them.
type textList []string

// Set adds a value. urfave/cli sets an option's other names once more to what String says: that is no value.
func (l *textList) Set(value string) error {
	if value != "" {
		*l = append(*l, value)
	}
	return nil
}

// String is for the help, which shows no default.
func (l *textList) String() string { return "" }
