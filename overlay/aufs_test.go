package overlay

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// dotUnion makes a union of two lower directories and an upper one, in which each path is a
// file.
func dotUnion(t *testing.T, top, bottom, upper []string) *Union {
	t.Helper()
	base := t.TempDir()
	for dir, paths := range map[string][]string{"top": top, "bottom": bottom, "up": upper, "work": nil} {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			full := filepath.Join(base, dir, p)
			if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(full, []byte(dir), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	cfg := Config{Upper: filepath.Join(base, "up"), Work: filepath.Join(base, "work")}
	for _, dir := range []string{"top", "bottom"} {
		l, err := NewDirLayer(filepath.Join(base, dir), 0)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Lowers = append(cfg.Lowers, l)
	}
	u, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

func namesIn(t *testing.T, u *Union, id ID) []string {
	t.Helper()
	var names []string
	if err := u.ReadDir(id, CookieDotDot, func(e *ListEntry) bool {
		names = append(names, e.Name)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestDotWhiteouts(t *testing.T) {
	bottom := []string{"a", "b", "c", "d/x", "e/x", "f"}
	u := dotUnion(t, []string{".wh.a", "d/.wh..wh..opq", "d/y", "f", ".wh.f"}, bottom, []string{".wh.b", "e/.wh..wh..opq", "e/z"})
	if got, want := namesIn(t, u, RootID), []string{"c", "d", "e", "f"}; !slices.Equal(got, want) {
		t.Errorf("the root has %q, want %q", got, want)
	}
	for dir, want := range map[string]string{"d": "y", "e": "z"} {
		var a Attr
		id, err := u.Lookup(RootID, dir, &a)
		if err != nil {
			t.Fatal(err)
		}
		if got := namesIn(t, u, id); !slices.Equal(got, []string{want}) {
			t.Errorf("opaque directory %s has %q, want %q", dir, got, want)
		}
	}
	for _, name := range []string{"a", "b", ".wh.a", ".wh.b"} {
		var a Attr
		if _, err := u.Lookup(RootID, name, &a); err != unix.ENOENT { //nolint:errorlint // a bare errno
			t.Errorf("lookup of %s: %v, want ENOENT", name, err)
		}
	}
}

// TestDotWhiteoutReplaced makes a directory where a file hid one, which must not show through.
func TestDotWhiteoutReplaced(t *testing.T) {
	u := dotUnion(t, nil, []string{"d/x", "f"}, []string{".wh.d", ".wh.f"})
	var a Attr
	id, err := u.Mkdir(RootID, "d", Cred{}, 0o755, &a)
	if err != nil {
		t.Fatal(err)
	}
	if got := namesIn(t, u, id); len(got) != 0 {
		t.Errorf("the new directory shows %q", got)
	}
	if _, err := u.Mknod(RootID, "f", Cred{}, unix.S_IFREG|0o644, 0, &a); err != nil || a.Size != 0 {
		t.Errorf("new file: %v, size %d", err, a.Size)
	}
	if _, err := u.Mknod(RootID, ".wh.g", Cred{}, unix.S_IFREG|0o644, 0, &a); err != unix.EPERM { //nolint:errorlint // a bare errno
		t.Errorf("making a whiteout: %v, want EPERM", err)
	}
	if got, want := namesIn(t, u, RootID), []string{"d", "f"}; !slices.Equal(got, want) {
		t.Errorf("the root has %q, want %q", got, want)
	}
}
