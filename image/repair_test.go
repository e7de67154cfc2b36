package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/layerstore"
)

// TestRepairStore harms an image in each of its files. From a registry that answers all of it comes back under its names;
// without, what cannot be made of what is there is dropped, unless a container uses it.
func TestRepairStore(t *testing.T) {
	harms := map[string]func(p pushed) string{
		"blob":     func(p pushed) string { return "blobs/sha256/" + p.layers[0].digest().Encoded() },
		"tar":      func(p pushed) string { return "layers/sha256/" + diffID(p).Encoded() + ".tar" },
		"index":    func(p pushed) string { return "layers/sha256/" + diffID(p).Encoded() + ".idx" },
		"manifest": func(p pushed) string { return "blobs/sha256/" + p.desc.Digest.Encoded() },
		"config":   func(p pushed) string { return "blobs/sha256/" + p.config.Encoded() },
	}
	local := []string{"tar", "index"} // made of what is there
	for name, path := range harms {
		for _, answer := range []string{"registry", "none", "in use"} {
			for _, how := range []string{"changed", "gone"} {
				t.Run(name+" "+how+" "+answer, func(t *testing.T) {
					s, st := newServer(t), newStore(t)
					o, _ := options()
					p := s.pushImage("team/app", "1", testImage{layers: []testLayer{newLayer(t, 7, 50_000)}})
					ref := s.ref("team/app:1")
					img, err := Pull(t.Context(), st, ref, o)
					if err != nil {
						t.Fatal(err)
					}
					if answer == "in use" {
						if _, err := st.CreateContainer(t.Context(), layerstore.Container{Name: "user", Image: img.ID, Manifest: img.Manifest, Layers: []layerstore.Digest{diffID(p)}}); err != nil {
							t.Fatal(err)
						}
					}
					if answer != "registry" {
						s.Close()
					}
					file := filepath.Join(st.Root(), path(p))
					if how == "gone" {
						err = os.Remove(file)
					} else {
						err = os.WriteFile(file, []byte("damaged"), 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
					report, err := st.Check(t.Context())
					if err != nil || len(report.Problems) == 0 && name != "index" {
						t.Fatalf("the check finds %+v, %v", report, err)
					}
					done, err := RepairStore(t.Context(), st, report, o)
					if err != nil {
						t.Fatal(err)
					}
					failed := slices.ContainsFunc(done, func(r Repair) bool { return r.Err != nil })
					after, err := st.Check(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if answer == "in use" && !slices.Contains(local, name) {
						if !failed || len(after.Problems) == 0 {
							t.Errorf("repaired: %v", done)
						}
						return
					}
					if failed || len(after.Problems) > 0 {
						t.Errorf("after %+v: %+v", done, after.Problems)
					}
					got, err := st.ResolveImage(t.Context(), ref)
					if kept := answer != "none" || slices.Contains(local, name); kept != (err == nil) {
						t.Errorf("the image: %v, want it kept: %v, after %+v", err, kept, done)
					} else if kept {
						requireStored(t, st, got, p)
					} else if !strings.Contains(done[len(done)-1].Done, "dropped") {
						t.Errorf("told %+v", done)
					}
				})
			}
		}
	}
}

// diffID is that of the first layer.
func diffID(p pushed) layerstore.Digest { return digest.FromBytes(p.layers[0].tar) }
