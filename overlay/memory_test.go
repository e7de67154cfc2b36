package overlay

import (
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// countless is a layer of one directory that holds any file whose name is a number.
type countless struct{ Layer }

func (countless) ID() uint64   { return 1 }
func (countless) Forget(Entry) {}
func (countless) Close() error { return nil }

func (countless) Lookup(_ Entry, name string) (Item, error) {
	n, err := strconv.ParseUint(name[len(name)-7:], 10, 64)
	if err != nil {
		return Item{}, unix.ENOENT
	}
	return Item{Entry: Entry(n + 1), Ino: n + 1, Mode: unix.S_IFREG}, nil
}

func (countless) Attr(e Entry, a *Attr) error {
	*a = Attr{Ino: uint64(e), Mode: unix.S_IFREG | 0o644, Nlink: 1}
	if e == RootEntry {
		a.Mode = unix.S_IFDIR | 0o755
	}
	return nil
}

// heap is what the program holds, bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one found to be finalised or pooled
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) // #nosec G115 -- below 2^63
}

// TestMemoryOfAMillionFiles: a file that the kernel knows may cost 150 bytes, and nothing once it is forgotten.
func TestMemoryOfAMillionFiles(t *testing.T) {
	const (
		files   = 1_000_000
		perFile = 150
		slack   = 1 << 20
	)
	u, err := New(Config{Lowers: []Layer{countless{}}})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]ID, files)
	empty := heap()
	for i := range ids {
		var a Attr
		// Names as long as those of a Debian root filesystem are on average.
		name := "python3-" + strconv.Itoa(10_000_000 + i)[1:]
		if ids[i], err = u.Lookup(RootID, name, &a); err != nil {
			t.Fatal(err)
		}
	}
	if got := (heap() - empty) / files; got > perFile {
		t.Errorf("an inode takes %d bytes, want at most %d", got, perFile)
	} else {
		t.Logf("an inode takes %d bytes", got)
	}
	for _, id := range ids {
		u.Forget(id, 1)
	}
	if got := heap() - empty; got > slack {
		t.Errorf("%d bytes are kept after all was forgotten, want at most %d", got, slack)
	}
	runtime.KeepAlive(ids)
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
}
