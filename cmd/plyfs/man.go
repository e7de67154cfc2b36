package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// manCommand writes the manual's pages of section 1 into a directory: one of each command, made from its definition, and one of
// plyfs itself. The page of plyfs overlay is written by hand: man/plyfs-overlay.8.
func manCommand() *cli.Command {
	return &cli.Command{
		Name:      "generate-man",
		Usage:     "write the manual's pages into a directory",
		ArgsUsage: "DIR",
		Hidden:    true,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1); err != nil {
				return err
			}
			for name, text := range manPages(c.App) {
				if err := os.WriteFile(filepath.Join(c.Args().First(), name), []byte(text), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// manPages are the pages by the names of their files.
func manPages(app *cli.App) map[string]string {
	pages := map[string]string{"plyfs.1": mainPage(app)}
	for _, c := range manCommands(app.Commands, "plyfs") {
		if !c.SkipFlagParsing {
			pages[strings.ReplaceAll(c.HelpName, " ", "-")+".1"] = commandPage(app, c)
		}
	}
	return pages
}

// manCommands lists all commands that are shown, with their full names.
func manCommands(commands []*cli.Command, above string) []*cli.Command {
	var all []*cli.Command
	for _, c := range commands {
		if c.Hidden || c.Name == "help" {
			continue
		}
		named := *c
		named.HelpName = above + " " + c.Name
		all = append(append(all, &named), manCommands(c.Subcommands, named.HelpName)...)
	}
	return all
}

// page is a manual page in the making, in the macros of man(7).
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// roff escapes a text.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", "").Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

// text writes lines of prose, an empty one beginning a paragraph; what stands between backquotes is bold.
func (p *page) text(s string) {
	for line := range strings.SplitSeq(s, "\n") {
		if line == "" {
			p.line(".PP")
			continue
		}
		parts := strings.Split(line, "`")
		for i, part := range parts {
			if parts[i] = roff(part); i%2 == 1 {
				parts[i] = `\fB` + parts[i] + `\fR`
			}
		}
		p.line("%s", strings.Join(parts, ""))
	}
}

func (p *page) head(app *cli.App, name, usage string) {
	p.line(`.TH "%s" 1 "%s" "plyfs %s" "plyfs"`, strings.ToUpper(roff(name)), manDate(), roff(app.Version))
	p.line(".SH NAME\n%s \\- %s", roff(name), roff(usage))
}

// manDate is the day of the commit that plyfs was built from or, where that is not known, today.
func manDate() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return t.Format(time.DateOnly)
			}
		}
	}
	return time.Now().Format(time.DateOnly)
}

// options writes what options there are.
func (p *page) options(title string, flags []cli.Flag) {
	if len(flags) == 0 {
		return
	}
	p.line(".SH %s", title)
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if v, visible := f.(cli.VisibleFlag); !ok || visible && !v.IsVisible() {
			continue
		}
		usage, placeholder := d.GetUsage(), "VALUE"
		if _, rest, ok := strings.Cut(usage, "`"); ok {
			placeholder, _, _ = strings.Cut(rest, "`")
		}
		var names []string
		for _, n := range f.Names() {
			name := `\fB` + roff("--"[:min(2, len(n))]+n) + `\fR`
			if d.TakesValue() {
				name += ` \fI` + roff(placeholder) + `\fR`
			}
			names = append(names, name)
		}
		p.line(".TP\n%s", strings.Join(names, ", "))
		p.line("%s", roff(usage+flagDefault(d)))
		if vars := d.GetEnvVars(); len(vars) > 0 {
			p.line("The variable \\fB%s\\fR sets it too.", roff(strings.Join(vars, ", ")))
		}
	}
}

func flagDefault(d cli.DocGenerationFlag) string {
	if text := d.GetDefaultText(); text != "" && (d.TakesValue() || text != "false") {
		return " (default: " + strings.Trim(text, `"`) + ")"
	}
	return ""
}

func mainPage(app *cli.App) string {
	var p page
	p.head(app, "plyfs", app.Usage)
	p.line(".SH SYNOPSIS\n.B plyfs\n%s", roff(strings.TrimPrefix(app.UsageText, "plyfs ")))
	p.line(".SH DESCRIPTION")
	p.text("plyfs mounts a container image as a writable root filesystem: in user space, with no daemon and no unpacking. It pulls\n" +
		"images from registries, mounts them, keeps what programs change in them, and saves the images again.")
	p.options("OPTIONS", app.Flags)
	p.line(".SH COMMANDS")
	for _, c := range manCommands(app.Commands, "plyfs") {
		section := 1
		if c.SkipFlagParsing {
			section = 8
		}
		p.line(".TP\n\\fB%s\\fR(%d)\n%s", roff(strings.ReplaceAll(c.HelpName, " ", "-")), section, roff(c.Usage))
	}
	p.exitStatus()
	p.line(".SH FILES\n.TP\n\\fI/var/lib/plyfs\\fR\nthe store of root")
	p.line(".TP\n\\fI~/.local/share/plyfs\\fR\nthe store of a user, or \\fI$XDG_DATA_HOME/plyfs\\fR")
	p.line(".SH SEE ALSO\n.BR plyfs\\-overlay (8),\n.BR mount (8)")
	return p.String()
}

func (p *page) exitStatus() {
	p.line(".SH EXIT STATUS")
	for _, s := range [][2]string{
		{"0", "done"},
		{"1", "failed; each thing that failed is said in one line on standard error"},
		{"2", "the command line is not understood"},
		{"130", "interrupted"},
	} {
		p.line(".TP\n.B %s\n%s", s[0], s[1])
	}
}

func commandPage(app *cli.App, c *cli.Command) string {
	var p page
	p.head(app, strings.ReplaceAll(c.HelpName, " ", "-"), c.Usage)
	p.line(".SH SYNOPSIS\n.B %s", roff(c.HelpName))
	arguments := c.ArgsUsage
	if len(c.Subcommands) > 0 {
		arguments = "COMMAND"
	}
	if len(c.Flags) > 0 {
		p.line("[\\fIOPTIONS\\fR]")
	}
	if arguments != "" {
		p.line("\\fI%s\\fR", roff(arguments))
	}
	p.line(".SH DESCRIPTION")
	p.text(strings.ToUpper(c.Usage[:1]) + c.Usage[1:] + ".")
	if c.Description != "" {
		p.line(".PP")
		p.text(c.Description)
	}
	if len(c.Aliases) > 0 {
		p.line(".PP\nThe command has the other name \\fB%s\\fR.", roff(strings.Join(c.Aliases, ", ")))
	}
	if len(c.Subcommands) > 0 {
		p.line(".SH COMMANDS")
		for _, sub := range manCommands(c.Subcommands, c.HelpName) {
			p.line(".TP\n\\fB%s\\fR(1)\n%s", roff(strings.ReplaceAll(sub.HelpName, " ", "-")), roff(sub.Usage))
		}
	}
	p.options("OPTIONS", c.Flags)
	p.line(".PP\nOptions of all commands and the exit status are told in\n.BR plyfs (1).")
	p.line(".SH SEE ALSO\n.BR plyfs (1)")
	return p.String()
}
