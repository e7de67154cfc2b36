package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRealStoreInPlace has skopeo read the store as the OCI layout that it is.
func TestRealStoreInPlace(t *testing.T) {
	registry, ref := needDebian(t)
	s := newStore(t)
	s.ok("pull", "--quiet", ref)
	before := s.files()
	name := registry.Addr + "/debian:latest"
	wantConfig := tool(t, "skopeo", "inspect", "--config", "--raw", "--tls-verify=false", "docker://"+name)
	wantManifest := tool(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+name)

	layout := "oci:" + s.root + ":" + name
	if got := tool(t, "skopeo", "inspect", "--raw", layout); got != wantManifest {
		t.Errorf("the store's manifest is\n%s\nthe registry's\n%s", got, wantManifest)
	}
	if got := tool(t, "skopeo", "inspect", "--config", "--raw", layout); got != wantConfig {
		t.Errorf("the store's config is\n%s\nthe registry's\n%s", got, wantConfig)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	tool(t, "skopeo", "copy", "--quiet", layout, "dir:"+copied)
	// skopeo verifies each digest as it copies; what is left to see is that all came.
	var manifest struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal([]byte(wantManifest), &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest.Layers) != 4 {
		t.Errorf("the image has %d layers, want 4", len(manifest.Layers))
	}
	for _, l := range manifest.Layers {
		if _, err := os.Stat(filepath.Join(copied, strings.TrimPrefix(l.Digest, "sha256:"))); err != nil {
			t.Error(err)
		}
	}
	s.unchanged(before, nil)
}

// TestRealSave has other tools load what save writes.
func TestRealSave(t *testing.T) {
	registry, ref := needDebian(t)
	needTools(t, "podman")
	name := registry.Addr + "/debian:latest"
	s := newStore(t)
	s.ok("pull", "--quiet", ref)
	wantConfig := tool(t, "skopeo", "inspect", "--config", "--raw", "--tls-verify=false", "docker://"+name)
	var want struct {
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal([]byte(wantConfig), &want); err != nil {
		t.Fatal(err)
	}

	for _, format := range []string{"docker-archive", "oci-archive"} {
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			archive := filepath.Join(dir, "image.tar")
			s.ok("save", "--format", format, "-o", archive, ref)
			sameSave(t, s, archive, format, ref)

			source := format + ":" + archive
			if got := tool(t, "skopeo", "inspect", "--config", "--raw", source); got != wantConfig {
				t.Errorf("the saved config is\n%s\nwant\n%s", got, wantConfig)
			}
			tool(t, "skopeo", "copy", "--quiet", source, "dir:"+filepath.Join(dir, "copy"))

			pod := newPodman(t)
			pod.run("load", "--quiet", "--input", archive)
			var loaded []struct {
				RepoTags []string
				RootFS   struct{ Layers []string }
			}
			out := pod.run("image", "inspect", name)
			if err := json.Unmarshal([]byte(out), &loaded); err != nil || len(loaded) != 1 {
				t.Fatalf("podman image inspect: %v: %s", err, out)
			}
			if got := strings.Join(loaded[0].RootFS.Layers, " "); got != strings.Join(want.Rootfs.DiffIDs, " ") {
				t.Errorf("podman loaded the layers %s, want %s", got, want.Rootfs.DiffIDs)
			}
		})
	}
}

// sameSave checks that an image saved again, and saved to stdout, gives the same bytes.
func sameSave(t *testing.T, s *store, archive, format, ref string) {
	t.Helper()
	want, err := hashFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	again := archive + ".again"
	s.ok("save", "--format="+format, "--output", again, ref)
	if got, err := hashFile(again); err != nil || got != want {
		t.Errorf("saved twice, the archives differ: %s, %s, %v", want, got, err)
	}
	out, err := os.Create(archive + ".stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := s.command(t.Context(), "save", "--format", format, ref)
	var errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("save to stdout: %v: %s", err, errOut.String())
	}
	if got, err := hashFile(out.Name()); err != nil || got != want {
		t.Errorf("save to stdout differs from save to a file: %s, %s, %v", want, got, err)
	}
	for _, extra := range []string{again, out.Name()} {
		if err := os.Remove(extra); err != nil {
			t.Error(err)
		}
	}
}

// TestRealSaveRefused checks what save must not do.
func TestRealSaveRefused(t *testing.T) {
	h := newHazard(t)
	archive := filepath.Join(t.TempDir(), "image.tar")
	h.fails([]string{"no-such-image"}, "save", "-o", archive, "no-such-image:1")
	if _, err := os.Stat(archive); err == nil {
		t.Error("a save that failed left a file behind")
	}
	// script(1) gives the command a terminal as stdout.
	needTools(t, "script")
	out := tool(t, "script", "--quiet", "--return", "--command",
		plyfsBinary()+" --root "+h.root+" save "+h.good+" || echo status $?", "/dev/null")
	if !strings.Contains(out, "terminal") || !strings.Contains(out, "status") {
		t.Errorf("save to a terminal is not refused: %q", out)
	}
}
