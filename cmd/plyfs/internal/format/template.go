package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"
)

// functions are those that docker gives its templates, besides the ones of text/template.
// https://docs.docker.com/engine/cli/formatting/
var functions = template.FuncMap{
	"json":     toJSON,
	"join":     join,
	"split":    strings.Split,
	"lower":    strings.ToLower,
	"upper":    strings.ToUpper,
	"title":    title,
	"pad":      pad,
	"truncate": truncate,
}

// headings take the place of functions in the line of headings, where each value is the heading itself.
var headings = template.FuncMap{
	"json":     same,
	"join":     func(s, _ string) string { return s },
	"split":    func(s, _ string) string { return s },
	"lower":    same,
	"upper":    same,
	"title":    same,
	"truncate": func(s string, _ int) string { return s },
}

func same(s string) string { return s }

func compile(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(functions).Parse(text)
	if err != nil {
		return nil, templateError(err)
	}
	return t, nil
}

// templateError says what docker says, without the name that the template does not have.
func templateError(err error) error {
	return fmt.Errorf("template parsing error: %w", err)
}

// toJSON writes a value as JSON in one line, with < > & as they are.
func toJSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// join writes the elements of a list, or the values of a map in order of their text, with sep between them.
func join(list any, sep string) (string, error) {
	if list == nil {
		return "", nil
	}
	v := reflect.ValueOf(list)
	var texts []string
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			texts = append(texts, fmt.Sprint(v.Index(i).Interface()))
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			texts = append(texts, fmt.Sprint(v.MapIndex(k).Interface()))
		}
		slices.Sort(texts)
	default:
		return "", fmt.Errorf("join takes a list, not a %T", list)
	}
	return strings.Join(texts, sep), nil
}

// title makes the first letter of each word large.
func title(s string) string {
	last := ' '
	return strings.Map(func(r rune) rune {
		begins := !unicode.IsLetter(last) && !unicode.IsDigit(last) && last != '_' && last != '\''
		last = r
		if begins {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

// maxPad bounds what a template can make pad write, bytes.
const maxPad = 1 << 16

// pad puts so many blanks before and after a text that is not empty.
func pad(s string, before, after int) (string, error) {
	if s == "" {
		return "", nil
	}
	if before < 0 || after < 0 || before > maxPad || after > maxPad {
		return "", fmt.Errorf("pad takes 0 to %d blanks", maxPad)
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after), nil
}

// truncate keeps the first n bytes of a text.
func truncate(s string, n int) (string, error) {
	if n < 0 {
		return "", fmt.Errorf("truncate takes no length of %d", n)
	}
	return s[:min(n, len(s))], nil
}

// Ellipsis shortens a text to most characters, the last of which is then an ellipsis.
func Ellipsis(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// Inspect prints elements as `docker inspect` does: as an indented JSON list for form "", a JSON list in one line for
// "json", else each through the template and a newline. Fields are those of the JSON or those of the Go type. An element
// that the template cannot be applied to is left out and told as an error, after the others. ErrTemplate is a template that
// is none.
func Inspect(w io.Writer, form string, elements []any) error {
	if elements == nil {
		elements = []any{}
	}
	switch form {
	case "":
		return writeJSON(w, elements, "    ")
	case "json":
		return writeJSON(w, elements, "")
	}
	t, err := compile(form)
	if err != nil {
		return &parseError{err}
	}
	var out bytes.Buffer
	var failed error
	for _, e := range elements {
		text, err := inspectOne(t, e)
		if err != nil {
			failed = err
			continue
		}
		out.Write(text)
		out.WriteByte('\n')
	}
	if out.Len() == 0 {
		out.WriteByte('\n') // as docker's does
	}
	if _, err := out.WriteTo(w); err != nil {
		return err
	}
	return failed
}

func writeJSON(w io.Writer, elements []any, indent string) error {
	var b []byte
	var err error
	if indent == "" {
		b, err = json.Marshal(elements)
	} else {
		b, err = json.MarshalIndent(elements, "", indent)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// inspectOne applies a template to the element, or if that has not what it asks for, to the element's JSON.
func inspectOne(t *template.Template, e any) ([]byte, error) {
	var b bytes.Buffer
	if t.Execute(&b, e) == nil {
		return b.Bytes(), nil
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	b.Reset()
	strict, err := t.Clone()
	if err != nil {
		return nil, err
	}
	if err := strict.Option("missingkey=error").Execute(&b, v); err != nil {
		return nil, templateError(err)
	}
	return b.Bytes(), nil
}
