package tarlayer

import (
	"bytes"
	"errors"
	"testing"

	"github.com/plyfs/plyfs/overlay"
)

// damaged builds an archive, lets damage change its index, and opens it with checksums that are right again.
func damaged(t *testing.T, damage func(b []byte, h *fileHeader), ents ...ent) *Layer {
	t.Helper()
	f, st, err := build(t, makeTar(t, ents...), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	b := contents(t, f)
	h, _ := decodeHeader(b)
	damage(b, &h)
	l, err := openPair(t, repairIndex(b), st.Size)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// recordOf returns the record of an inode of the first chunk.
func recordOf(b []byte, h *fileHeader, n uint32) []byte {
	return b[le.Uint32(b[h.chunkTable:])+n*inodeSize:][:inodeSize]
}

// nameOf returns a name record.
func nameOf(b []byte, h *fileHeader, n uint32) []byte {
	return b[h.childTable+n*childSize:][:childSize]
}

func mustBeCorrupt(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, overlay.ErrCorrupt) {
		t.Errorf("%s: %v, want ErrCorrupt", what, err)
	}
}

// TestMovedDirectory changes where directories say that they are.
func TestMovedDirectory(t *testing.T) {
	for n := uint32(1); n <= 3; n++ {
		l := damaged(t, func(b []byte, h *fileHeader) {
			r := recordOf(b, h, n)
			le.PutUint32(r[8:], le.Uint32(r[8:])+1) // its parent
		}, ent{name: "a/b/c", typ: dirT})
		_, err := walkAll(l)
		mustBeCorrupt(t, "walk", err)
		mustBeCorrupt(t, "Verify", l.Verify())
	}
}

// TestTwiceListed lists a directory two times, with different cookies.
func TestTwiceListed(t *testing.T) {
	l := damaged(t, func(b []byte, h *fileHeader) {
		copy(nameOf(b, h, 1), nameOf(b, h, 0))
		le.PutUint64(nameOf(b, h, 1), le.Uint64(nameOf(b, h, 0))+1)
	}, ent{name: "a", typ: dirT}, ent{name: "b", typ: dirT})
	_, err := l.ReadDir(0, 0, make([]overlay.DirEntry, 5))
	mustBeCorrupt(t, "ReadDir", err)
	mustBeCorrupt(t, "Verify", l.Verify())
}

// TestVerifyFields changes one field of a record at a time, each of which Verify alone checks.
func TestVerifyFields(t *testing.T) {
	for name, damage := range map[string]func(b []byte, h *fileHeader){
		"nlink of a directory": func(b []byte, h *fileHeader) { recordOf(b, h, 1)[40]++ },
		"nlink of a file":      func(b []byte, h *fileHeader) { recordOf(b, h, 2)[40]++ },
		"size of a file":       func(b []byte, h *fileHeader) { recordOf(b, h, 2)[0]++ },
		"data of a file":       func(b []byte, h *fileHeader) { recordOf(b, h, 2)[11]++ },
		"target of a symlink":  func(b []byte, h *fileHeader) { recordOf(b, h, 3)[8] = 0xff; recordOf(b, h, 3)[10] = 0xff },
		"type in a name":       func(b []byte, h *fileHeader) { nameOf(b, h, 0)[17] ^= 8 },
		"flags in a name":      func(b []byte, h *fileHeader) { nameOf(b, h, 0)[18] ^= 3 },
		"names of a directory": func(b []byte, h *fileHeader) { recordOf(b, h, 0)[4]-- },
		"opaque directory":     func(b []byte, h *fileHeader) { recordOf(b, h, 1)[30] ^= 2 },
	} {
		l := damaged(t, damage, ent{name: "d", typ: dirT}, ent{name: "d/f", data: "x"}, ent{name: "s", typ: symT, link: "t"})
		mustBeCorrupt(t, name, l.Verify())
	}
	if err := damaged(t, func([]byte, *fileHeader) {}, ent{name: "d", typ: dirT}).Verify(); err != nil {
		t.Error(err)
	}
}

// TestDeadInode writes into the record of a file that was replaced.
func TestDeadInode(t *testing.T) {
	f, st, err := build(t, makeTar(t, ent{name: "a"}, ent{name: "a"}), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	b := contents(t, f)
	h, _ := decodeHeader(b)
	b[le.Uint32(b[h.chunkTable:])+inodeSize+32] = 1 // its uid
	l, err := openPair(t, repairIndex(b), st.Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Verify(); !errors.Is(err, overlay.ErrCorrupt) {
		t.Error(err)
	}
}

// TestUnsorted exchanges two names of a listing.
func TestUnsorted(t *testing.T) {
	f, st, err := build(t, makeTar(t, ent{name: "a"}, ent{name: "b"}, ent{name: "c"}), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	b := contents(t, f)
	h, _ := decodeHeader(b)
	recs := b[h.childTable:]
	var first [childSize]byte
	copy(first[:], recs)
	copy(recs, recs[childSize:2*childSize])
	copy(recs[childSize:], first[:])
	l, err := openPair(t, repairIndex(b), st.Size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.ReadDir(0, 0, make([]overlay.DirEntry, 5)); !errors.Is(err, overlay.ErrCorrupt) {
		t.Errorf("ReadDir: %v", err)
	}
	if err := l.Verify(); !errors.Is(err, overlay.ErrCorrupt) {
		t.Errorf("Verify: %v", err)
	}
}

// TestDirectoryCycle damages an index so that following its directories would never end.
func TestDirectoryCycle(t *testing.T) {
	f, st, err := build(t, makeTar(t, ent{name: "a/b/c", typ: dirT}), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	good := contents(t, f)
	h, _ := decodeHeader(good)
	hit := 0
	for i := range h.children {
		for to := range h.inodes {
			b := bytes.Clone(good)
			le.PutUint32(b[h.childTable+i*childSize+12:], to)
			l, err := openPair(t, repairIndex(b), st.Size)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(b, good) {
				continue
			}
			hit++
			if _, err := walkAll(l); !errors.Is(err, overlay.ErrCorrupt) {
				t.Errorf("name %d made inode %d: %v", i, to, err)
			}
			if err := l.Verify(); !errors.Is(err, overlay.ErrCorrupt) {
				t.Errorf("name %d made inode %d: Verify: %v", i, to, err)
			}
		}
	}
	if hit < 6 {
		t.Errorf("only %d cases", hit)
	}
}
