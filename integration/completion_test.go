package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// completions are command lines and what a shell must offer, or not, for their last words.
var completions = []struct {
	line       string
	want, wont []string
}{
	{"plyfs ", []string{"pull", "image", "mount"}, []string{"serve-mount", "__complete", "generate-man", "--root"}},
	{"plyfs im", []string{"image", "images", "import"}, []string{"pull"}},
	{"plyfs image ", []string{"tree", "ls"}, []string{"mount"}},
	{"plyfs image tr", []string{"tree"}, []string{"ls"}},
	{"plyfs --log-level ", []string{"debug", "warning"}, []string{"pull"}},
	{"plyfs pull --", []string{"--platform", "--quiet", "--help"}, []string{"--root"}},
	{"plyfs pull --platform ", []string{"linux/arm64"}, nil},
	{"plyfs rmi ", []string{"team/app:1.0", "team/app:2.0", "localhost:5000/x:1"}, []string{"box"}},
	{"plyfs rmi team/app:1.0 team/app:2", []string{"team/app:2.0"}, []string{"team/app:1.0"}},
	{"plyfs rmi localhost:5000/x", []string{"localhost:5000/x:1"}, []string{"team/app:1.0"}},
	{"plyfs mount b", []string{"box"}, nil},
	{"plyfs mount --name n ", []string{"box", "team/app:1.0"}, nil},
	{"plyfs rm ", []string{"box"}, []string{"team/app:1.0"}},
	{"plyfs export -o ", []string{"afile", "adir/"}, []string{"box"}},
	{"plyfs export --output=a", []string{"afile"}, []string{"box"}},
	{"plyfs import ", []string{"afile"}, []string{"box"}},
	{"plyfs mount box ", []string{"adir/"}, []string{"afile"}},
	{"plyfs version ", nil, []string{"box", "afile"}},
}

// completionStore makes a store with images and a container, and a directory with a file and a directory in it.
func completionStore(t *testing.T) (env []string, dir string) {
	t.Helper()
	needTools(t, "tar")
	s, dir := newStore(t), t.TempDir()
	tool(t, "sh", "-c", "cd "+dir+"; mkdir adir; touch afile; tar -cf "+dir+"/root.tar afile")
	for _, name := range []string{"team/app:1.0", "team/app:2.0", "localhost:5000/x:1"} {
		s.ok("import", dir+"/root.tar", name)
	}
	needMount(t)
	s.ok("mount", "--name", "box", "team/app:1.0")
	s.ok("umount", "box")
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if err := os.WriteFile(filepath.Join(dir, "completion."+shell), []byte(s.ok("completion", shell)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Join(dir, "adir")
	return append(os.Environ(), "PLYFS_ROOT="+s.root, "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home,
		"PATH="+filepath.Dir(plyfsBinary())+":"+os.Getenv("PATH")), dir
}

// TestCompletion has each shell complete command lines by the script that plyfs prints for it.
func TestCompletion(t *testing.T) {
	env, dir := completionStore(t)
	for shell, ask := range map[string]func(line string) (args []string, fix func(offered, line string) string){
		"bash": bashComplete, "zsh": zshComplete, "fish": fishComplete,
	} {
		t.Run(shell, func(t *testing.T) {
			needTools(t, shell)
			for _, test := range completions {
				args, fix := ask(test.line)
				cmd := exec.Command(shell, args...)
				cmd.Env, cmd.Dir = env, dir
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%q: %v: %s", test.line, err, out)
				}
				var offered []string
				for line := range strings.Lines(string(out)) {
					word, _, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
					offered = append(offered, fix(word, test.line))
				}
				for _, w := range test.want {
					if !slices.Contains(offered, w) && !slices.Contains(offered, strings.TrimSuffix(w, "/")) {
						t.Errorf("%q: %q is not offered: %q", test.line, w, offered)
					}
				}
				for _, w := range test.wont {
					if slices.Contains(offered, w) {
						t.Errorf("%q: %q is offered: %q", test.line, w, offered)
					}
				}
			}
		})
	}
}

// bashComplete calls the function as readline does, which takes colons and equals signs for ends of words.
func bashComplete(line string) ([]string, func(offered, line string) string) {
	script := `source completion.bash; COMP_LINE=$1; COMP_POINT=${#1}; _plyfs; printf '%s\n' "${COMPREPLY[@]}"`
	return []string{"--norc", "-c", script, "bash", line}, func(offered, line string) string {
		last := line[strings.LastIndex(line, " ")+1:]
		if strings.HasPrefix(last, "-") {
			return offered
		}
		return last[:strings.LastIndexAny(last, ":=")+1] + offered
	}
}

// zshComplete calls the function in a zsh whose functions for showing what was found print it.
func zshComplete(line string) ([]string, func(offered, line string) string) {
	script := `compdef() { }
_describe() { local w; for w in "${(@P)2}"; do w=${w//\\:/$'\0'}; w=${w%%:*}; print -r -- "${w//$'\0'/:}"; done }
_files() { if [[ $1 == -/ ]]; then print -rl -- *(N/); else print -rl -- *(N); fi }
compset() { }
source ./completion.zsh
words=("${(@s: :)1}"); CURRENT=$#words
_plyfs`
	return []string{"-f", "-c", script, "zsh", line}, plainOffer
}

func fishComplete(line string) ([]string, func(offered, line string) string) {
	return []string{"--no-config", "-c", "source completion.fish; complete -C (string unescape -- '" + line + "')"}, func(offered, line string) string {
		last := line[strings.LastIndex(line, " ")+1:]
		if option, _, ok := strings.Cut(last, "="); ok && strings.HasPrefix(offered, option) {
			return strings.TrimPrefix(offered, option+"=")
		}
		return offered
	}
}

func plainOffer(offered, _ string) string { return offered }

// TestCompletionMakesNothing checks that completing makes no store.
func TestCompletionMakesNothing(t *testing.T) {
	root := filepath.Join(t.TempDir(), "none")
	if r := runPlyfs(t, root, "__complete", "rmi", ""); r.code != 0 || r.stdout != "" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("a store was made")
	}
}
