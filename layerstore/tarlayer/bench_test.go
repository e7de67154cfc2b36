package tarlayer

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/overlay"
)

func genName(i, perDir int) string {
	return fmt.Sprintf("usr/share/package-%d/file-number-%d.txt", i/perDir, i)
}

func benchLayer(b *testing.B) *Layer {
	return open(b, manyFiles(b, 20000))
}

func BenchmarkLookup(b *testing.B) {
	l := benchLayer(b)
	dir := find(b, l, "usr/share/d7").Entry
	for b.Loop() {
		if _, err := l.Lookup(dir, "file-777"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAttr(b *testing.B) {
	l := benchLayer(b)
	e := find(b, l, "usr/share/d7/file-777").Entry
	var a overlay.Attr
	for b.Loop() {
		if err := l.Attr(e, &a); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadDir(b *testing.B) {
	l := benchLayer(b)
	dir := find(b, l, "usr/share/d7").Entry
	buf := make([]overlay.DirEntry, 100)
	for b.Loop() {
		if n, err := l.ReadDir(dir, 0, buf); err != nil || n != 100 {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkBuild gives the speed over an archive of small files, and over one of large ones.
func BenchmarkBuild(b *testing.B) {
	for _, c := range []struct{ n, size int }{{50000, 1}, {5000, 64 << 10}} {
		archive, err := io.ReadAll(newGenerator(c.n, 100, c.size))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%d-files-of-%d", c.n, c.size), func(b *testing.B) {
			f, err := os.CreateTemp(b.TempDir(), "index")
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			b.SetBytes(int64(len(archive)))
			for b.Loop() {
				if _, err := Build(bytes.NewReader(archive), f, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(c.n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

// rss returns the process's resident memory, and the most it had since the last reset, in bytes.
func rss(t *testing.T) (now, peak int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &now); err == nil {
			now *= 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &peak); err == nil {
			peak *= 1024
		}
	}
	return now, peak
}

// TestMillionFiles builds the index of a million files, in directories of 100 and all in one, within the memory that
// Build's documentation states. Set PLYFS_BIG to run it.
func TestMillionFiles(t *testing.T) {
	if os.Getenv("PLYFS_BIG") == "" {
		t.Skip("PLYFS_BIG is not set")
	}
	const n = 1000000
	for _, perDir := range []int{100, n, 1} {
		f, err := os.CreateTemp(t.TempDir(), "index")
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		debug.FreeOSMemory()
		before, _ := rss(t)
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // resets VmHWM
			t.Skip(err)
		}
		begin := time.Now()
		st, err := Build(newGenerator(n, perDir, 1), f, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(begin)
		_, peak := rss(t)
		size := len(contents(t, f))
		t.Logf("%d to a directory: %d entries, %d MB of tar in %v; %.1f MiB more resident, %.1f bytes an entry; index %.1f bytes an entry",
			perDir, st.Entries, st.Size>>20, took, float64(peak-before)/(1<<20), float64(peak-before)/float64(st.Entries), float64(size)/float64(st.Entries))
		if peak-before > 64<<20 && perDir > 1 {
			t.Errorf("building took %d bytes of memory", peak-before)
		}
		f.Close()
	}
}
