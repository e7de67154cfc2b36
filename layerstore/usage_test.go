package layerstore

import (
	"context"
	"os"
	"testing"
	"time"
)

func TestUsage(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	shared, own, plain, stray := gzipLayer(t, 60, 3, 5000), gzipLayer(t, 61, 3, 7000), plainLayer(t, 62, 3, 9000), gzipLayer(t, 63, 1, 100)
	mustIngest(t, s, shared, own, plain, stray)
	a := putImage(t, s, refA, time.Unix(1, 0), shared, own)
	b := putImage(t, s, refB, time.Unix(2, 0), shared, plain)
	c, err := s.CreateContainer(ctx, Container{Name: "cc", Image: b.ID, Manifest: b.Manifest, Layers: []Digest{shared.spec.DiffID, plain.spec.DiffID}})
	if err != nil {
		t.Fatal(err)
	}
	upper := s.ContainerDir(c.ID) + "/upper"
	if err := os.WriteFile(upper+"/file", make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(upper+"/file", upper+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", upper+"/outside"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(dirIngest, a.ID.Encoded()+suffixPartial), make([]byte, 50), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := s.Usage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	tar := func(l testLayer) int64 {
		size, _ := isRegular(s.path(dirLayers, l.spec.DiffID.Encoded()+suffixTar))
		return size
	}
	if want := (Share{3, tar(shared) + tar(own) + tar(plain), tar(own)}); u.Layers != want {
		t.Errorf("layers %+v, want %+v", u.Layers, want)
	}
	if want := (Share{2, shared.spec.Size + own.spec.Size, shared.spec.Size + own.spec.Size}); u.Blobs != want {
		t.Errorf("blobs %+v, want %+v", u.Blobs, want)
	}
	if want := (Share{1, 50, 50}); u.Partial != want {
		t.Errorf("partial %+v, want %+v", u.Partial, want)
	}
	if u.Unreferenced.Count != 3 { // tar, index and blob
		t.Errorf("unreferenced %+v", u.Unreferenced)
	}
	if len(u.Images) != 2 || u.Images[0].Manifest != b.Manifest || u.Images[0].Containers != 1 || u.Images[1].Containers != 0 ||
		u.Images[0].Shared != tar(shared) || u.Images[1].Shared != tar(shared) {
		t.Errorf("images %+v", u.Images)
	}
	if len(u.Containers) != 1 || u.Containers[0].Size != 100 || u.Containers[0].Active {
		t.Errorf("containers %+v", u.Containers)
	}
	lock, err := s.LockContainer(c.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release() //nolint:errcheck // the store is gone then
	if u, err := s.Usage(ctx); err != nil || !u.Containers[0].Active {
		t.Errorf("a container that is served: %+v, %v", u.Containers, err)
	}
}

// TestRepairs harms a store and has each tool put it right.
func TestRepairs(t *testing.T) {
	ctx := context.Background()
	s := openStore(t)
	l, p := gzipLayer(t, 70, 3, 5000), plainLayer(t, 71, 3, 5000)
	mustIngest(t, s, l, p)
	img := putImage(t, s, refA, time.Unix(1, 0), l, p)
	c, err := s.CreateContainer(ctx, Container{Image: img.ID, Manifest: img.Manifest, Layers: []Digest{l.spec.DiffID}})
	if err != nil {
		t.Fatal(err)
	}
	diff := l.spec.DiffID.Encoded()
	ok := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		wantWhole(t, s)
	}
	harm := func(path string) {
		t.Helper()
		if err := os.WriteFile(s.path(path), []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Check(ctx); err != nil || len(r.Problems) == 0 {
			t.Errorf("%s: harmed, and Check finds %+v, %v", path, r, err)
		}
	}
	idx := dirLayers + "/" + diff + suffixIdx
	harm(idx)
	ok("index", s.RebuildIndex(ctx, l.spec.DiffID))
	tar := dirLayers + "/" + diff + suffixTar
	harm(tar)
	if err := s.DropDamaged(ctx, tar); err != nil {
		t.Fatal(err)
	}
	ok("tar", s.RestoreLayer(ctx, l.spec))
	ok("a whole file is dropped", s.DropDamaged(ctx, tar))
	harm(dirBlobs + "/stray")
	ok("stray", s.DropDamaged(ctx, dirBlobs+"/stray"))
	harm(nameLayout)
	ok("layout", s.RestoreLayout(ctx))
	harm(nameIndex)
	n, err := s.RestoreIndex(ctx)
	ok("index.json", err)
	if got, err := s.ResolveImage(ctx, string(img.Manifest)); n != 1 || err != nil || got.ID != img.ID || got.Size != img.Size {
		t.Errorf("%d images, %+v, %v", n, got, err)
	}
	if err := os.RemoveAll(s.ContainerDir(c.ID) + "/work"); err != nil {
		t.Fatal(err)
	}
	ok("container", s.RestoreContainer(c.ID))
	for _, path := range []string{"index.json", "blobs/sha256/../../index.json", "containers/x", "blobs/sha256/", "layers/sha256/.."} {
		if err := s.DropDamaged(ctx, path); err == nil {
			t.Errorf("%s was taken", path)
		}
	}
}

// TestCheckJobs checks that progress reaches the total and that a check ends with its context.
func TestCheckJobs(t *testing.T) {
	s := openStore(t)
	mustIngest(t, s, gzipLayer(t, 80, 3, 50000), plainLayer(t, 81, 3, 50000), gzipLayer(t, 82, 3, 50000))
	for _, jobs := range []int{0, 1, 3} {
		var last, total int64
		r, err := s.CheckWith(context.Background(), CheckOptions{Jobs: jobs, Progress: func(done, all int64) { last, total = done, all }})
		if err != nil || len(r.Problems) > 0 || last != total || r.Bytes != total || total == 0 {
			t.Errorf("%d jobs: %+v, %v, %d of %d", jobs, r, err, last, total)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := s.CheckWith(ctx, CheckOptions{Progress: func(int64, int64) { cancel() }}); err == nil {
		t.Error("a canceled check succeeds")
	}
}
