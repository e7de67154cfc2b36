package layerstore

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// What scanIndex takes, encoding/json must read as the same.
func FuzzScanIndex(f *testing.F) {
	ix := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	ix.SchemaVersion = 2
	seed := func() {
		b, err := json.Marshal(ix)
		if err != nil {
			f.Fatal(err)
		}
		if got, ok := scanIndex(b); !ok || !reflect.DeepEqual(got.Manifests, ix.Manifests) && len(ix.Manifests) > 0 {
			f.Errorf("%s is read as %+v, %v", b, got, ok)
		}
		f.Add(b)
	}
	seed()
	d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 12}
	ix.Manifests = []v1.Descriptor{d, d}
	seed()
	ix.Manifests[1].Annotations = map[string]string{annotationName: "a/b:c", annotationID: "ü"}
	seed()
	for _, s := range []string{
		"", "{}", `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"x":1}`,
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"a\u0062","digest":"d","size":1}]}`,
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"a","digest":"d","size":01}]}`,
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"a","digest":"d","size":1},]}`,
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"a","digest":"d","size":-0}]}`,
	} {
		if _, ok := scanIndex([]byte(s)); ok {
			f.Errorf("%s is taken", s)
		}
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := scanIndex(b)
		if !ok {
			return
		}
		var want v1.Index
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatalf("%s is taken: %v", b, err)
		}
		if len(got.Manifests)+len(want.Manifests) == 0 {
			return
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v\nwant\n%+v", got, want)
		}
	})
}
