package integration

import (
	"archive/tar"
	"bytes"
	bits "encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// goodLayer is a small layer that nothing is wrong with.
func goodLayer(t *testing.T, text string) fakeLayer {
	t.Helper()
	return fakeLayer{tar: tarOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}, regular("etc/"+text, 1000))}
}

// noise is a layer of one file of incompressible bytes.
func noise(t *testing.T, size int64) fakeLayer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	h := regular("noise", size)
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, size)
	rnd := rand.New(rand.NewPCG(7, uint64(size)))
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return fakeLayer{tar: buf.Bytes()}
}

// hazard is a store with an image, and a registry, of which a pull fails.
type hazard struct {
	*store
	f      *fakeRegistry
	before map[string]string
	images string
	good   string
}

func newHazard(t *testing.T) *hazard {
	t.Helper()
	return hazardIn(t, newStore(t))
}

func hazardIn(t *testing.T, s *store) *hazard {
	t.Helper()
	h := &hazard{store: s, f: newFakeRegistry(t)}
	h.good = h.f.push(t, "good", goodLayer(t, "good"))
	h.ok("pull", "--quiet", h.good)
	h.before, h.images = h.files(), h.ok("images")
	return h
}

// pullFails pulls an image, which must fail, say why and leave the store as it was. kept says that the next try may
// succeed, so that layers and parts of layers that came may be kept for it.
func (h *hazard) pullFails(ref string, kept bool, want ...string) {
	h.t.Helper()
	h.fails(want, "pull", ref)
	h.unchanged(h.before, func(name string) bool {
		dir, _, _ := strings.Cut(name, "/")
		return kept && (dir == "ingest" || dir == "blobs" || dir == "layers")
	})
	if got := h.ok("images"); got != h.images {
		h.t.Errorf("images after the failed pull:\n%s\nbefore:\n%s", got, h.images)
	}
	if pids := h.processes(); len(pids) > 0 {
		h.t.Errorf("the failed pull left processes %v", pids)
	}
	m := h.mount("--name", "after", h.good)
	if _, err := os.Stat(filepath.Join(m, "etc/good")); err != nil {
		h.t.Error(err)
	}
	h.ok("umount", "after")
	h.ok("rm", "after")
	h.whole()
}

func shortDigest(digest string) string { return strings.TrimPrefix(digest, "sha256:")[:12] }

// TestRealHostileLayers pulls layers that are not what their digests say, or whose tars no tool would write.
func TestRealHostileLayers(t *testing.T) {
	good := goodLayer(t, "other").claimed()
	flipped := bytes.Clone(good.blob)
	flipped[len(flipped)/2] ^= 1
	another := goodLayer(t, "another").claimed()
	link := tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: "/etc", Mode: 0o777}
	cases := []struct {
		name  string
		layer fakeLayer
		want  []string // besides the layer's digest
	}{
		{"wrong digest", fakeLayer{tar: another.tar, digest: good.digest}, []string{"digest"}},
		{"a bit flipped", fakeLayer{tar: good.tar, blob: flipped, digest: good.digest}, nil},
		{"wrong diffID", fakeLayer{tar: good.tar, diffID: digestOf([]byte("else"))}, []string{shortDigest(digestOf([]byte("else")))}},
		{"shorter than the manifest says", fakeLayer{tar: good.tar, size: int64(len(good.blob)) + 100}, nil},
		{"longer than the manifest says", fakeLayer{tar: good.tar, size: int64(len(good.blob)) - 10}, nil},
		{"truncated gzip", truncated(good), nil},
		{"dot dot", fakeLayer{tar: tarOf(t, regular("etc/x", 1), regular("../escape", 10))}, []string{"../escape"}},
		{"dot dot inside", fakeLayer{tar: tarOf(t, regular("etc/../../escape", 10))}, []string{"etc/../../escape"}},
		{"absolute name", fakeLayer{tar: tarOf(t, regular("/etc/absolute", 10))}, []string{"/etc/absolute"}},
		{"through a symlink", fakeLayer{tar: tarOf(t, link, regular("out/passwd", 10))}, []string{"out/passwd"}},
		{"300-byte name", fakeLayer{tar: tarOf(t, regular("etc/"+strings.Repeat("n", 300), 10))}, []string{"nnnn", "255"}},
		{"negative size", fakeLayer{tar: rawTar("negative", -1000)}, []string{"negative"}},
		{"size of 2^62", fakeLayer{tar: rawTar("enormous", 1<<62)}, []string{"enormous"}},
		{"not a tar", fakeLayer{tar: bytes.Repeat([]byte("this is no tar"), 1000)}, nil},
		{"hard link out", fakeLayer{tar: tarOf(t, tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "../../etc/passwd", Mode: 0o644})}, []string{"hard"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHazard(t)
			bad := c.layer.claimed()
			ref := h.f.push(t, "bad", goodLayer(t, "below"), bad)
			// Bytes that lack may come later: those that came are kept for then.
			kept := strings.HasPrefix(c.name, "shorter")
			h.pullFails(ref, kept, append(c.want, shortDigest(bad.digest))...)
		})
	}
}

// truncated is a layer whose blob ends early, as its digest and size say.
func truncated(l fakeLayer) fakeLayer {
	return fakeLayer{tar: l.tar, blob: l.blob[:len(l.blob)-20]}
}

// rawTar is a tar of one header with a size that archive/tar does not write: base-256, GNU tar's form for large and
// negative numbers.
func rawTar(name string, size int64) []byte {
	b := make([]byte, 512, 4*512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	for i := 124; i < 128; i++ {
		if size < 0 {
			b[i] = 0xff
		}
	}
	b[124] |= 0x80
	bits.BigEndian.PutUint64(b[128:], uint64(size))
	copy(b[136:], "14500000000\x00        0")
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b[:cap(b)]
}

// TestRealGzipBomb pulls layers of a few megabytes that expand to gigabytes: in a file whose header says so, and behind
// the end of an archive, where only counting finds it.
func TestRealGzipBomb(t *testing.T) {
	needRoot(t) // the loop device bounds what a failing test can fill
	if testing.Short() {
		t.Skip("expands 2 GiB")
	}
	// A gzip stream may have many members, here of 64 MiB of zeros each.
	member := gzipped(make([]byte, 64<<20))
	var header bytes.Buffer
	enormous := regular("bomb", 64<<30)
	if err := tar.NewWriter(&header).WriteHeader(&enormous); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		begin   []byte
		members int
	}{
		{"in a file", header.Bytes(), 1024},
		{"behind the end", tarOf(t, regular("small", 10)), 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hazardIn(t, storeAt(t, filepath.Join(smallDisk(t, 6<<30), "store")))
			blob := append(gzipped(c.begin), bytes.Repeat(member, c.members)...)
			bad := fakeLayer{blob: blob, diffID: digestOf([]byte("bomb"))}.claimed()
			said := h.fails(nil, "pull", h.f.push(t, "bomb", bad))
			if strings.Contains(said, "space") || strings.Contains(said, "diffID") {
				t.Errorf("the bomb went off: it was stopped by %s", said)
			}
			h.pullFails(h.f.addr+"/bomb", false, shortDigest(bad.digest))
		})
	}
}

// TestRealUnknown names images, containers and mountpoints that are not there.
func TestRealUnknown(t *testing.T) {
	h := newHazard(t)
	h.pullFails(h.f.addr+"/no/such", false, "no/such")
	h.pullFails(h.good+":none", false, "good:none")
	h.pullFails(h.good+"@"+digestOf([]byte("none")), false, shortDigest(digestOf([]byte("none"))))
	h.pullFails("Bad Reference", false, "Bad Reference")
	h.pullFails("127.0.0.1:1/refused", false, "127.0.0.1:1")

	missing := filepath.Join(t.TempDir(), "missing")
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	for _, c := range []struct{ want, args []string }{
		{[]string{"no-such"}, []string{"mount", "no-such"}},
		{[]string{"no-such"}, []string{"umount", "no-such"}},
		{[]string{"no-such"}, []string{"rm", "no-such"}},
		{[]string{"no-such"}, []string{"rmi", "no-such"}},
		{[]string{"no-such"}, []string{"save", "-o", filepath.Join(t.TempDir(), "o"), "no-such"}},
		{[]string{missing}, []string{"mount", h.good, missing}},
		{[]string{file}, []string{"mount", h.good, file}},
		{[]string{"mars/arm64"}, []string{"pull", "--platform", "mars/arm64", h.good}},
	} {
		h.fails(c.want, c.args...)
		h.unchanged(h.before, nil)
	}
}

// TestRealBusyMountpoint mounts where something is mounted, and unmounts what is in use.
func TestRealBusyMountpoint(t *testing.T) {
	needRoot(t)
	h := newHazard(t)
	point := t.TempDir()
	h.mount("--name", "one", h.good, point)
	// The server records where it is mounted after the mount answers.
	await(t, "the mountpoint is recorded", func() bool {
		found, err := filepath.Glob(filepath.Join(h.root, "containers/*/container.json"))
		if err != nil || len(found) != 1 {
			t.Fatalf("containers: %v, %v", found, err)
		}
		text, err := os.ReadFile(found[0])
		return err == nil && strings.Contains(string(text), point)
	})
	before := h.files()
	h.fails([]string{point}, "mount", h.good, point)
	h.unchanged(before, nil)
	h.fails([]string{"one"}, "mount", "one", t.TempDir())
	h.fails([]string{"one", "umount"}, "rm", "one")
	h.fails([]string{"one"}, "mount", "--name", "one", h.good)

	used, err := os.Open(filepath.Join(point, "etc"))
	if err != nil {
		t.Fatal(err)
	}
	h.fails([]string{point, "use"}, "umount", point)
	if _, err := os.Stat(filepath.Join(point, "etc/good")); err != nil {
		t.Errorf("after a refused umount: %v", err)
	}
	if err := used.Close(); err != nil {
		t.Fatal(err)
	}
	h.ok("umount", point)
	h.fails([]string{"one"}, "umount", "one")
	h.ok("rm", "one")
	h.unchanged(h.before, nil)
}

// TestRealFullDisk pulls more than the disk takes.
func TestRealFullDisk(t *testing.T) {
	needRoot(t)
	disk := smallDisk(t, 48<<20)
	h := hazardIn(t, storeAt(t, filepath.Join(disk, "store")))
	bad := noise(t, 60<<20)
	h.pullFails(h.f.push(t, "big", goodLayer(t, "below"), bad), false, "space")
	small := h.f.push(t, "small", noise(t, 4<<20))
	h.ok("pull", "--quiet", small) // what the failed pull took is free again
}

// smallDisk is a new file system of a size, in a file, mounted for the test.
func smallDisk(t *testing.T, size int64) string {
	t.Helper()
	needTools(t, "mkfs.ext4", "mount")
	dir := t.TempDir()
	file, point := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	writeFile(t, file, "")
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.ext4", "-q", "-F", file)
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	tool(t, "mount", "-o", "loop", file, point)
	t.Cleanup(func() { tool(t, "umount", point) })
	return point
}

// TestRealRetries pulls from a registry that fails a few times, which must succeed, and from one that always fails.
func TestRealRetries(t *testing.T) {
	layer := noise(t, 3<<20).claimed()
	half := len(layer.blob) / 2
	cases := []struct {
		name  string
		fault fault
		on    string   // "" is the layer
		fails []string // empty: the pull succeeds
	}{
		{"500 twice", answer(http.StatusInternalServerError, 2), "", nil},
		{"429 once", answer(http.StatusTooManyRequests, 1, "Retry-After", "1"), "", nil},
		{"503 for the manifest", answer(http.StatusServiceUnavailable, 2), "manifest", nil},
		{"reset midway", cut(layer.blob, half, 2, true), "", nil},
		{"ends early", cut(layer.blob, half, 2, false), "", nil},
		{"hangs once", hang(1), "", nil},
		{"500 always", answer(http.StatusInternalServerError, 0), "", []string{"500"}},
		{"500 always for the manifest", answer(http.StatusInternalServerError, 0), "manifest", []string{"500"}},
		{"429 always", answer(http.StatusTooManyRequests, 0, "Retry-After", "1"), "", []string{"429"}},
		{"reset always", cut(layer.blob, 0, 0, true), "", []string{"reset"}},
		{"ends early always", cut(layer.blob, half, 0, false), "", []string{"early"}},
		{"forbidden", answer(http.StatusForbidden, 0), "", []string{"403"}},
		{"hangs always", hang(0), "", []string{"stall"}},
		{"hangs always for the manifest", hang(0), "manifest", []string{"stall"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if strings.HasPrefix(c.name, "hangs") && testing.Short() {
				t.Skip("waits for timeouts")
			}
			h := newHazard(t)
			ref := h.f.push(t, "flaky", goodLayer(t, "below"), layer)
			on := c.on
			if on == "" {
				on = layer.digest
			}
			h.f.fail(on, c.fault)
			if len(c.fails) > 0 {
				h.pullFails(ref, true, append(c.fails, h.f.addr)...)
			} else {
				h.ok("pull", ref)
				h.whole()
			}
			h.checkTries(c.name, layer.digest, half)
		})
	}
}

// checkTries looks at what the registry was asked.
func (h *hazard) checkTries(name, digest string, half int) {
	h.t.Helper()
	asked := append(h.f.asked(digest), h.f.asked("flaky/manifests/latest")...)
	h.t.Logf("asked %d times", len(asked))
	if len(asked) > 24 {
		h.t.Errorf("a registry that fails was asked %d times: %v", len(asked), asked)
	}
	if strings.Contains(name, "forbidden") && len(h.f.asked(digest)) != 1 {
		h.t.Errorf("a refusal was asked for again: %v", h.f.asked(digest))
	}
	if name != "reset midway" && name != "ends early" {
		return
	}
	// What came before the connection broke is not fetched again: the next request begins behind the beginning.
	var from int
	for _, r := range h.f.asked(digest)[1:] {
		if _, err := fmt.Sscanf(r[strings.LastIndexByte(r, ' ')+1:], "bytes=%d-", &from); err != nil || from <= 0 || from > half {
			h.t.Errorf("the broken download was carried on by %q, want a range from at most byte %d", r, half)
		}
	}
}
