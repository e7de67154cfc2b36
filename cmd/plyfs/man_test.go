package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestManPages checks that there is a page of every command that names all its options, and that mandoc and groff find no
// fault with any, nor with the one that is written by hand.
func TestManPages(t *testing.T) {
	app := newApp(io.Discard, io.Discard)
	pages := manPages(app)
	for _, c := range manCommands(app.Commands, "plyfs") {
		name := strings.ReplaceAll(c.HelpName, " ", "-")
		page := pages[name+".1"]
		if c.SkipFlagParsing {
			if _, err := os.Stat("../../man/" + name + ".8"); err != nil {
				t.Error(err)
			}
		} else if !strings.Contains(page, roff(c.HelpName)) || !strings.Contains(page, roff(c.Usage)) {
			t.Errorf("%s has no page", c.HelpName)
		}
		if !strings.Contains(pages["plyfs.1"], roff(name)) {
			t.Errorf("plyfs.1 does not name %s", name)
		}
		wantFlags(t, c.HelpName, page, c.Flags)
	}
	wantFlags(t, "plyfs", pages["plyfs.1"], app.Flags)

	dir := t.TempDir()
	files := []string{"../../man/plyfs-overlay.8"}
	for name, text := range pages {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	for _, lint := range [][]string{{"mandoc", "-Tlint", "-Wwarning"}, {"groff", "-man", "-ww", "-z", "-Tutf8"}} {
		if _, err := exec.LookPath(lint[0]); err != nil {
			t.Logf("%s is not installed", lint[0])
			continue
		}
		for _, file := range files {
			out, err := exec.Command(lint[0], append(lint[1:], file)...).CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Errorf("%s %s: %v: %s", lint[0], filepath.Base(file), err, out)
			}
		}
	}
}

func wantFlags(t *testing.T, command, page string, flags []cli.Flag) {
	t.Helper()
	for _, f := range flags {
		for _, n := range f.Names() {
			if want := `\fB` + roff("--"[:min(2, len(n))]+n) + `\fR`; page != "" && !strings.Contains(page, want) {
				t.Errorf("the page of %s does not tell of %s", command, n)
			}
		}
	}
}

// TestUsageIsMan checks what the pages rely on in all commands.
func TestUsageIsMan(t *testing.T) {
	app := newApp(io.Discard, io.Discard)
	for _, c := range manCommands(app.Commands, "plyfs") {
		if c.Usage == "" {
			t.Errorf("%s has no usage", c.HelpName)
		}
		for _, f := range c.Flags {
			if d, ok := f.(cli.DocGenerationFlag); !ok || d.GetUsage() == "" || strings.Count(d.GetUsage(), "`")%2 != 0 {
				t.Errorf("%s: option %s has no usage", c.HelpName, f.Names()[0])
			}
		}
	}
}
