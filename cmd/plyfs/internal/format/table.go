package format

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"text/template/parse"
)

// The forms that --format takes besides a template.
const (
	Table = "table" // alone: the command's own columns; "table TEMPLATE": those of the template
	JSON  = "json"  // an object a line
	ID    = "{{.ID}}"
)

// ErrTemplate is the error of a template that cannot be parsed.
var ErrTemplate = errors.New("template parsing error")

type parseError struct{ error }

// Is tells that it is ErrTemplate.
func (e *parseError) Is(target error) bool { return target == ErrTemplate }

// Unwrap tells the cause.
func (e *parseError) Unwrap() error { return e.error }

// Column is a field that templates of a command know.
type Column[T any] struct {
	Name   string // {{.Name}}
	Header string // of a table
	Value  func(T) any
}

// Columns are all fields of a command's rows, T being what a row shows.
type Columns[T any] []Column[T]

// Write prints rows in a form: a Go template with docker's functions, with \t and \n for tabulator and newline, "table " and
// such a template, or "json". A form that is "table" alone or empty is the caller's to replace. ErrTemplate is a template
// that cannot be parsed; nothing is printed if one fails on a row.
func (cs Columns[T]) Write(w io.Writer, form string, rows []T) error {
	text, isTable := strings.CutPrefix(form, Table)
	if form == JSON {
		text = "{{json .}}"
	}
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.Trim(text, " "))
	t, err := template.New("").Funcs(functions).Option("missingkey=error").Parse(text)
	if err != nil {
		return &parseError{templateError(err)}
	}
	var out bytes.Buffer
	used := cs.used(t)
	for _, row := range rows {
		fields := make(map[string]any, len(used))
		for _, c := range used {
			fields[c.Name] = c.Value(row)
		}
		if err := t.Execute(&out, fields); err != nil {
			return templateError(err)
		}
		out.WriteByte('\n')
	}
	if !isTable {
		_, err := out.WriteTo(w)
		return err
	}
	return cs.table(w, t, &out)
}

// table lays out lines of cells that tabulators separate, below a line of headings.
func (cs Columns[T]) table(w io.Writer, t *template.Template, lines *bytes.Buffer) error {
	names := map[string]string{}
	for _, c := range cs {
		names[c.Name] = c.Header
	}
	buffered := bufio.NewWriterSize(w, 1<<16)
	tw := tabwriter.NewWriter(buffered, 10, 1, 3, ' ', 0)
	if err := t.Funcs(headings).Option("missingkey=default").Execute(tw, names); err != nil {
		return templateError(err)
	}
	tw.Write([]byte{'\n'}) //nolint:errcheck // Flush tells
	lines.WriteTo(tw)      //nolint:errcheck // as above
	if err := tw.Flush(); err != nil {
		return err
	}
	return buffered.Flush()
}

// used are the columns that a template may ask for: those it names, or all where it takes the row as a whole.
func (cs Columns[T]) used(t *template.Template) Columns[T] {
	text := t.Root.String()
	var used Columns[T]
	for _, c := range cs {
		if strings.Contains(text, c.Name) {
			used = append(used, c)
		}
	}
	if takesDot(t.Root) {
		return cs
	}
	return used
}

// takesDot tells whether a template uses a row other than by its fields. It may say so of one that does not.
func takesDot(list *parse.ListNode) bool {
	for _, n := range list.Nodes {
		switch n := n.(type) {
		case *parse.TextNode, *parse.CommentNode:
		case *parse.ActionNode:
			for _, c := range n.Pipe.Cmds {
				for _, arg := range c.Args {
					switch arg.Type() {
					case parse.NodeField, parse.NodeIdentifier, parse.NodeString, parse.NodeNumber, parse.NodeBool:
					default:
						return true
					}
				}
			}
		default:
			return true
		}
	}
	return false
}
