package format

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

type animal struct {
	id, name string
	legs     int
	foods    []string
}

var animals = Columns[animal]{
	{"ID", "ANIMAL ID", func(a animal) any { return a.id }},
	{"Name", "NAME", func(a animal) any { return a.name }},
	{"Legs", "LEGS", func(a animal) any { return a.legs }},
	{"Foods", "FOODS", func(a animal) any { return a.foods }},
}

var zoo = []animal{{"1a", "cow", 4, []string{"grass", "hay"}}, {"2b", "hen & chick", 2, nil}}

func TestWrite(t *testing.T) {
	for _, c := range []struct{ form, want string }{
		{"{{.ID}}", "1a\n2b\n"},
		{`{{.ID}}\t{{.Legs}}\n`, "1a\t4\n\n2b\t2\n\n"},
		{`table {{.ID}}\t{{.Name}}`, "ANIMAL ID   NAME\n1a          cow\n2b          hen & chick\n"},
		{"table {{.ID}}\t{{upper .Name}}", "ANIMAL ID   NAME\n1a          COW\n2b          HEN & CHICK\n"},
		{`table {{json .Name}}`, "NAME\n\"cow\"\n\"hen & chick\"\n"},
		{"json", `{"Foods":["grass","hay"],"ID":"1a","Legs":4,"Name":"cow"}` + "\n" + `{"Foods":null,"ID":"2b","Legs":2,"Name":"hen & chick"}` + "\n"},
		{"{{join .Foods \"/\"}}", "grass/hay\n\n"},
		{"{{title .Name}} {{pad .ID 1 2}}.", "Cow  1a  .\nHen & Chick  2b  .\n"},
		{"{{truncate .Name 2}}{{truncate .ID 9}}", "co1a\nhe2b\n"},
		{"{{if eq .Legs 4}}{{.Name}}{{else}}{{lower \"NO\"}}{{end}}", "cow\nno\n"},
		{"{{range .Foods}}{{println .}}{{end}}", "grass\nhay\n\n\n"},
		{"{{index (split .Name \" \") 0}}", "cow\nhen\n"},
		{"{{with $x := .}}{{$x.Name}}{{end}}", "cow\nhen & chick\n"},
		{"plain", "plain\nplain\n"},
	} {
		var b bytes.Buffer
		if err := animals.Write(&b, c.form, zoo); err != nil {
			t.Errorf("%q: %v", c.form, err)
		}
		if got := b.String(); got != c.want {
			t.Errorf("%q printed\n%q, want\n%q", c.form, got, c.want)
		}
	}
}

func TestWriteNothing(t *testing.T) {
	var b bytes.Buffer
	if err := animals.Write(&b, `table {{.ID}}\t{{.Legs}}`, nil); err != nil || b.String() != "ANIMAL ID   LEGS\n" {
		t.Errorf("%q %v", b.String(), err)
	}
	b.Reset()
	if err := animals.Write(&b, JSON, nil); err != nil || b.String() != "" {
		t.Errorf("%q %v", b.String(), err)
	}
}

func TestWriteErrors(t *testing.T) {
	for _, form := range []string{"{{", "{{nosuch .ID}}", "{{.Nosuch}}", "{{pad .ID 1 99999999}}", "{{truncate .ID -1}}", "{{join .Legs \",\"}}", "table {{.Nosuch}}"} {
		var b bytes.Buffer
		err := animals.Write(&b, form, zoo)
		if err == nil || !strings.HasPrefix(err.Error(), "template parsing error: ") || b.Len() != 0 {
			t.Errorf("%q printed %q, %v", form, b.String(), err)
		}
		if parses := strings.Contains(form, "."); errors.Is(err, ErrTemplate) == (parses && form != "{{nosuch .ID}}") {
			t.Errorf("%q: %v, a parse error: %v", form, err, !parses)
		}
	}
}

type inspected struct {
	ID     string `json:"Id"`
	Config struct{ Env []string }
	Size   int64
}

func TestInspect(t *testing.T) {
	one := &inspected{ID: "x", Size: 12345678}
	one.Config.Env = []string{"A=<1>", "B=2"}
	for _, c := range []struct {
		form, want string
		elements   []any
	}{
		{"", "[]\n", nil},
		{"json", "[]\n", nil},
		{"{{.Id}}", "\n", nil},
		{"{{.Id}} {{.ID}}", "\n", []any{one}}, // no such field in either
		{"{{.Id}}", "x\n", []any{one}},
		{"{{.ID}}", "x\nx\n", []any{one, one}},
		{"{{.Size}}", "12345678\n", []any{one}},
		{"{{.Id}} {{.Size}}", "x 12345678\n", []any{one}},
		{"{{json .Config.Env}}", `["A=<1>","B=2"]` + "\n", []any{one}},
		{"{{range .Config.Env}}{{println .}}{{end}}", "A=<1>\nB=2\n\n", []any{one}},
		{"json", `[{"Id":"x","Config":{"Env":["A=\u003c1\u003e","B=2"]},"Size":12345678}]` + "\n", []any{one}},
	} {
		var b bytes.Buffer
		err := Inspect(&b, c.form, c.elements)
		if got := b.String(); got != c.want || (err != nil) != (c.form == "{{.Id}} {{.ID}}") {
			t.Errorf("%q printed\n%q, %v; want\n%q", c.form, got, err, c.want)
		}
	}
	var b bytes.Buffer
	if err := Inspect(&b, "", []any{one}); err != nil || !strings.HasPrefix(b.String(), "[\n    {\n        \"Id\": \"x\",\n") {
		t.Errorf("%q %v", b.String(), err)
	}
	if err := Inspect(&b, "{{", nil); !errors.Is(err, ErrTemplate) {
		t.Error(err)
	}
}
