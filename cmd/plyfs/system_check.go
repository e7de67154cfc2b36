package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/container"
	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "verify the whole store, and say what of it is broken",
		Description: "Every blob and layer is hashed, every index verified, and what images and containers refer to is looked for. With\n" +
			"`--repair` indexes are made again, layers of their blobs, and what cannot be made is fetched again from where it came;\n" +
			"an image that cannot be had again is dropped, unless a container uses it. The exit status is 1 when something is, or\n" +
			"stays, broken.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "repair", Usage: "put right what can be"},
			&cli.BoolFlag{Name: "tls-verify", Usage: "want https and a certificate that can be verified, when something is fetched again", Value: true},
			&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Usage: "hash `NUMBER` files at a time", DefaultText: "one for each processor, 8 at most"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print nothing but what is broken"},
		},
		Action: withStore(0, 0, func(c *cli.Context, st *layerstore.Store) error {
			if c.Int("jobs") < 0 || c.Int("jobs") > 64 {
				return usagef(c.Command, "--jobs %d: not 1 to 64", c.Int("jobs"))
			}
			report, err := st.CheckWith(c.Context, layerstore.CheckOptions{Jobs: c.Int("jobs"), Progress: checkProgress(c)})
			if err != nil {
				return err
			}
			for _, p := range report.Problems {
				fmt.Fprintf(c.App.Writer, "broken: %s: %s\n", printable(p.Path), oneLine(p.Err))
			}
			if !c.Bool("quiet") {
				fmt.Fprintf(c.App.Writer, "Checked %d images, %d containers, %d blobs and %d layers: %s\n",
					report.Images, report.Containers, report.Blobs, report.Layers, units.HumanSize(float64(report.Bytes)))
				if report.Garbage > 0 {
					fmt.Fprintf(c.App.Writer, "%d files are referred to by nothing; `plyfs system prune` deletes them\n", report.Garbage)
				}
			}
			if len(report.Problems) == 0 {
				return nil
			}
			if !c.Bool("repair") {
				return fmt.Errorf("%d things in the store are broken; put right what can be with `plyfs system check --repair`", len(report.Problems))
			}
			return repair(c, st, report)
		}),
	}
}

func oneLine(err error) string { return printable(strings.ReplaceAll(err.Error(), "\n", "; ")) }

func repair(c *cli.Context, st *layerstore.Store, report layerstore.Report) error {
	progress, finish := newProgress(c.App.ErrWriter, c.Bool("quiet"))
	done, err := image.RepairStore(c.Context, st, report, image.PullOptions{TLSVerify: c.Bool("tls-verify"), Progress: progress})
	finish()
	broken := 0
	for _, r := range done {
		if r.Err != nil {
			broken++
			fmt.Fprintf(c.App.Writer, "not repaired: %s: %s\n", printable(r.What), oneLine(r.Err))
		} else {
			fmt.Fprintf(c.App.Writer, "repaired: %s: %s\n", printable(r.What), printable(r.Done))
		}
	}
	if err == nil && broken > 0 {
		err = fmt.Errorf("%d things in the store stay broken", broken)
	}
	return err
}

// checkProgress shows on a terminal how far a check is.
func checkProgress(c *cli.Context) func(done, total int64) {
	out, ok := c.App.ErrWriter.(*os.File)
	if !ok || !canDraw(out) || c.Bool("quiet") {
		return nil
	}
	last := time.Now()
	return func(done, total int64) {
		if now := time.Now(); now.Sub(last) > 100*time.Millisecond || done == total {
			last = now
			end := ""
			if done == total {
				end = "\r\x1b[K"
			}
			fmt.Fprintf(out, "\rchecking: %s of %s\x1b[K%s", units.HumanSize(float64(done)), units.HumanSize(float64(total)), end)
		}
	}
}

func pruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "delete containers that are not mounted and images that nothing uses",
		Description: "Deleted are containers that are not mounted, with their changes, images without a name that no container uses (with\n" +
			"`--all` those with a name too), downloads that were broken off, and what killed commands left. It asks first.\n" +
			"A filter is until=TIME or until=DURATION, label=KEY[=VALUE] or label!=KEY[=VALUE].",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "delete all images that no container uses, not only those without a name"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "do not ask"},
			&cli.GenericFlag{Name: "filter", Usage: "delete only what a `FILTER` lets go; may be given several times", Value: &textList{}},
		},
		Action: withStore(0, 0, func(c *cli.Context, st *layerstore.Store) error {
			o := container.PruneOptions{All: c.Bool("all")}
			if err := pruneFilters(c, &o); err != nil {
				return err
			}
			if !c.Bool("force") && !confirmed(c, o.All) {
				return fmt.Errorf("system prune has been cancelled")
			}
			p, err := container.Prune(c.Context, st, o)
			printPruned(c.App.Writer, p)
			return err
		}),
	}
}

func pruneFilters(c *cli.Context, o *container.PruneOptions) error {
	list, _ := c.Generic("filter").(*textList)
	if list == nil {
		return nil
	}
	for _, f := range *list {
		key, value, ok := strings.Cut(f, "=")
		switch {
		case ok && key == "label" && value != "":
			o.Labels = append(o.Labels, value)
		case ok && key == "label!" && value != "":
			o.NotLabels = append(o.NotLabels, value)
		case ok && key == "until":
			until, err := image.ParseUntil(value, time.Now())
			if err != nil {
				return usagef(c.Command, "--filter until: %v", err)
			}
			o.Until = until
		default:
			return usagef(c.Command, "--filter %q: not until=TIME, label=KEY[=VALUE] or label!=KEY[=VALUE]", f)
		}
	}
	return nil
}

// confirmed asks as docker does.
func confirmed(c *cli.Context, all bool) bool {
	images := "all dangling images"
	if all {
		images = "all images without at least one container associated to them"
	}
	return confirm(c, fmt.Sprintf("This will remove:\n  - all containers that are not mounted, with their changes\n  - %s\n"+
		"  - downloads that were broken off, and what killed commands left\n\n", images))
}

// confirm warns of what a command will do, and asks as docker does whether it should.
func confirm(c *cli.Context, warning string) bool {
	fmt.Fprintf(c.App.Writer, "WARNING! %sAre you sure you want to continue? [y/N] ", warning)
	answer, err := bufio.NewReader(c.App.Reader).ReadString('\n')
	if err != nil {
		fmt.Fprintln(c.App.Writer)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}

func printPruned(w io.Writer, p container.Pruned) {
	if len(p.Containers) > 0 {
		fmt.Fprintf(w, "Deleted Containers:\n%s\n\n", strings.Join(p.Containers, "\n"))
	}
	if len(p.Untagged)+len(p.Deleted) > 0 {
		fmt.Fprintln(w, "Deleted Images:")
		for _, n := range p.Untagged {
			fmt.Fprintf(w, "untagged: %s\n", familiar(n))
		}
		for _, d := range p.Deleted {
			fmt.Fprintf(w, "deleted: %s\n", d)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "Total reclaimed space: %s\n", units.HumanSize(float64(p.Freed)))
}
