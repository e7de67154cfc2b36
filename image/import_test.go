package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/plyfs/plyfs/layerstore"
)

// rootTar is a tar of a small root filesystem.
func rootTar(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./etc/motd", Typeflag: tar.TypeReg, Mode: 0o644, Size: 6},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("hello\n")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestImport(t *testing.T) {
	st, plain := newStore(t), rootTar(t)
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	if _, err := w.Write(plain); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	zw, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string][]byte{"plain": plain, "gzip": gz.Bytes(), "zstd": zw.EncodeAll(plain, nil), "xz": pack(t, "xz", plain), "bzip2": pack(t, "bzip2", plain)}
	var layer layerstore.Digest
	for form, b := range forms {
		id, err := Import(t.Context(), st, bytes.NewReader(b), ImportOptions{
			Name: "team/" + form, Changes: []string{"ENV A=1", "CMD [\"sh\"]"}, Source: "-", Platform: "linux/arm/v7",
		})
		if err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		img, err := Resolve(t.Context(), st, "team/"+form+":latest")
		if err != nil || img.ID != id || len(img.Layers) != 1 {
			t.Fatalf("%s: resolved %v, %v, want %s", form, img.ID, err, id)
		}
		if layer != "" && img.Layers[0].DiffID != layer {
			t.Errorf("%s: layer %s, that of another form is %s", form, img.Layers[0].DiffID, layer)
		}
		layer = img.Layers[0].DiffID
		var cfg importedConfig
		if err := json.Unmarshal(img.Config, &cfg); err != nil {
			t.Fatal(err)
		}
		if cfg.Architecture != "arm" || cfg.Variant != "v7" || cfg.OS != "linux" || len(cfg.Config.Env) != 1 ||
			len(cfg.History) != 1 || cfg.History[0].Comment != "Imported from -" || cfg.Created == nil {
			t.Errorf("%s: config %s", form, img.Config)
		}
	}
	wantWhole(t, st)
}

// pack compresses by a program of the system.
func pack(t testing.TB, program string, b []byte) []byte {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed", program)
	}
	cmd := exec.Command(program, "-c")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestImportRefuses checks that what is refused leaves nothing, and that bad choices are refused before anything is read.
func TestImportRefuses(t *testing.T) {
	st := newStore(t)
	unread := readFunc(func([]byte) (int, error) { t.Error("the tar was read"); return 0, errors.New("read") })
	for _, o := range []ImportOptions{{Name: "UPPER"}, {Name: "a@sha256:" + strings.Repeat("0", 64)}, {Changes: []string{"RUN x"}}, {Platform: "/"}} {
		if _, err := Import(t.Context(), st, unread, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	for _, text := range []string{"no tar, but long enough for one\n" + strings.Repeat("x", 1024), string(rootTar(t)[:1100]), "\x1f\x8b\x08damaged"} {
		if _, err := Import(t.Context(), st, strings.NewReader(text), ImportOptions{Source: "-"}); !errors.Is(err, layerstore.ErrCorrupt) && !errors.Is(err, ErrArchive) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	failure := errors.New("failed midway")
	half := rootTar(t)[:700]
	if _, err := Import(t.Context(), st, readFunc(func(p []byte) (int, error) {
		n := copy(p, half)
		half = half[n:]
		if n == 0 {
			return 0, failure
		}
		return n, nil
	}), ImportOptions{}); !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	left, err := filepath.Glob(filepath.Join(st.Root(), "*", "*", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	wantWhole(t, st)
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestImportURL(t *testing.T) {
	st, b := newStore(t), rootTar(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/root.tar", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) })
	mux.Handle("/moved", http.RedirectHandler("/root.tar", http.StatusFound))
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "999999")
		_, _ = w.Write(b[:600])
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	fetch := func(path string) error {
		in, err := OpenURL(t.Context(), server.URL+path)
		if err != nil {
			return err
		}
		_, err = Import(t.Context(), st, in, ImportOptions{Source: server.URL + path})
		return errors.Join(err, in.Close())
	}
	for _, path := range []string{"/root.tar", "/moved"} {
		if err := fetch(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := fetch("/missing"); !errors.Is(err, ErrContent) || !strings.Contains(err.Error(), "404") {
		t.Errorf("missing: %v", err)
	}
	if err := fetch("/short"); err == nil {
		t.Error("a transfer that was cut short was taken")
	}
	if IsURL("file.tar") || IsURL("/a/http://b") || IsURL("-") || !IsURL("https://example.com/x.tgz") {
		t.Error("a file is taken for a URL, or a URL for a file")
	}
	if _, err := os.Stat(st.Root()); err != nil {
		t.Error(err)
	}
	wantWhole(t, st)
}
