package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/container"
	"github.com/plyfs/plyfs/image"
	"github.com/plyfs/plyfs/layerstore"
)

func TestParseKeys(t *testing.T) {
	for in, want := range map[string][]key{
		"q": {"q"}, "\x1b[A\x1b[B\x1bOC": {keyUp, keyDown, keyRight}, "\x1b": {keyEscape}, "\r\n\x7f\x03": {keyEnter, keyEnter, keyBackspace, keyInterrupt},
		"/ü ": {"/", "ü", " "}, "\x1b[1;5Cx": {"x"}, "\x1b[3~j": {"j"}, "\x00\x01": nil, "\x1b[": nil, "\x1b[5~\x1b[6~": {keyPageUp, keyPageDown},
	} {
		if got := parseKeys(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add("\x1b[A/x\r")
	f.Fuzz(func(_ *testing.T, in string) { parseKeys(in) })
}

// testBrowser browses an image of one layer with these files, each of one byte.
func testBrowser(t *testing.T, files ...string) *browser {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := layerstore.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.Import(t.Context(), st, &b, image.ImportOptions{Name: "img", Source: "-"}); err != nil {
		t.Fatal(err)
	}
	list, closeAll, err := container.OpenImages(t.Context(), st, "img")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeAll(); err != nil {
			t.Error(err)
		}
	})
	br := &browser{ctx: t.Context(), img: list[0], title: "img"}
	first, err := br.layers()
	if err != nil {
		t.Fatal(err)
	}
	br.pages = []listPage{first}
	return br
}

// keys presses keys, each answered before the next.
func (b *browser) keys(t *testing.T, height int, keys ...key) {
	t.Helper()
	for _, k := range keys {
		layer, dir, enter := b.press(k, height)
		if !enter {
			continue
		}
		p, err := b.directory(t.Context(), layer, dir)
		if err != nil {
			t.Fatal(err)
		}
		b.pages, b.filter = append(b.pages, p), ""
	}
}

func TestBrowse(t *testing.T) {
	b := testBrowser(t, "etc/a", "etc/b", "usr/lib/x", "usr/lib/y", "usr/\x1b[31mred\nname")
	wantFrame := func(want ...string) {
		t.Helper()
		text := strings.Join(b.frame(60, 8), "\n")
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("no %q on the screen:\n%s", w, text)
			}
		}
		if strings.Contains(strings.ReplaceAll(text, reverse, ""), "\x1b") {
			t.Errorf("a name's control characters reach the terminal: %q", text)
		}
		if n := len(b.frame(60, 8)); n != 8 {
			t.Errorf("%d lines", n)
		}
	}
	wantFrame("img: 5B in files of 1 layers", "LAYER", "    1  ")
	b.keys(t, 8, keyEnter)
	wantFrame("img: layer 1: /", "2B", "3  etc/", reverse+"A ")
	b.keys(t, 8, keyDown, keyEnter)
	wantFrame("layer 1: /usr", "lib/", `\x1b[31mred\nname`)
	b.keys(t, 8, "/", "L", "i", "b")
	wantFrame("/Lib", "lib/")
	b.keys(t, 8, keyEnter)
	wantFrame("1 of 2 contain Lib")
	b.keys(t, 8, keyEnter)
	wantFrame("layer 1: /usr/lib", "  x")
	b.keys(t, 8, keyEnter) // a file: nothing to enter
	wantFrame("layer 1: /usr/lib")
	b.keys(t, 8, keyLeft, keyLeft, keyLeft, keyLeft, keyUp, keyUp)
	wantFrame("LAYER")
	if b.quit {
		t.Error("quit without q")
	}
	b.keys(t, 8, "q")
	if !b.quit {
		t.Error("q does not quit")
	}
}

// TestBrowseScrolls checks that what is chosen is on the screen, however small that is.
func TestBrowseScrolls(t *testing.T) {
	var files []string
	for i := range 100 {
		files = append(files, fmt.Sprintf("f%02d", i))
	}
	b := testBrowser(t, files...)
	b.keys(t, 10, keyEnter)
	for _, height := range []int{1, 2, 3, 4, 10, 200} {
		for _, k := range []key{keyEnd, keyHome, keyPageDown, keyPageDown, keyUp, keyPageUp, keyDown} {
			b.keys(t, height, k)
			frame := b.frame(20, height)
			chosen := fmt.Sprintf("f%02d", b.page().chosen)
			if len(frame) != height || height > barLines && !strings.Contains(strings.Join(frame, "\n"), reverse) {
				t.Errorf("height %d: %d lines", height, len(frame))
			}
			if wide := b.frame(80, height); height > barLines && !strings.Contains(strings.Join(wide, "\n"), chosen) {
				t.Errorf("height %d: %s is not shown", height, chosen)
			}
		}
	}
}

func TestBrowseCanceled(t *testing.T) {
	b := testBrowser(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.directory(ctx, 1, "/"); err == nil {
		t.Error("a directory is read to its end though nobody wants it")
	}
}
