package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestSortArgs(t *testing.T) {
	tests := []struct {
		in, want string // want: the sorted line, or "!" and what the usage error says
	}{
		{"", ""},
		{"--root r images", "--root r images"},
		{"--root=r images -q", "--root=r images --quiet"},
		{"pull image", "pull -- image"},
		{"pull image --platform p -q", "pull --platform p --quiet -- image"},
		{"pull --platform=p image", "pull --platform=p -- image"},
		{"pull --tls-verify=false image", "pull --tls-verify=false -- image"},
		{"pull --tls-verify image", "pull --tls-verify -- image"},
		{"image pull image -q", "image pull --quiet -- image"},
		{"image rm a b", "image rm -- a b"},
		{"save -ofile a", "save --output file -- a"},
		{"save a -o=file", "save --output=file -- a"},
		{"save a -o file b", "save --output file -- a b"},
		{"save -o -", "save --output -"},
		{"import f -c a --change b", "import --change a --change b -- f"},
		{"save -- -o a", "save -- -o a"},
		{"rm -", "rm -- -"},
		{"mount a -h b", "mount --help"},
		{"--help pull", "--help pull"},
		{"-v", "-v"},
		{"nosuch -x --y", "nosuch -x --y"},
		{"image nosuch -x", "image nosuch -x"},
		{"--nosuch pull", "!unknown option --nosuch; see `plyfs --help`"},
		{"pull --root r", "!unknown option --root; see `plyfs pull --help`"},
		{"pull a -qx", "!unknown option -x; see `plyfs pull --help`"},
		{"pull a --platform", "!option --platform needs a value; see `plyfs pull --help`"},
		{"image ls -z", "!unknown option -z; see `plyfs image ls --help`"},
		{"save -o", "!option -o needs a value; see `plyfs save --help`"},
		{"--root", "!option --root needs a value; see `plyfs --help`"},
	}
	for _, test := range tests {
		got, err := sortArgs(newApp(io.Discard, io.Discard), append([]string{"plyfs"}, strings.Fields(test.in)...))
		if want, ok := strings.CutPrefix(test.want, "!"); ok {
			var usage *usageError
			if !errors.As(err, &usage) || err.Error() != want {
				t.Errorf("%q: error %v, want %s", test.in, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.in, err)
			continue
		}
		if want := append([]string{"plyfs"}, strings.Fields(test.want)...); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", test.in, got, want)
		}
	}
}

// TestSortArgsKeepsTheirs checks that the caller's arguments are not written to.
func TestSortArgsKeepsTheirs(t *testing.T) {
	args := []string{"plyfs", "pull", "image", "-q"}
	before := slices.Clone(args)
	if _, err := sortArgs(newApp(io.Discard, io.Discard), args); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(args, before) {
		t.Errorf("became %q", args)
	}
}
