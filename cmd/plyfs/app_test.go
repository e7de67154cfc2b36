package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/image"
)

func TestReport(t *testing.T) {
	tests := []struct {
		err    error
		status int
		want   string
	}{
		{nil, 0, ""},
		{errors.New("what: cause"), 1, "plyfs: what: cause\n"},
		{errors.Join(errors.New("one"), errors.New("two")), 1, "plyfs: one; two\n"},
		{&usageError{"wrong"}, 2, "plyfs: wrong\n"},
		{fmt.Errorf("pulling: %w", context.Canceled), 130, "plyfs: interrupted\n"},
		{eachError{errors.New("one"), errors.New("two\n")}, 1, "plyfs: one\nplyfs: two\n"},
	}
	for _, test := range tests {
		var stderr bytes.Buffer
		if status := report(&stderr, test.err); status != test.status || stderr.String() != test.want {
			t.Errorf("%v: status %d, %q, want %d, %q", test.err, status, stderr.String(), test.status, test.want)
		}
	}
}

func TestForEach(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var seen []string
	err := forEach(ctx, []string{"a", "b", "c", "d"}, func(arg string) error {
		seen = append(seen, arg)
		if arg == "c" {
			cancel()
		}
		if arg == "a" {
			return errors.New("no a")
		}
		return nil
	})
	if got := strings.Join(seen, ""); got != "abc" {
		t.Errorf("ran on %s, want abc: on after a failure, but not after an interruption", got)
	}
	if err == nil || err.Error() != "no a" {
		t.Errorf("error %v", err)
	}
}

func TestRootDir(t *testing.T) {
	t.Chdir(t.TempDir())
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := rootDir("below"); err != nil || got != filepath.Join(cwd, "below") {
		t.Errorf("relative root: %s, %v", got, err)
	}
	if got, err := rootDir(""); os.Geteuid() == 0 && (err != nil || got != "/var/lib/plyfs") {
		t.Errorf("root's root: %s, %v", got, err)
	}
}

func TestPrintImages(t *testing.T) {
	now := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	id, manifest := digest.FromString("config"), digest.FromString("manifest")
	list := []image.Listing{
		{Repository: "debian", Tag: "12", Digest: manifest.String(), ID: id, Created: now.Add(-72 * time.Hour), Size: 123456789},
		{Repository: image.None, Tag: image.None, Digest: image.None, ID: id},
	}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{nil, []string{
			"REPOSITORY TAG IMAGE ID CREATED SIZE",
			"debian 12 " + id.Encoded()[:12] + " 3 days ago 123MB",
			"<none> <none> " + id.Encoded()[:12] + " N/A 0B",
		}},
		{[]string{"--digests", "--no-trunc"}, []string{
			"REPOSITORY TAG DIGEST IMAGE ID CREATED SIZE",
			"debian 12 " + manifest.String() + " " + id.String() + " 3 days ago 123MB",
			"<none> <none> <none> " + id.String() + " N/A 0B",
		}},
		{[]string{"--quiet"}, []string{id.Encoded()[:12], id.Encoded()[:12]}},
		{[]string{"--format", "table"}, []string{
			"REPOSITORY TAG IMAGE ID CREATED SIZE",
			"debian 12 " + id.Encoded()[:12] + " 3 days ago 123MB",
			"<none> <none> " + id.Encoded()[:12] + " N/A 0B",
		}},
		{[]string{"--format", "{{.Repository}}:{{.Tag}}@{{.Digest}} {{.SharedSize}}"}, []string{"debian:12@" + manifest.String() + " N/A", "<none>:<none>@<none> N/A"}},
	} {
		var out bytes.Buffer
		command := imagesCommand("images")
		command.Action = func(c *cli.Context) error {
			return imageColumns(now, c.Bool("no-trunc")).Write(&out, imagesForm(c), list)
		}
		app := &cli.App{Commands: []*cli.Command{command}}
		if err := app.Run(append([]string{"plyfs", "images"}, test.args...)); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			got = append(got, strings.Join(strings.Fields(line), " "))
		}
		if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
			t.Errorf("%v:\n%s\nwant\n%s", test.args, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "archive")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("failed midway")
	err := writeFile("save", path, func(w io.Writer) error {
		_, err := io.WriteString(w, "half")
		return errors.Join(failure, err)
	})
	if !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	checkDir(t, dir, "archive", "before")
	if err := writeFile("save", path, func(w io.Writer) error { _, err := io.WriteString(w, "after"); return err }); err != nil {
		t.Error(err)
	}
	checkDir(t, dir, "archive", "after")
}

// checkDir checks that a directory holds one file and what is in it.
func checkDir(t *testing.T, dir, name, want string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != want {
		t.Errorf("the file holds %q, %v, want %q", data, err, want)
	}
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	progress, finish := newProgress(&out, false)
	d := digest.FromString("layer")
	progress.Message("hello")
	layer := progress.Layer(d, 2_000_000)
	layer.Start(0)
	layer.Add(1_000_000)
	layer.Status("Retrying")
	layer.Status("Retrying")
	layer.Start(1_000_000)
	layer.Add(1_000_000)
	layer.Status("Pull complete")
	layer.Done(nil)
	progress.Layer(d, 1).Done(errors.New("broken"))
	finish()
	id := d.Encoded()[:12]
	want := strings.ReplaceAll("hello\nID: Downloading 2MB\nID: Retrying\nID: Downloading 2MB, 1MB are there already\nID: Pull complete\nID: Failed\n", "ID", id)
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	if progress, _ := newProgress(&out, true); progress != nil {
		t.Error("--quiet shows progress")
	}
}
