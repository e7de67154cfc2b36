package integration

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/testimage"
)

// background is a command that runs while the test goes on.
type background struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr bytes.Buffer
	ended  chan struct{} // closed when it has ended
	err    error         // how it ended
}

func (s *store) start(args ...string) *background {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	b := &background{cmd: s.command(ctx, args...), ended: make(chan struct{})}
	b.cmd.Stdout, b.cmd.Stderr = &b.stdout, &b.stderr
	if err := b.cmd.Start(); err != nil {
		cancel()
		s.t.Fatal(err)
	}
	go func() {
		b.err = b.cmd.Wait()
		close(b.ended)
		cancel()
	}()
	s.t.Cleanup(func() {
		_ = b.cmd.Process.Kill() // it may have ended
		<-b.ended
	})
	return b
}

// await waits until something happens that must happen while a command runs.
func (b *background) await(t *testing.T, event <-chan struct{}) {
	t.Helper()
	select {
	case <-event:
	case <-b.ended:
		t.Fatalf("the command ended first: %v: %s", b.err, b.stderr.String())
	case <-time.After(time.Minute):
		t.Fatal("what was waited for did not happen within a minute")
	}
}

func (b *background) mustSucceed(t *testing.T) {
	t.Helper()
	<-b.ended
	if b.err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(b.cmd.Args, " "), b.err, b.stderr.String())
	}
}

// TestRealPullKilled kills pulls with SIGKILL at several points. What was in the store stays, and each next pull carries
// on from the bytes on disk.
func TestRealPullKilled(t *testing.T) {
	registry, _ := needDebian(t)
	g := newGate(t, registry.Addr, nil)
	h := newHazard(t)
	ref := g.addr + "/debian"
	const slack = 8 << 20 // bytes that may be on their way to the disk when a pull is killed

	var came int64
	for i, more := range []int64{1 << 20, 60 << 20, 100 << 20, 40 << 20} {
		reached := g.hold(more)
		had := h.onDisk()
		pull := h.start("pull", ref)
		pull.await(t, reached)
		// Give what was sent the time to reach the disk: nothing else tells the test so.
		h.awaitOnDisk(had + more - slack)
		if err := pull.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-pull.ended
		g.release()
		passed, ranges := g.count()
		t.Logf("pull %d: %d bytes, ranges %v", i, passed, ranges)
		if i > 1 && len(ranges) == 0 {
			t.Errorf("pull %d asked for no range: it began anew", i)
		}
		came += passed
		h.whole()
		for name, was := range h.before {
			if is := h.files()[name]; is != was {
				t.Errorf("kill -9 changed %s from %s to %s", name, was, is)
			}
		}
		if got := h.ok("images"); got != h.images {
			t.Errorf("images after kill -9:\n%s\nbefore:\n%s", got, h.images)
		}
	}
	h.ok("pull", "--quiet", ref)
	passed, ranges := g.count()
	img, err := testimage.Debian(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	total := blobBytes(t, img.Layout)
	t.Logf("the last pull: %d bytes of %d, ranges %v", passed, total, ranges)
	if most := total - came + 4*slack; passed > most {
		t.Errorf("the last pull fetched %d bytes, want at most %d: %d of %d were there", passed, most, came, total)
	}
	h.whole()
	h.finishKilled(ref)
}

// finishKilled checks that nothing of the killed pulls is left and that the image is whole.
func (h *hazard) finishKilled(ref string) {
	h.t.Helper()
	for name := range h.files() {
		if strings.HasPrefix(name, "ingest/") {
			h.t.Errorf("after the pull %s is left", name)
		}
	}
	m := h.mount("--name", "after", "--read-only", ref)
	pulled := tree(h.t, m)
	h.ok("umount", "after")
	h.ok("rm", "after")
	img, err := testimage.Debian(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	bundle := filepath.Join(h.t.TempDir(), "bundle")
	tool(h.t, "umoci", "unpack", "--image", img.Layout+":"+img.Name, bundle)
	sameTree(h.t, tree(h.t, filepath.Join(bundle, "rootfs")), pulled)
}

// onDisk counts the bytes of compressed layers that the store has, whole or in part.
func (s *store) onDisk() int64 {
	s.t.Helper()
	var have int64
	for _, pattern := range []string{"ingest/*.partial", "blobs/sha256/*"} {
		found, err := filepath.Glob(filepath.Join(s.root, pattern))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, path := range found {
			if info, err := os.Stat(path); err == nil { // else it was renamed meanwhile
				have += info.Size()
			}
		}
	}
	return have
}

// awaitOnDisk waits until onDisk is that much, at most a few seconds: how much is on its way is not known.
func (s *store) awaitOnDisk(want int64) {
	s.t.Helper()
	for end := time.Now().Add(5 * time.Second); s.onDisk() < want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Logf("%d bytes are on disk, less than %d", s.onDisk(), want)
			return
		}
	}
}

// blobBytes is the size of all blobs of a layout.
func blobBytes(t *testing.T, layout string) int64 {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(layout, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, path := range found {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size()
	}
	return sum
}

// TestRealPullInterrupted ends a pull with SIGINT, as Ctrl-C does.
func TestRealPullInterrupted(t *testing.T) {
	h := newHazard(t)
	layer := noise(t, 8<<20)
	ref := h.f.push(t, "slow", layer)
	g := newGate(t, "", h.f)
	reached := g.hold(2 << 20)
	pull := h.start("pull", g.addr+strings.TrimPrefix(ref, h.f.addr))
	pull.await(t, reached)
	if err := pull.cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-pull.ended
	if pull.err == nil {
		t.Error("an interrupted pull exits with status 0")
	}
	if code := pull.cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("an interrupted pull ends with %v, want exit status 130", pull.cmd.ProcessState)
	}
	h.unchanged(h.before, func(name string) bool { return strings.HasPrefix(name, "ingest/") })
	g.release()
}

// TestRealPullTwice pulls one image by two processes at once: both succeed, and no layer is fetched twice.
func TestRealPullTwice(t *testing.T) {
	h := newHazard(t)
	layers := []fakeLayer{noise(t, 6<<20).claimed(), noise(t, 5<<20).claimed(), goodLayer(t, "small").claimed()}
	ref := h.f.push(t, "twice", layers...)
	g := newGate(t, "", h.f)
	ref = g.addr + strings.TrimPrefix(ref, h.f.addr)
	reached := g.hold(3 << 20)
	first := h.start("pull", ref)
	first.await(t, reached)
	second := h.start("pull", "--quiet", ref)
	// The gate opens once the second pull has asked for the manifest too; from there it can only wait or fetch.
	h.awaitAsked("/manifests/", 3)
	g.release()
	first.mustSucceed(t)
	second.mustSucceed(t)
	for _, l := range layers {
		if n := g.fetched[l.digest]; n != 1 {
			t.Errorf("layer %s was fetched %d times, want once", shortDigest(l.digest), n)
		}
	}
	h.whole()
	if n := strings.Count(h.ok("images"), "twice"); n != 1 {
		t.Errorf("the image pulled twice is listed %d times", n)
	}
}

// awaitAsked waits until the registry has been asked for n paths that contain a text.
func (h *hazard) awaitAsked(text string, n int) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		h.f.mu.Lock()
		seen := 0
		for _, r := range h.f.requests {
			if strings.Contains(r, text) {
				seen++
			}
		}
		h.f.mu.Unlock()
		if seen >= n {
			return
		}
	}
	h.t.Fatalf("the registry was not asked %d times for %s", n, text)
}

// TestRealPullDuringMount mounts, lists and unmounts while a pull is held up half-way: none of them waits for it.
func TestRealPullDuringMount(t *testing.T) {
	needMount(t)
	h := newHazard(t)
	ref := h.f.push(t, "slow", noise(t, 6<<20))
	g := newGate(t, "", h.f)
	reached := g.hold(2 << 20)
	pull := h.start("pull", g.addr+strings.TrimPrefix(ref, h.f.addr))
	pull.await(t, reached)

	m := h.mount("--name", "meanwhile", h.good)
	writeFile(t, filepath.Join(m, "etc/new"), "new")
	if got := h.ok("images"); got != h.images {
		t.Errorf("images during a pull:\n%s\nbefore:\n%s", got, h.images)
	}
	other := h.f.push(t, "other", goodLayer(t, "other"))
	h.ok("pull", "--quiet", other)
	h.ok("rmi", other)
	h.ok("umount", "meanwhile")
	m = h.mount("meanwhile")
	if text, err := os.ReadFile(filepath.Join(m, "etc/new")); err != nil || string(text) != "new" {
		t.Errorf("the file written is %q, %v", text, err)
	}
	g.release()
	pull.mustSucceed(t)
	h.ok("umount", m)
	h.ok("rm", "meanwhile")
	h.whole()
}
