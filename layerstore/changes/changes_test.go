package changes

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/layerstore/tarlayer"
	"github.com/plyfs/plyfs/overlay"
)

// file is an entry of a test's layer: "dir/", "file:SIZE", "link>TARGET", "hard=TARGET", ".wh." names as they are.
func layer(t testing.TB, entries ...string) overlay.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e, Mode: 0o644, ModTime: time.Unix(1, 0)}
		if name, mode, ok := strings.Cut(e, "@"); ok { // another mode
			e, h.Name = name, name
			if _, err := fmt.Sscanf(mode, "%o", &h.Mode); err != nil {
				t.Fatal(err)
			}
		}
		switch {
		case strings.HasSuffix(e, "/"):
			h.Typeflag = tar.TypeDir
		case strings.Contains(e, ">"):
			h.Typeflag = tar.TypeSymlink
			h.Name, h.Linkname, _ = strings.Cut(e, ">")
		case strings.Contains(e, "="):
			h.Typeflag = tar.TypeLink
			h.Name, h.Linkname, _ = strings.Cut(e, "=")
		default:
			name, size, _ := strings.Cut(e, ":")
			h.Name = name
			_, _ = fmt.Sscan(size, &h.Size)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, zeros{}, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := open(t.TempDir(), b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

var layers uint64

func open(dir string, b []byte) (overlay.Layer, error) {
	name := filepath.Join(dir, "layer")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		return nil, err
	}
	idx, err := os.OpenFile(name+".idx", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer idx.Close()
	if _, err := tarlayer.Build(bytes.NewReader(b), idx, tarlayer.Limits{}); err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	layers++
	return tarlayer.Open(idx, f, layers)
}

// text is a change as the tests write it: "A /path 10" and, when it wastes, " w5".
func text(c *Change) string {
	s := fmt.Sprintf("%c %s %d", c.Kind, c.Path, c.Size)
	if c.Wasted > 0 {
		s += fmt.Sprintf(" w%d", c.Wasted)
	}
	if c.Count > 1 {
		s += fmt.Sprintf(" n%d", c.Count)
	}
	return s
}

func collect(t testing.TB, run func(emit func(c *Change) error) (Totals, error)) []string {
	t.Helper()
	var got []string
	var sum Totals
	told, err := run(func(c *Change) error {
		got = append(got, text(c))
		sum.Wasted += c.Wasted
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if sum.Wasted != told.Wasted {
		t.Errorf("the changes waste %d bytes, the totals say %d", sum.Wasted, told.Wasted)
	}
	return got
}

func TestNext(t *testing.T) {
	stack := []overlay.Layer{
		layer(t, "etc/", "etc/motd:10", "etc/gone:20", "dir/", "dir/a:30", "dir/sub/", "dir/sub/b:40", "opq/", "opq/x:1", "opq/y:2", "l1:100", "l2=l1", "type:7", "mode/", "keep/"),
		layer(t, "etc/motd:11", "etc/.wh.gone", "etc/new:1", ".wh.dir", "opq/", "opq/.wh..wh..opq", "opq/y:3", ".wh.l1", "type/", "type/in:5", "mode/@700", "keep/", ".wh.never"),
		layer(t, "etc/motd:12", "l2:1", "dir/", "dir/n/", "dir/n/m:9", "to>etc"),
	}
	want := [][]string{
		{"A /dir 70 n4", "A /etc 30 n3", "A /keep 0", "A /l1 100", "A /l2 0", "A /mode 0", "A /opq 3 n3", "A /type 7"},
		{"D /dir 70 w70 n4", "D /etc/gone 20 w20", "C /etc/motd 11 w10", "A /etc/new 1", "D /l1 100", "C /mode 0", "C /opq/y 3 w2", "D /opq/x 1 w1", "C /type 0 w7", "A /type/in 5"},
		{"A /dir 9 n3", "C /etc/motd 12 w11", "C /l2 1 w100", "A /to 0"},
	}
	for _, all := range []bool{false, true} {
		s := NewStack(stack)
		for i := range stack {
			var told Totals
			got := collect(t, func(emit func(c *Change) error) (totals Totals, err error) {
				told, err = s.Next(t.Context(), Options{All: all}, emit)
				return told, err
			})
			if !all && !slices.Equal(got, want[i]) {
				t.Errorf("layer %d:\n%s\nwant\n%s", i, strings.Join(got, "\n"), strings.Join(want[i], "\n"))
			}
			quiet := NewStack(stack)
			for range i {
				if _, err := quiet.Next(t.Context(), Options{}, nil); err != nil {
					t.Fatal(err)
				}
			}
			if counted, err := quiet.Next(t.Context(), Options{}, nil); err != nil || counted != told {
				t.Errorf("layer %d: counted %+v (%v), told %+v", i, counted, err, told)
			}
		}
	}
}

// TestExpand has one directory of several new ones told.
func TestExpand(t *testing.T) {
	stack := []overlay.Layer{layer(t, "a/b/c/x:1", "a/b/y:2", "a/d/z:3", "ab/q:4")}
	got := collect(t, func(emit func(c *Change) error) (Totals, error) {
		return NewStack(stack).Next(t.Context(), Options{Expand: "/a/b"}, emit)
	})
	want := []string{"A /a 0", "A /a/b 0", "A /a/b/c 1 n2", "A /a/b/y 2", "A /a/d 3 n2", "A /ab 4 n2"}
	if !slices.Equal(got, want) {
		t.Errorf("\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDiff(t *testing.T) {
	base := layer(t, "etc/", "etc/a:1", "etc/b:2", "same/", "same/x:5", "gone/", "gone/y:6", "to>etc", "dir/")
	a := []overlay.Layer{base, layer(t, "etc/b:3", "only/", "only/z:1", "type:1")}
	b := []overlay.Layer{base, layer(t, "etc/b:4", ".wh.gone", "to>same", "type/", "type/t:2", "dir/@700", "same/x:5")}
	got := collect(t, func(emit func(c *Change) error) (Totals, error) { return Diff(t.Context(), a, b, Options{}, emit) })
	want := []string{"C /dir 0", "C /etc/b 4", "D /gone 6 n2", "D /only 1 n2", "C /to 0", "C /type 0", "A /type/t 2"}
	if !slices.Equal(got, want) {
		t.Errorf("\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := collect(t, func(emit func(c *Change) error) (Totals, error) { return Diff(t.Context(), a, a, Options{}, emit) }); len(got) > 0 {
		t.Errorf("an image differs from itself: %q", got)
	}
}

// model is a tree by its paths: the size of each file, -1 for a directory.
type model map[string]int64

func (m model) remove(p string) {
	for q := range m {
		if q == p || strings.HasPrefix(q, p+"/") {
			delete(m, q)
		}
	}
}

// TestModel compares random layers with what a tree of paths comes to.
func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		m := model{}
		var stack []overlay.Layer
		for n := range 4 {
			before := model{}
			for p, s := range m {
				before[p] = s
			}
			entries, own := randomLayer(r, int64(n)), model{}
			for _, e := range entries { // in the order of a tar: parents first
				m.apply(e, own)
			}
			stack = append(stack, layer(t, entries...))
			s := NewStack(stack)
			for range n {
				if _, err := s.Next(t.Context(), Options{}, nil); err != nil {
					t.Fatal(err)
				}
			}
			got := collect(t, func(emit func(c *Change) error) (Totals, error) { return s.Next(t.Context(), Options{All: true}, emit) })
			checkModel(t, fmt.Sprintf("round %d layer %d of %q", round, n, entries), got, before, m)
			diff := collect(t, func(emit func(c *Change) error) (Totals, error) {
				return Diff(t.Context(), stack[:n], stack, Options{All: true}, emit)
			})
			checkModel(t, fmt.Sprintf("round %d diff to layer %d of %q", round, n, entries), diff, before, m)
		}
		if t.Failed() {
			return
		}
	}
}

// checkModel checks that changes lead from one tree to the other, as far as their paths and sizes go.
func checkModel(t *testing.T, what string, changes []string, before, after model) {
	t.Helper()
	got := model{}
	for p, s := range before {
		got[p] = s
	}
	for _, c := range changes {
		var kind, p string
		var size int64
		if _, err := fmt.Sscan(c, &kind, &p, &size); err != nil {
			t.Fatal(err)
		}
		_, had := before[p]
		if (kind == "A") == had {
			t.Errorf("%s: %s, but there was one: %v", what, c, had)
		}
		switch {
		case kind == "D":
			got.remove(p)
		case after[p] < 0:
			if got[p] >= 0 {
				got.remove(p)
			}
			got[p] = -1
		default:
			got.remove(p)
			got[p] = size
		}
	}
	for p, s := range after {
		if g, ok := got[p]; !ok || g != s {
			t.Errorf("%s: %s should be %d, is %d, %v\nby %q", what, p, s, g, ok, changes)
		}
	}
	for p := range got {
		if _, ok := after[p]; !ok {
			t.Errorf("%s: %s should be gone\nby %q", what, p, changes)
		}
	}
}

// randomLayer makes a layer over few names, in which each comes once.
func randomLayer(r *rand.Rand, n int64) []string {
	var entries []string
	var fill func(dir string, depth int)
	fill = func(dir string, depth int) {
		if depth > 0 && r.IntN(5) == 0 {
			entries = append(entries, dir+".wh..wh..opq")
		}
		for _, name := range []string{"a", "b", "c"} {
			switch k := r.IntN(6); {
			case k == 0:
				entries = append(entries, fmt.Sprintf("%s%s:%d", dir, name, 1+n*100+r.Int64N(90)))
			case k == 1 && n > 0:
				entries = append(entries, dir+".wh."+name)
			case k <= 3 && depth < 3:
				entries = append(entries, dir+name+"/")
				fill(dir+name+"/", depth+1)
			}
		}
	}
	fill("", 0)
	return entries
}

// apply is what an entry of a layer does to a tree. own has what the layer itself put there.
func (m model) apply(e string, own model) {
	dir, base := path.Split(strings.TrimSuffix(e, "/"))
	switch {
	case base == ".wh..wh..opq":
		p := "/" + strings.TrimSuffix(dir, "/")
		for q := range m {
			if _, ours := own[q]; !ours && strings.HasPrefix(q, p+"/") {
				delete(m, q)
			}
		}
	case strings.HasPrefix(base, ".wh."):
		m.remove("/" + dir + base[4:])
	case strings.HasSuffix(e, "/"):
		p := "/" + strings.TrimSuffix(e, "/")
		m[p], own[p] = -1, -1
	default:
		name, size, _ := strings.Cut(e, ":")
		m.remove("/" + name)
		var n int64
		_, _ = fmt.Sscan(size, &n)
		m["/"+name], own["/"+name] = n, n
	}
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewStack([]overlay.Layer{layer(t, "a:1")}).Next(ctx, Options{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// FuzzLayers walks two layers that are any archives.
func FuzzLayers(f *testing.F) {
	seed := func(names ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, n := range names {
			h := &tar.Header{Name: n, Mode: 0o755, Typeflag: tar.TypeReg}
			if strings.HasSuffix(n, "/") {
				h.Typeflag = tar.TypeDir
			}
			if err := w.WriteHeader(h); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	f.Add(seed("a/", "a/b"), seed("a/.wh.b", ".wh..wh..opq"))
	f.Add(seed("a", "b/c"), seed("a/", "b/", "b/.wh..wh..opq"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		dir := t.TempDir()
		if os.Mkdir(dir+"/a", 0o700) != nil || os.Mkdir(dir+"/b", 0o700) != nil {
			t.Fatal("no directories")
		}
		x, err := open(dir+"/a", a)
		if err != nil {
			return
		}
		defer x.Close()
		y, err := open(dir+"/b", b)
		if err != nil {
			return
		}
		defer y.Close()
		s := NewStack([]overlay.Layer{x, y})
		for range 2 {
			if told, err := s.Next(t.Context(), Options{All: true}, func(c *Change) error { return nil }); err != nil || told.Wasted < 0 {
				t.Errorf("%+v, %v", told, err)
			}
		}
		if _, err := Diff(t.Context(), []overlay.Layer{x}, []overlay.Layer{x, y}, Options{}, func(*Change) error { return nil }); err != nil {
			t.Error(err)
		}
	})
}
