package integration

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBrowse presses keys on a terminal once the screen shows that they are awaited: a layer opens, it gets narrower, and
// Ctrl-C gives the terminal back.
func TestBrowse(t *testing.T) {
	needTools(t, "script", "stty", "tar")
	s, dir := newStore(t), t.TempDir()
	tool(t, "sh", "-c", "cd "+dir+"; mkdir -p root/etc; echo x > root/etc/file; tar -C root -cf root.tar .")
	s.ok("import", filepath.Join(dir, "root.tar"), "img")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "script", "-qec", "tty >tty; stty cols 90 rows 12; stty -a >before; "+plyfsBinary()+" image tree img; echo status $?; stty -a >after", "/dev/null")
	cmd.Env, cmd.Dir = append(os.Environ(), "PLYFS_ROOT="+s.root, "TERM=xterm"), dir
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r, seen := bufio.NewReader(out), ""
	await := func(text string) {
		t.Helper()
		for !strings.Contains(seen, text) {
			b, err := r.ReadByte()
			if err != nil {
				t.Fatalf("%v before %q came: %q", err, text, seen)
			}
			seen += string(b)
		}
		seen = ""
	}
	press := func(keys string) {
		t.Helper()
		if _, err := in.Write([]byte(keys)); err != nil {
			t.Fatal(err)
		}
	}
	await("q quits")
	press("\r")
	await("layer 1: /")
	await("etc/")
	await("q quits")
	tty, err := os.ReadFile(filepath.Join(dir, "tty"))
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "stty", "-F", strings.TrimSpace(string(tty)), "cols", "20") // which tells the program of it
	await("arrows move, enter o\x1b[m")
	press("\x03")
	await("\x1b[?1049l")
	await("status 0")
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	before, err1 := os.ReadFile(filepath.Join(dir, "before"))
	after, err2 := os.ReadFile(filepath.Join(dir, "after"))
	if err1 != nil || err2 != nil || strings.ReplaceAll(string(before), "columns 90", "columns 20") != string(after) {
		t.Errorf("the terminal was\n%s\nand is\n%s(%v, %v)", before, after, err1, err2)
	}
}
