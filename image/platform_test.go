package image

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "linux/amd64/v1": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3",
		"linux/aarch64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "arm64/v8": "linux/arm64", "linux/arm": "linux/arm/v7", "linux/arm/6": "linux/arm/v6",
		"linux/armhf": "linux/arm/v7", "linux/armel": "linux/arm/v6", "Linux/i386": "linux/386", "windows/amd64": "windows/amd64",
	} {
		if got, err := ParsePlatform(in); err != nil || got.String() != want {
			t.Errorf("%s: %v, want %s (%v)", in, got, want, err)
		}
	}
	for _, in := range []string{"", "/", "linux/", "linux/amd64/", "a/b/c/d", "linux/a md64", "linux/\x1b"} {
		if got, err := ParsePlatform(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
	for machine, want := range map[string]string{"armv7l": "v7", "armv6l": "v6", "armv5tel": "v5", "aarch64": "v8", "armv8l": "v8", "strange": "v7"} {
		if got := armVariant(machine); got != want {
			t.Errorf("%s: %s", machine, got)
		}
	}
}

// TestChoose has the choices that containerd's platforms.Only makes.
func TestChoose(t *testing.T) {
	for _, c := range []struct {
		want, have, chosen string
		exact              bool
	}{
		{"linux/amd64", "linux/arm64 linux/amd64 linux/386", "linux/amd64", true},
		{"linux/amd64", "linux/arm64 linux/386", "linux/386", false},
		{"linux/amd64", "linux/amd64/v2 linux/amd64/v3", "", false},
		{"linux/amd64/v3", "linux/amd64 linux/amd64/v2 linux/amd64/v4", "linux/amd64/v2", false},
		{"linux/amd64/v3", "linux/amd64/v4 linux/amd64/v1", "linux/amd64/v1", false},
		{"linux/arm64", "linux/arm/v7 linux/arm64/v8", "linux/arm64/v8", true},
		{"linux/arm64", "linux/arm/v5 linux/arm/v7 linux/arm/v6", "linux/arm/v7", false},
		{"linux/arm64", "linux/arm64/v9", "", false},
		{"linux/arm64/v9", "linux/arm64 linux/arm/v7", "linux/arm64", false},
		{"linux/arm64/v8.2", "linux/arm64/v8.3 linux/arm64/v8.1", "linux/arm64/v8.1", false},
		{"linux/arm/v6", "linux/arm/v7 linux/arm/v5", "linux/arm/v5", false},
		{"linux/arm", "linux/arm/v6 linux/arm", "linux/arm", true},
		{"linux/arm/v7", "linux/arm64", "", false},
		{"linux/386", "linux/amd64", "", false},
		{"linux/riscv64", "linux/amd64 linux/riscv64", "linux/riscv64", true},
		{"linux/amd64", "windows/amd64 unknown/unknown", "", false},
		{"linux/amd64", "linux/amd64 linux/amd64", "linux/amd64", true},
	} {
		var ix ocispec.Index
		for i, p := range strings.Fields(c.have) {
			parts := append(strings.Split(p, "/"), "")
			ix.Manifests = append(ix.Manifests, ocispec.Descriptor{
				MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(p + string(rune(i))), Size: int64(i),
				Platform: &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]},
			})
		}
		raw, err := json.Marshal(ix)
		if err != nil {
			t.Fatal(err)
		}
		want, err := ParsePlatform(c.want)
		if err != nil {
			t.Fatal(err)
		}
		d, exact, err := choose(raw, want)
		if c.chosen == "" {
			if err == nil {
				t.Errorf("%s of %s: %v", c.want, c.have, d.Platform)
			}
			continue
		}
		if err != nil || exact != c.exact || d.Digest != ix.Manifests[indexOf(c.have, c.chosen)].Digest {
			t.Errorf("%s of %s: %v, exact %v (%v)", c.want, c.have, d.Platform, exact, err)
		}
	}
}

// indexOf finds the first of the space-separated words.
func indexOf(words, word string) int {
	for i, w := range strings.Fields(words) {
		if w == word {
			return i
		}
	}
	return -1
}

func TestChooseUnnamed(t *testing.T) {
	good := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}
	attestation := good
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	raw, err := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{attestation, good}})
	if err != nil {
		t.Fatal(err)
	}
	if d, _, err := choose(raw, hostPlatform()); err != nil || d.Annotations != nil {
		t.Errorf("%+v %v", d, err)
	}
}

// FuzzManifest feeds documents through all that reads them before anything is fetched.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"`+
		someDigest+`","size":3,"platform":{"os":"linux","architecture":"amd64"}}]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"`+someDigest+`","size":3},"layers":[{"digest":"`+
		someDigest+`","size":-5,"mediaType":"application/vnd.oci.image.layer.v1.tar"}]}`), ocispec.MediaTypeImageManifest)
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`), "text/plain; charset=utf-8")
	f.Add([]byte(`{"os":"linux","rootfs":{"type":"layers","diff_ids":["`+someDigest+`"]}}`), "")
	f.Fuzz(func(t *testing.T, raw []byte, contentType string) {
		check := func(err error) {
			if err != nil && (strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 4*maxText) {
				t.Errorf("message %q", err)
			}
		}
		d, err := newDocument(raw, contentType)
		check(err)
		_, _, err = choose(raw, Platform{OS: "linux", Architecture: "arm64"})
		check(err)
		m, err := parseManifest(d)
		check(err)
		if err == nil {
			for _, l := range m.Layers {
				if l.Digest.Validate() != nil || l.Size < 0 {
					t.Errorf("layer %+v was taken", l)
				}
			}
		}
		_, err = parseConfig(raw, 1)
		check(err)
	})
}
