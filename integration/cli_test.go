package integration

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/plyfs/plyfs/integration/tinyimage"
)

// TestCLI runs the scripts of testdata/cli: what commands print where, and how they end. Each has a store of its own in
// $PLYFS_ROOT, a registry at $REGISTRY and there the images $SMALL, with a layer that replaces and deletes files of the
// one below, and $OTHER, which shares its lower layer with it.
func TestCLI(t *testing.T) {
	registry := startRegistry(t)
	small := smallImage(t, registry)
	other := registry + "/other:2"
	pushImage(t, other, smallLower, []tinyimage.Entry{{Path: "etc/other", Data: "other\n"}})
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/cli",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			needMount(t)
			root := filepath.Join(env.WorkDir, "store")
			env.Defer(func() {
				if err := cleanUp(root); err != nil {
					t.Error(err)
				}
			})
			env.Setenv("PLYFS_ROOT", root)
			env.Setenv("PATH", filepath.Dir(plyfsBinary())+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("REGISTRY", registry)
			env.Setenv("SMALL", small)
			env.Setenv("OTHER", other)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"fails":  scriptFails,
			"fails1": scriptFails1,
			"set":    scriptSet,
		},
	})
}

// scriptFails is `fails STATUS PROGRAM [ARGUMENT…]`: the program must end with that status, print nothing to standard
// output and one line to standard error, progress of a pull apart.
func scriptFails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails STATUS PROGRAM [ARGUMENT…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("exit status 0, want %d (%v)", want, err)
	}
	if exit.ExitCode() != want {
		ts.Fatalf("exit status %d, want %d", exit.ExitCode(), want)
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("a failure printed %q to standard output", out)
	}
	if err := oneError(ts.ReadFile("stderr")); err != nil {
		ts.Fatalf("%v", err)
	}
}

// scriptFails1 is `fails1 PROGRAM [ARGUMENT…]`: the program must end with status 1 and one line on standard error, whatever it
// prints to standard output.
func scriptFails1(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: fails1 PROGRAM [ARGUMENT…]")
	}
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		ts.Fatalf("%v, want exit status 1", err)
	}
	ts.Check(oneError(ts.ReadFile("stderr")))
}

// scriptSet is `set VARIABLE`: it takes the last program's standard output without its last newline.
func scriptSet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: set VARIABLE")
	}
	out := ts.ReadFile("stdout")
	if len(out) > 0 {
		out = out[:len(out)-1]
	}
	ts.Setenv(args[0], out)
}

// oneError checks that standard error has one error, in the last line.
func oneError(stderr string) error {
	lines := slices.Collect(strings.Lines(stderr))
	for i, line := range lines {
		if isError := strings.HasPrefix(line, "plyfs: "); isError != (i == len(lines)-1) {
			return fmt.Errorf("standard error must have one line that begins with \"plyfs: \", the last: %q", stderr)
		}
	}
	if len(lines) == 0 {
		return errors.New("a failure printed nothing to standard error")
	}
	return nil
}
