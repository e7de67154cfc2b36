package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/urfave/cli/v2"
)

// templateFlag is --format of commands that print what a Go template makes of it.
func templateFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "print what a Go template makes of it, or `json`", DefaultText: "a table"}
}

// templateFuncs are those of docker's templates.
var templateFuncs = template.FuncMap{
	"json": func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
	"join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper, "split": strings.Split,
	"println": fmt.Sprintln,
	"pad": func(s string, before, after int) string {
		return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
	},
	"truncate": func(s string, n int) string { return s[:min(max(n, 0), len(s))] },
}

// printTemplate prints a value as json or by a template, and a newline.
func printTemplate(c *cli.Context, format string, v any) error {
	if format == "json" {
		format = "{{json .}}"
	}
	t, err := template.New("format").Funcs(templateFuncs).Parse(format)
	if err != nil {
		return usagef(c.Command, "--format: %v", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return usagef(c.Command, "--format: %v", err)
	}
	_, err = fmt.Fprintln(c.App.Writer, b.String())
	return err
}

// printRows prints each row by a template: "table TEMPLATE" under the heads, lined up, json as an object a line.
func printRows[T any](c *cli.Context, format string, head T, rows []T) error {
	text, table := strings.CutPrefix(format, "table ")
	if !table {
		for _, r := range rows {
			if err := printTemplate(c, text, r); err != nil {
				return err
			}
		}
		return nil
	}
	t, err := template.New("format").Funcs(templateFuncs).Parse(strings.ReplaceAll(text, `\t`, "\t"))
	if err != nil {
		return usagef(c.Command, "--format: %v", err)
	}
	w := newTable(c.App.Writer)
	for _, r := range append([]T{head}, rows...) {
		if err := t.Execute(w, r); err != nil {
			return usagef(c.Command, "--format: %v", err)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// newTable lines columns up as docker does.
func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 10, 1, 3, ' ', 0) }
