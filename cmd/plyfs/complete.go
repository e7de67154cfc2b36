package main

import (
	"context"
	_ "embed" // the scripts
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/layerstore"
)

// completeCommand is the hidden command that the shells' completion asks. Its arguments are the words of a command line
// after "plyfs", the last of them the one to be completed. It prints a line for each word that can stand there, with a tab
// and what it means, and at the end :files or :dirs where names of files can stand too.
const completeCommand = "__complete"

//go:embed completion/plyfs.bash
var bashCompletion string

//go:embed completion/plyfs.zsh
var zshCompletion string

//go:embed completion/plyfs.fish
var fishCompletion string

func completionCommand() *cli.Command {
	scripts := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the script by which a shell completes commands, options and names",
		ArgsUsage: "bash|zsh|fish",
		Description: "`make install` puts the scripts where the shells look for them. By hand:\n\n" +
			"bash: plyfs completion bash > ~/.local/share/bash-completion/completions/plyfs\n\n" +
			"zsh: plyfs completion zsh > \"${fpath[1]}/_plyfs\"\n\n" +
			"fish: plyfs completion fish > ~/.config/fish/completions/plyfs.fish",
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1); err != nil {
				return err
			}
			script, ok := scripts[c.Args().First()]
			if !ok {
				return usagef(c.Command, "no completion for %q: name bash, zsh or fish", c.Args().First())
			}
			_, err := fmt.Fprint(c.App.Writer, script)
			return err
		},
	}
}

func hiddenCompleteCommand() *cli.Command {
	return &cli.Command{
		Name:            completeCommand,
		Hidden:          true,
		SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			logrus.SetLevel(logrus.PanicLevel) // a shell has no place for it
			words := c.Args().Slice()
			if len(words) == 0 {
				words = []string{""}
			}
			q := &completer{ctx: c.Context, root: os.Getenv("PLYFS_ROOT"), level: scope{flags: c.App.Flags, commands: c.App.Commands}}
			q.complete(words)
			for _, w := range q.found {
				fmt.Fprintf(c.App.Writer, "%s\t%s\n", w[0], w[1])
			}
			if q.files != "" {
				fmt.Fprintln(c.App.Writer, q.files)
			}
			return nil
		},
	}
}

// completer finds the words that can stand at the end of a command line.
type completer struct {
	ctx   context.Context //nolint:containedctx // one call's
	root  string          // of the store
	level scope
	args  int  // arguments of the command so far
	plain bool // after "--"

	found [][2]string // words and what they mean
	files string      // ":files", ":dirs" or ""
}

func (q *completer) complete(words []string) {
	last := words[len(words)-1]
	for i := 0; i < len(words)-1; i++ {
		w := words[i]
		switch {
		case q.level.command != nil && q.level.command.SkipFlagParsing:
		case w == "--" && !q.plain:
			q.plain = true
		case isOption(w) && !q.plain:
			name, value, has := q.option(w)
			if f := q.flag(name); f != nil && takesValue(f) && !has {
				if i++; i == len(words)-1 {
					q.value(f, "", last)
					return
				}
				value = words[i]
			}
			if name == "root" {
				q.root = value
			}
		default:
			q.argument(w)
		}
	}
	q.word(last)
}

// option takes an option apart: "--name=value", or the last letter of "-qo".
func (q *completer) option(w string) (name, value string, hasValue bool) {
	name, value, hasValue = strings.Cut(strings.TrimLeft(w, "-"), "=")
	if !strings.HasPrefix(w, "--") && len(name) > 1 {
		if f := q.flag(name[:1]); f != nil && takesValue(f) {
			return name[:1], name[1:], true
		}
		name = name[len(name)-1:]
	}
	return name, value, hasValue
}

func (q *completer) argument(w string) {
	if sub := q.level.find(w); sub != nil && q.args == 0 && len(q.level.commands) > 0 {
		q.level = scope{flags: sub.Flags, commands: sub.Subcommands, command: sub}
		return
	}
	q.args++
}

func (q *completer) flag(name string) cli.Flag {
	for _, f := range q.level.flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// word completes a word that is no option's value.
func (q *completer) word(last string) {
	command := q.level.command
	switch {
	case command != nil && command.SkipFlagParsing:
		q.files = ":files"
	case strings.HasPrefix(last, "-") && !q.plain:
		if name, _, has := strings.Cut(last, "="); has {
			if f := q.flag(strings.TrimLeft(name, "-")); f != nil {
				q.value(f, name+"=", last)
			}
			return
		}
		q.flags(last)
	case len(q.level.commands) > 0:
		if q.args > 0 {
			return
		}
		for _, c := range q.level.commands {
			if !c.Hidden {
				q.offer(last, c.Name, c.Usage)
			}
		}
	case command != nil:
		q.argumentOf(command.ArgsUsage, last)
	}
}

func (q *completer) flags(last string) {
	for _, f := range append(slices.Clone(q.level.flags), cli.HelpFlag) {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		usage := ""
		if d, ok := f.(cli.DocGenerationFlag); ok {
			usage = strings.ReplaceAll(d.GetUsage(), "`", "")
		}
		for _, n := range f.Names() {
			if len(n) > 1 {
				q.offer(last, "--"+n, usage)
			} else if len(last) < 2 {
				q.offer(last, "-"+n, usage)
			}
		}
	}
}

// offer adds a word that begins like the one to be completed.
func (q *completer) offer(last, word, usage string) {
	if strings.HasPrefix(word, last) {
		q.found = append(q.found, [2]string{word, usage})
	}
}

// argumentOf completes an argument by how the help writes it: "IMAGE|NAME [MOUNTPOINT]".
func (q *completer) argumentOf(usage, last string) {
	places := strings.Fields(usage)
	if len(places) == 0 || q.args >= len(places) && !strings.HasSuffix(places[len(places)-1], "...") {
		return
	}
	place := strings.TrimSuffix(places[min(q.args, len(places)-1)], "...")
	if inner, ok := strings.CutPrefix(place, "["); ok {
		place = strings.TrimSuffix(inner, "]")
	}
	for kind := range strings.SplitSeq(place, "|") {
		q.kind(kind, "", last)
	}
}

// value completes the value of an option by what its usage calls it. prefix is what of the word stands before it.
func (q *completer) value(f cli.Flag, prefix, last string) {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return
	}
	if _, rest, ok := strings.Cut(d.GetUsage(), "`"); ok {
		kind, _, _ := strings.Cut(rest, "`")
		q.kind(kind, prefix, last)
	}
}

// kind offers what the help calls by a word in capitals.
func (q *completer) kind(kind, prefix, last string) {
	var words []string
	switch kind {
	case "IMAGE", "REPOSITORY[:TAG]":
		words = q.images()
	case "NAME":
		words = q.containers()
	case "FILE", "PATH":
		q.files = ":files"
	case "DIR", "MOUNTPOINT":
		q.files = ":dirs"
	case "LEVEL":
		words = []string{"debug", "info", "warning", "error"}
	case "FORM":
		words = []string{"table", "json"}
	case "OS/ARCH[/VARIANT]":
		words = []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/ppc64le", "linux/riscv64", "linux/s390x"}
	case "bash", "zsh", "fish":
		words = []string{kind}
	}
	for _, w := range words {
		q.offer(last, prefix+w, "")
	}
}

// store opens the store, if there is one: completing must not make it.
func (q *completer) store() *layerstore.Store {
	root, err := rootDir(q.root)
	if err != nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(root, "oci-layout")); err != nil {
		return nil
	}
	st, err := layerstore.Open(root)
	if err != nil {
		return nil
	}
	return st
}

// images are the names of all images. A name that a shell would not take for a plain word is left out: index.json may be
// others' work.
func (q *completer) images() []string {
	st := q.store()
	if st == nil {
		return nil
	}
	list, err := st.ImageList(q.ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, img := range list {
		for _, n := range img.Names {
			if name := familiar(n); strings.Trim(name, plainWord) == "" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

const plainWord = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@+"

func (q *completer) containers() []string {
	st := q.store()
	if st == nil {
		return nil
	}
	list, err := st.Containers(q.ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, c := range list {
		if strings.Trim(c.Name, plainWord) == "" {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names
}
