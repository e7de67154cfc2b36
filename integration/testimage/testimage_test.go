package testimage

import (
	"os"
	"testing"
)

// TestImages makes every image, so that a failing recipe says so here and not in the midst of another test.
func TestImages(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making images needs root")
	}
	if testing.Short() {
		t.Skip("making images takes minutes")
	}
	ctx := t.Context()
	for _, make := range []func() (Image, error){
		func() (Image, error) { return Debian(ctx) },
		func() (Image, error) { return Bench(ctx) },
		func() (Image, error) { return ManyLayers(ctx, 10) },
		func() (Image, error) { return ManyLayers(ctx, 4000) },
	} {
		img, err := make()
		if err != nil {
			t.Fatal(err)
		}
		r, err := StartRegistry(ctx, img.Storage, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := run(ctx, "skopeo", "inspect", "--tls-verify=false", "docker://"+r.Addr+"/"+img.Name); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
