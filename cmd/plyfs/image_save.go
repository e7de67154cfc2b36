package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

func saveCommand() *cli.Command {
	return &cli.Command{
		Name:      "save",
		Usage:     "write images to a file that docker, podman and skopeo can load",
		ArgsUsage: "IMAGE...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`, which appears once it is complete", DefaultText: "standard output"},
			&cli.StringFlag{Name: "format", Usage: "write as docker-archive, oci-archive or oci-dir", Value: string(image.DockerArchive)},
		},
		Action: withStore(1, -1, func(c *cli.Context, st *layerstore.Store) error {
			path := c.String("output")
			format := image.Format(c.String("format"))
			switch format {
			case image.DockerArchive, image.OCIArchive:
			case image.OCIDir:
				if path == "" || path == "-" {
					return usagef(c.Command, "--format %s writes a directory: name it with -o", format)
				}
				return writeDir(path, func(dir string) error { return image.SaveDir(c.Context, st, dir, c.Args().Slice()) })
			default:
				return usagef(c.Command, "--format %q: not one of %s, %s, %s", format, image.DockerArchive, image.OCIArchive, image.OCIDir)
			}
			save := func(w io.Writer) error { return image.Save(c.Context, st, w, format, c.Args().Slice()) }
			if path != "" && path != "-" {
				return writeFile("save", path, save)
			}
			if out, ok := c.App.Writer.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
				return errors.New("save: an archive is not written to a terminal; use -o FILE or redirect")
			}
			return save(c.App.Writer)
		}),
	}
}

// writeFile has a file written that appears under its name only once it is complete. What is no regular file, such as a
// pipe, is written to as it is. Errors say what could not be done.
func writeFile(what, path string, write func(io.Writer) error) (err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case !info.Mode().IsRegular():
		return writeInPlace(what, path, write)
	default:
		// A symlink stays one.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	// Readable by its owner only, as docker's: an image can hold what others must not read.
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("%s: %w; name a file in a directory that exists and can be written to", what, err)
	}
	defer func() {
		if err != nil {
			tmp.Close()           //nolint:errcheck // it may be closed; err is what to tell
			os.Remove(tmp.Name()) //nolint:errcheck // as above
		}
	}()
	if err := write(tmp); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// writeDir has a directory written that appears under its name only once it is complete. It may be there if it is empty.
func writeDir(path string, write func(dir string) error) (err error) {
	path = filepath.Clean(path)
	tmp, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("save: %w; name a directory whose parent exists and can be written to", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp) //nolint:errcheck // err is what to tell
		}
	}()
	if err := write(tmp); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	if err := unix.Rename(tmp, path); err != nil { // which takes the place of an empty directory, as os.Rename does not
		return fmt.Errorf("save: %s: %w; name a directory that does not exist yet or is empty", path, err)
	}
	return nil
}

func writeInPlace(what, path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("%s: %w; name a file", what, err)
	}
	if err := write(f); err != nil {
		f.Close() //nolint:errcheck // the first error is the one to tell
		return err
	}
	return f.Close()
}
