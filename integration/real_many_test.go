package integration

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/integration/testimage"
)

// needLayers pulls the image of 100 layers with that many files each into a new store.
func needLayers(t *testing.T, filesPerLayer int) (*store, string) {
	t.Helper()
	needRoot(t)
	if testing.Short() {
		t.Skip("makes an image of 100 layers")
	}
	needTools(t, "umoci", "skopeo", "docker-registry")
	img, err := testimage.ManyLayers(t.Context(), filesPerLayer)
	_, ref := served(t, img, err)
	s := newStore(t)
	s.ok("pull", "--quiet", ref)
	return s, ref
}

// TestRealManyLayers compares the tree of 100 layers with what umoci unpacks.
func TestRealManyLayers(t *testing.T) {
	s, ref := needLayers(t, 10)
	m := s.mount("--name", "many", "--read-only", ref)
	img, err := testimage.ManyLayers(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(t.TempDir(), "bundle")
	tool(t, "umoci", "unpack", "--image", img.Layout+":"+img.Name, bundle)
	want := tree(t, filepath.Join(bundle, "rootfs"))
	got := tree(t, m)
	// No layer lists the root and own: their times are those of the unpacking.
	for _, implied := range []string{".", "own"} {
		e := want[implied]
		e.mtime = got[implied].mtime
		want[implied] = e
	}
	for name, e := range want {
		if dir, _ := filepath.Split(name); dir == "own/" || strings.Count(name, "/") == 2 && strings.HasPrefix(name, "own/") {
			e.mtime = got[name].mtime
			want[name] = e
		}
	}
	sameTree(t, want, got)
	s.ok("umount", "many")
}

// work is what a mount cost.
type work struct {
	calls  map[string]int // system calls by name
	read   int64          // bytes that read calls returned
	faults int64          // page faults of the server, minor and major
	mapped int64          // bytes of files that the server has mapped and in memory
}

// TestRealMountWork compares what it takes to mount 100 layers of 10 files and 100 layers of 4,000: system calls, bytes
// read and what is touched of the mapped indexes must not grow with the files.
func TestRealMountWork(t *testing.T) {
	needTools(t, "strace")
	few, fewRef := needLayers(t, 10)
	many, manyRef := needLayers(t, 4000)
	a, b := few.mountWork(fewRef), many.mountWork(manyRef)
	t.Logf("100 layers of 10 files: %+v", a)
	t.Logf("100 layers of 4000 files: %+v", b)
	// What touches files and memory maps must not be more often; the Go runtime's own calls vary from run to run.
	for _, call := range []string{"openat", "openat2", "open", "read", "pread64", "preadv", "fstat", "newfstatat", "statx", "lseek", "getdents64", "readlinkat"} {
		const noise = 10
		if b.calls[call] > a.calls[call]+noise {
			t.Errorf("%s: %d calls for 400,000 files, %d for 1,000", call, b.calls[call], a.calls[call])
		}
	}
	if b.read > a.read+64<<10 {
		t.Errorf("%d bytes read for 400,000 files, %d for 1,000", b.read, a.read)
	}
	// What is touched of an index does not grow with it. But with a page that is touched the kernel maps up to 16 around it,
	// of which a short index has fewer: that is two such windows a layer, or three faults.
	const layers, window = 100, 64 << 10
	if most := a.mapped + 2*layers*window; b.mapped > most {
		t.Errorf("%d bytes of mapped files for 400,000 files, %d for 1,000, want at most %d", b.mapped, a.mapped, most)
	}
	if most := a.faults + 3*layers; b.faults > most {
		t.Errorf("%d page faults for 400,000 files, %d for 1,000, want at most %d", b.faults, a.faults, most)
	}
}

// mountWork mounts an image under strace, then again without it for the page faults.
func (s *store) mountWork(ref string) work {
	s.t.Helper()
	log := filepath.Join(s.t.TempDir(), "trace")
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "strace", "-f", "-qq", "-e", "signal=none", "-o", log,
		plyfsBinary(), "--root", s.root, "mount", "--name", "traced", ref)
	// strace goes on until the server ends, which holds no end of this pipe.
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.t.Errorf("plyfs mount under strace printed %q: %v", line, err)
	}
	s.ok("umount", "traced")
	if err := cmd.Wait(); err != nil {
		s.t.Fatalf("strace: %v", err)
	}
	s.ok("rm", "traced")

	w := readTrace(s.t, log)
	m := s.mount("--name", "counted", ref)
	w.faults, w.mapped = pageFaults(s.t, s.server(m)), statusBytes(s.t, s.server(m), "RssFile")
	s.ok("umount", "counted")
	s.ok("rm", "counted")
	return w
}

var traceLine = regexp.MustCompile(`^\d+ +(?:<\.\.\. )?([a-z0-9_]+)(?:\(| resumed>).*= (-?\d+)`)

// readTrace sums up a log of strace -f. A call that was interrupted counts where it resumed.
func readTrace(t *testing.T, path string) work {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := work{calls: map[string]int{}}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		found := traceLine.FindStringSubmatch(lines.Text())
		if found == nil {
			continue
		}
		w.calls[found[1]]++
		if n, err := strconv.ParseInt(found[2], 10, 64); err == nil && n > 0 && strings.Contains(found[1], "read") && found[1] != "readlinkat" {
			w.read += n
		}
	}
	if w.calls["mount"]+w.calls["fsmount"]+w.calls["openat"] == 0 {
		t.Error("the trace shows no mount: this test tests nothing")
	}
	return w
}

// pageFaults are those of a process so far: fields 10 and 12 of /proc/PID/stat, proc(5).
func pageFaults(t *testing.T, pid int) int64 {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after) // field 3 is the first
	var sum int64
	for _, i := range []int{10 - 3, 12 - 3} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// TestRealMountMemory mounts one image 20 times: each server stays below 25 MiB resident, at rest and after its tree was
// walked.
func TestRealMountMemory(t *testing.T) {
	_, ref := needDebian(t)
	s := newStore(t)
	s.ok("pull", "--quiet", ref)
	const (
		mounts = 20
		most   = 25 << 20
	)
	var points []string
	for i := range mounts {
		points = append(points, s.mount("--name", fmt.Sprintf("m%d", i), ref))
	}
	var worst int64
	for _, m := range points {
		rss := statusBytes(t, s.server(m), "VmRSS")
		if worst = max(worst, rss); rss >= most {
			t.Errorf("the server of %s has %d bytes resident, want less than %d", m, rss, most)
		}
	}
	t.Logf("at rest: at most %.1f MiB resident", float64(worst)/(1<<20))
	tool(t, "find", points[0], "-printf", "")
	walked := s.server(points[0])
	// Resident counts what all 20 share, the binary and the indexes, for each of them; the proportional size does not.
	rss, pss := memoryBytes(t, walked, "smaps_rollup", "Rss"), memoryBytes(t, walked, "smaps_rollup", "Pss")
	t.Logf("after find: %.1f MiB resident, %.1f MiB in proportion", float64(rss)/(1<<20), float64(pss)/(1<<20))
	if pss >= most {
		t.Errorf("after find the server has %d bytes of its own, want less than %d", pss, most)
	}
	for _, m := range points {
		s.ok("umount", m)
	}
}

// statusBytes is a value of /proc/PID/status.
func statusBytes(t *testing.T, pid int, key string) int64 {
	t.Helper()
	return memoryBytes(t, pid, "status", key)
}

// memoryBytes is a value of a file of /proc/PID that counts in KiB.
func memoryBytes(t *testing.T, pid int, file, key string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("no %s in /proc/%d/%s", key, pid, file)
	return 0
}
