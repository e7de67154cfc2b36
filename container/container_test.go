package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/layerstore"
)

// hangVariable, when set, has the server that Mount starts hang before it does anything.
const hangVariable = "PLYFS_TEST_HANG"

// TestMain lets the test binary be the server that Mount starts, as plyfs itself does.
func TestMain(m *testing.M) {
	if os.Getenv(hangVariable) != "" {
		_ = syscall.Pause() // returns with an error, always
	}
	if len(os.Args) > 1 && os.Args[1] == ServeCommand {
		os.Exit(ServeMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func TestCheckMountpoint(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(".", link); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for path, want := range map[string]string{
		"missing":      "make it with `mkdir -p missing`",
		"file":         "it is not a directory",
		"file/below":   "not a directory",
		"missing/deep": "make it with `mkdir -p missing/deep`",
	} {
		_, err := checkMountpoint(path)
		if !errors.Is(err, ErrMountpoint) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link, "."} {
		if got, err := checkMountpoint(path); err != nil || got != real {
			t.Errorf("%s: %s, %v, want %s", path, got, err, real)
		}
	}
}

func TestReportedErrors(t *testing.T) {
	for want, err := range map[error]error{
		ErrMounted:    fmt.Errorf("container x %w already", ErrMounted),
		ErrMountpoint: fmt.Errorf("%w /x:\n\"quoted\"", ErrMountpoint),
		ErrServer:     errors.New("anything else"),
	} {
		line := wordFor(err) + " " + fmt.Sprintf("%q", err.Error()) + "\n"
		cmd := startTrue(t)
		_, got := hear(cmd, line, "log")
		if !errors.Is(got, want) || got.Error() != err.Error() {
			t.Errorf("%v arrived as %v", err, got)
		}
	}
	for _, line := range []string{"", "ready", "ready x\n", "nonsense \"x\"\n", "error unquoted\n"} {
		_, err := hear(startTrue(t), line, "/the/log")
		if !errors.Is(err, ErrServer) || !strings.Contains(err.Error(), "/the/log") {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// TestSpawnFailure has a server fail before it can mount: its error arrives, and it is gone.
func TestSpawnFailure(t *testing.T) {
	st := openStore(t)
	id := strings.Repeat("0", 64)
	if err := os.MkdirAll(st.ContainerDir(id), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := spawn(context.Background(), st, id, t.TempDir(), MountOptions{LogLevel: "error"}); !errors.Is(err, ErrServer) || !strings.Contains(err.Error(), id[:12]) {
		t.Errorf("error %v", err)
	}
	log, err := os.ReadFile(filepath.Join(st.ContainerDir(id), logName))
	if err != nil || !strings.Contains(string(log), id[:12]) {
		t.Errorf("log %q, %v", log, err)
	}
}

// TestSpawnCanceled ends a server that never answers once the caller does not want it any more.
func TestSpawnCanceled(t *testing.T) {
	st := openStore(t)
	id := strings.Repeat("0", 64)
	if err := os.MkdirAll(st.ContainerDir(id), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv(hangVariable, "1")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := spawn(ctx, st, id, t.TempDir(), MountOptions{LogLevel: "error"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	// spawn waited for it: this process has no child left.
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		t.Errorf("process %d is left: %v", pid, err)
	}
}

func TestOpenLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, test := range []struct{ before, after int64 }{{0, 0}, {1000, 1000}, {maxLog, maxLog}, {maxLog + 1, 0}} {
		if err := os.WriteFile(path, make([]byte, test.before), 0o600); err != nil {
			t.Fatal(err)
		}
		log, err := openLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := log.Stat(); err != nil || info.Size() != test.after {
			t.Errorf("%d bytes became %d, %v, want %d", test.before, info.Size(), err, test.after)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
}

func openStore(t *testing.T) *layerstore.Store {
	t.Helper()
	st, err := layerstore.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// startTrue starts a program that ends at once.
func startTrue(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// TestAmbiguousName mounts by what begins both a container's ID and an image's.
func TestAmbiguousName(t *testing.T) {
	st := openStore(t)
	config, err := st.WriteBlob([]byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","digest":"%s","size":78},"layers":[]}`,
		ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, config)
	if _, err := st.WriteBlob([]byte(manifest)); err != nil {
		t.Fatal(err)
	}
	img, err := st.PutImage(t.Context(), "", []byte(manifest), ocispec.MediaTypeImageManifest, "")
	if err != nil {
		t.Fatal(err)
	}
	first := img.ID.Encoded()[:1]
	for {
		c, err := Create(t.Context(), st, img, CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(c.ID, first) {
			break // of 16 containers one does
		}
		if err := Remove(t.Context(), st, c.ID); err != nil {
			t.Fatal(err)
		}
	}
	_, err = MountByName(t.Context(), st, first, CreateOptions{}, MountOptions{Mountpoint: "missing"})
	if !errors.Is(err, layerstore.ErrAmbiguous) {
		t.Errorf("error %v", err)
	}
	_, err = MountByName(t.Context(), st, first, CreateOptions{Name: "new"}, MountOptions{Mountpoint: "missing"})
	if !errors.Is(err, ErrMountpoint) {
		t.Errorf("with the name of a new container, which only an image can have: %v", err)
	}
}
