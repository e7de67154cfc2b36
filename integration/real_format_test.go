package integration

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/integration/testimage"
)

// TestRealFormats pulls one image in the forms that skopeo can give it in a registry: all show the same tree.
func TestRealFormats(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("makes an image of 100 layers")
	}
	needTools(t, "umoci", "skopeo", "docker-registry")
	img, err := testimage.ManyLayers(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	var first map[string]entry
	for _, c := range []struct {
		name  string
		args  []string
		media string // of the layers
	}{
		{"oci-gzip", []string{"--format", "oci"}, "application/vnd.oci.image.layer.v1.tar+gzip"},
		{"docker-gzip", []string{"--format", "v2s2"}, "application/vnd.docker.image.rootfs.diff.tar.gzip"},
		{"oci-zstd", []string{"--format", "oci", "--dest-compress-format", "zstd"}, "application/vnd.oci.image.layer.v1.tar+zstd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A registry of its own: skopeo takes a layer that one has already in whatever compression it is there.
			registry, err := testimage.StartRegistry(t.Context(), t.TempDir(), false)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := registry.Close(); err != nil {
					t.Error(err)
				}
			})
			ref := registry.Addr + "/" + c.name
			tool(t, "skopeo", append([]string{"copy", "--quiet", "--dest-tls-verify=false", "oci:" + img.Layout + ":" + img.Name, "docker://" + ref}, c.args...)...)
			pushed := layersOf(t, "--tls-verify=false", "docker://"+ref)
			if got := pushed[0].MediaType; got != c.media {
				t.Fatalf("skopeo pushed layers of type %s, want %s", got, c.media)
			}
			s := newStore(t)
			s.ok("pull", "--quiet", ref)
			s.whole()
			m := s.mount("--name", "format", "--read-only", ref)
			got := tree(t, m)
			if first == nil {
				first = got
			}
			sameTree(t, first, got)
			s.ok("umount", "format")
			// The store is an OCI layout also where the registry's manifest is docker's; the layers are the same bytes.
			layout := "oci:" + s.root + ":" + ref + ":latest"
			kept := layersOf(t, layout)
			if len(kept) != len(pushed) {
				t.Fatalf("the store's image has %d layers, the registry's %d", len(kept), len(pushed))
			}
			for i := range kept {
				if kept[i].Digest != pushed[i].Digest || !strings.HasPrefix(kept[i].MediaType, "application/vnd.oci.image.layer.") {
					t.Errorf("layer %d is %+v in the store, %+v in the registry", i, kept[i], pushed[i])
				}
			}
			tool(t, "skopeo", "copy", "--quiet", layout, "dir:"+filepath.Join(t.TempDir(), "copy"))
		})
	}
}

// layerDescriptor is what a manifest says of a layer.
type layerDescriptor struct{ MediaType, Digest string }

// layersOf lists the layers of an image as skopeo sees it.
func layersOf(t *testing.T, source ...string) []layerDescriptor {
	t.Helper()
	raw := tool(t, "skopeo", append([]string{"inspect", "--raw"}, source...)...)
	var manifest struct{ Layers []layerDescriptor }
	if err := json.Unmarshal([]byte(raw), &manifest); err != nil || len(manifest.Layers) == 0 {
		t.Fatalf("no manifest with layers: %v: %s", err, raw)
	}
	return manifest.Layers
}
