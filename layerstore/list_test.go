package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImageList, which reads index.json alone, must tell the same of every image as Images, which reads the images.
func TestImageListAgreesWithImages(t *testing.T) {
	ctx := context.Background()
	s, l := openStore(t), gzipLayer(t, 50, 3, 5000)
	mustIngest(t, s, l)
	lost := putImage(t, s, refA, time.Unix(1_700_000_000, 5), l)
	putImage(t, s, refB, time.Unix(1_800_000_000, 0), l)
	putImage(t, s, "", time.Time{}, l)
	if err := s.TagImage(ctx, refB, refC); err != nil {
		t.Fatal(err)
	}
	ix, err := s.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	delete(ix.entries[1].desc.Annotations, annotationID) // as if another tool had put it there
	if err := s.writeIndex(ix); err != nil {
		t.Fatal(err)
	}
	full, err := s.Images(ctx)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.ImageList(ctx)
	if err != nil || len(list) != 3 || len(full) != 3 {
		t.Fatalf("%d in the list, %d images, %v", len(list), len(full), err)
	}
	for i, img := range full {
		want := ImageSummary{ID: img.ID, Manifest: img.Manifest, Names: img.Names, RepoDigests: img.RepoDigests, Created: img.Created.UTC(), Size: img.Size}
		got := list[i]
		got.Created = got.Created.UTC()
		if len(got.Names) == 0 {
			got.Names, want.Names = nil, nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the list has %+v, the images %+v", got, want)
		}
	}
	if err := os.Remove(s.path(dirBlobs, lost.Manifest.Encoded())); err != nil {
		t.Fatal(err)
	}
	if list, err := s.ImageList(ctx); err != nil || len(list) != 3 {
		t.Errorf("%d in the list after an image lost its manifest, want 3, %v", len(list), err)
	}
	if _, err := s.ResolveImage(ctx, refA); !errors.Is(err, ErrNotFound) {
		t.Errorf("the damaged image: %v", err)
	}
}

func BenchmarkImageList(b *testing.B) {
	s := openStore(b)
	ix := &index{}
	for i := range 10_000 {
		d := digest.FromString(strconv.Itoa(i))
		name := fmt.Sprintf("registry.example.org/team/project-%d", i)
		ix.entries = append(ix.entries, &entry{
			manifest: d, names: []string{name + ":latest"}, repoDigests: []string{name + "@" + d.String()},
			desc: v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: d, Size: 1000, Annotations: map[string]string{
				annotationID: digest.FromString("config" + strconv.Itoa(i)).String(), annotationSize: "1000000",
				v1.AnnotationCreated: time.Unix(int64(i), 0).UTC().Format(time.RFC3339Nano),
			}},
		})
	}
	if err := s.writeIndex(ix); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if list, err := s.ImageList(context.Background()); err != nil || len(list) != 10_000 {
			b.Fatal(len(list), err)
		}
	}
}
