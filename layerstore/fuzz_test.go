package layerstore

import (
	"bytes"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzManifest reads a manifest and a config from anyone. What is taken keeps to the limits, names only digests that are
// safe as file names, and has an OCI form that is taken too.
func FuzzManifest(f *testing.F) {
	d := string(digest.FromString("x"))
	layer := `{"mediaType":"` + v1.MediaTypeImageLayerGzip + `","digest":"` + d + `","size":7}`
	config := `{"created":"2024-01-02T03:04:05Z","rootfs":{"type":"layers","diff_ids":["` + d + `"]}}`
	good := `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `","config":{"mediaType":"` + v1.MediaTypeImageConfig + `","digest":"` + d +
		`","size":` + jsonNumber(int64(len(config))) + `},"layers":[` + layer + `]}`
	docker := strings.NewReplacer(v1.MediaTypeImageManifest, mediaDockerManifest, v1.MediaTypeImageConfig, mediaDockerConfig,
		v1.MediaTypeImageLayerGzip, "application/vnd.docker.image.rootfs.diff.tar.gzip").Replace(good)
	f.Add([]byte(good), []byte(config), v1.MediaTypeImageManifest)
	f.Add([]byte(docker), []byte(config), mediaDockerManifest)
	f.Add([]byte(strings.Replace(good, `"size":7`, `"size":4611686018427387904`, 1)), []byte(config), v1.MediaTypeImageManifest)
	f.Add([]byte(strings.Replace(good, `"size":7`, `"size":1e30`, 1)), []byte(config), v1.MediaTypeImageManifest)
	f.Add([]byte(strings.Replace(good, d, "sha256:../../etc", 1)), []byte(config), v1.MediaTypeImageManifest)
	f.Add([]byte(good), []byte(strings.Replace(config, d, "md5:x", 1)), v1.MediaTypeImageManifest)
	f.Add([]byte(good), []byte(`{"rootfs":{"type":"layers","diff_ids":null}}`), v1.MediaTypeImageManifest)
	f.Add([]byte(strings.Repeat("[", 20_000)), []byte("null"), v1.MediaTypeImageManifest)
	f.Add([]byte("null"), []byte("null"), "")
	f.Fuzz(func(t *testing.T, m, c []byte, mediaType string) {
		img, err := newImage(m, c, mediaType)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b\x00") {
				t.Errorf("an error that a terminal should not get: %q", err)
			}
			return
		}
		if len(img.Layers) > MaxLayers || !bytes.Equal(img.ManifestBytes, m) {
			t.Errorf("%d layers", len(img.Layers))
		}
		for _, l := range img.Layers {
			if err := checkSpec(&l); err != nil {
				t.Error(err)
			}
		}
		oci, err := img.OCIManifest()
		if err != nil {
			t.Fatal(err)
		}
		again, err := newImage(oci, c, v1.MediaTypeImageManifest)
		if err != nil || again.ID != img.ID || len(again.Layers) != len(img.Layers) {
			t.Errorf("its OCI form is refused: %v", err)
		}
	})
}
