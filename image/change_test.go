package image

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// TestApplyChanges takes docker's documented examples and what its Dockerfile reference says of words.
func TestApplyChanges(t *testing.T) {
	tests := []struct {
		changes, want string // want: the config, or "!" and a part of the error
	}{
		{`ENV DEBUG=true`, `{"Env":["DEBUG=true"]}`},
		{`CMD ["/bin/sh", "-c", "echo"]`, `{"Cmd":["/bin/sh","-c","echo"]}`},
		{`CMD echo "hi"  $X`, `{"Cmd":["/bin/sh","-c","echo \"hi\"  $X"]}`},
		{`CMD ["not json]`, `{"Cmd":["/bin/sh","-c","[\"not json]"]}`},
		{`cmd []`, `{}`},
		{`ENTRYPOINT ["a"]` + "\n" + `CMD b`, `{"Entrypoint":["a"],"Cmd":["/bin/sh","-c","b"]}`},
		{`ENV MY_NAME="John Doe" MY_DOG=Rex\ The\ Dog MY_CAT=fluffy`, `{"Env":["MY_NAME=John Doe","MY_DOG=Rex The Dog","MY_CAT=fluffy"]}`},
		{"ENV abc hello\nENV abc=bye def=$abc\nENV ghi=$abc", `{"Env":["abc=bye","def=hello","ghi=bye"]}`},
		{`ENV ONE TWO= THREE=world`, `{"Env":["ONE=TWO= THREE=world"]}`},
		{"ENV a=1 \\\n  b='$a' \\\n# a comment\n\n  c=\"$a\\\"\" d=\\$a", `{"Env":["a=1","b=$a","c=\"","d=$a"]}`},
		{"ENV a=1 e=\nENV b=${a}2 c=${x:-d$a} d=${a:+y} f=${e-n} g=${e:-n} h=${x+y} i=${e:+n}", `{"Env":["a=1","e=","b=12","c=d1","d=y","f=","g=n","h=","i="]}`},
		{`ENV a=$ b=$1 c=""`, `{"Env":["a=$","b=$1","c="]}`},
		{"EXPOSE 80 443/TCP 53/udp 90-91", `{"ExposedPorts":{"443/tcp":{},"53/udp":{},"80/tcp":{},"90/tcp":{},"91/tcp":{}}}`},
		{`LABEL "com.example.vendor"="ACME Incorporated" com.example.label-with-value=foo`, `{"Labels":{"com.example.label-with-value":"foo","com.example.vendor":"ACME Incorporated"}}`},
		{`USER patrick:users`, `{"User":"patrick:users"}`},
		{`VOLUME ["/data", "/b"]` + "\n" + `VOLUME /var/log /var/db`, `{"Volumes":{"/b":{},"/data":{},"/var/db":{},"/var/log":{}}}`},
		{"WORKDIR /a\nWORKDIR b\nWORKDIR c/../d", `{"WorkingDir":"/a/b/d"}`},
		{"ENV DIRPATH=/path\nWORKDIR $DIRPATH/$DIRNAME", `{"Env":["DIRPATH=/path"],"WorkingDir":"/path"}`},
		{"STOPSIGNAL SIGKILL", `{"StopSignal":"SIGKILL"}`},
		{"STOPSIGNAL SIGRTMIN+3", `{"StopSignal":"SIGRTMIN+3"}`},
		{
			"HEALTHCHECK --interval=5m --timeout=3s --retries=2 CMD curl -f http://localhost/ || exit 1",
			`{"Healthcheck":{"Test":["CMD-SHELL","curl -f http://localhost/ || exit 1"],"Interval":300000000000,"Timeout":3000000000,"Retries":2}}`,
		},
		{`HEALTHCHECK --start-period=1s --start-interval=2s CMD ["a","b"]`, `{"Healthcheck":{"Test":["CMD","a","b"],"StartPeriod":1000000000,"StartInterval":2000000000}}`},
		{"HEALTHCHECK NONE", `{"Healthcheck":{"Test":["NONE"]}}`},
		{"ONBUILD RUN /usr/local/bin/python-build --dir /app/src", `{"OnBuild":["RUN /usr/local/bin/python-build --dir /app/src"]}`},

		{"RUN ls", "!\"RUN\" is not a valid change command"},
		{"FROM scratch", "!not a valid change command"},
		{"CMD", "!CMD requires an argument"},
		{"ENV a", "!ENV: a must have two arguments"},
		{"ENV a=b c", "!can't find ="},
		{"ENV =b", "!can't find ="},
		{"ENV a='b", "!matching single-quote"},
		{`ENV a="b`, "!matching double-quote"},
		{"ENV a=${b", "!bad substitution"},
		{"ENV a=${b:?no b}", "!no b"},
		{"ENV a=${b%c}", "!unsupported modifier"},
		{"EXPOSE 80/foo", "!invalid proto: foo"},
		{"EXPOSE 70000", "!invalid containerPort"},
		{"EXPOSE 9-8", "!invalid containerPort"},
		{"USER a b", "!exactly one argument"},
		{"STOPSIGNAL SIGNOPE", "!invalid signal"},
		{`VOLUME [""]`, "!empty string"},
		{"HEALTHCHECK CMD", "!missing command"},
		{"HEALTHCHECK NONE x", "!takes no arguments"},
		{"HEALTHCHECK --interval=x CMD y", "!no duration"},
		{"HEALTHCHECK --retries=-1 CMD y", "!--retries"},
		{"HEALTHCHECK --nope=1 CMD y", "!unknown flag"},
		{"HEALTHCHECK RUN y", "!unknown type"},
		{"ONBUILD ONBUILD RUN x", "!chaining ONBUILD"},
		{"ONBUILD FROM x", "!isn't allowed as an ONBUILD trigger"},
	}
	for _, test := range tests {
		var c runConfig
		err := applyChanges(&c, []string{test.changes})
		if want, ok := strings.CutPrefix(test.want, "!"); ok {
			if !errors.Is(err, ErrChange) || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %v, want %q", test.changes, err, want)
			}
			continue
		}
		b, jerr := json.Marshal(c)
		if err != nil || jerr != nil || sorted(t, b) != sorted(t, []byte(test.want)) {
			t.Errorf("%q:\n%s, %v, want\n%s", test.changes, b, err, test.want)
		}
	}
}

// sorted is a JSON object with its keys in order.
func sorted(t *testing.T, b []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestChangesBounded has a value grow by its own contents.
func TestChangesBounded(t *testing.T) {
	var c runConfig
	text := "ENV A=0123456789\n" + strings.Repeat("ENV A=$A$A\n", 64)
	if err := applyChanges(&c, []string{text}); !errors.Is(err, ErrChange) {
		t.Errorf("a value of 2^64 bytes: %v", err)
	}
	if err := applyChanges(&c, []string{"ENV A=" + strings.Repeat("${A:-", 20000) + strings.Repeat("}", 20000)}); !errors.Is(err, ErrChange) {
		t.Errorf("20000 nested variables: %v", err)
	}
}

func FuzzApplyChanges(f *testing.F) {
	for _, s := range []string{
		`CMD ["a", "b"]`, "ENV a=1 b=\"$a ${a:-x}\" c='d'", "ENV a b c", "EXPOSE 80-90/udp", `LABEL a="b c"`, "HEALTHCHECK --interval=1s CMD x",
		"ONBUILD RUN x", "WORKDIR ../..", "VOLUME [\"/a\"]", "ENV A=$A$A\\\n", "STOPSIGNAL SIGRTMIN+1", "# x\nUSER ${a:+b}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var c runConfig
		err := applyChanges(&c, []string{"ENV A=1 B=two", s})
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("the error is not one clean line: %q", err)
			}
			return
		}
		if _, err := json.Marshal(c); err != nil {
			t.Error(err)
		}
	})
}
