package overlay

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestIDIsFreeOnlyWhenReleased: an ID that came back while the descriptor of its last inode was still cached would read
// that inode's data.
func TestIDIsFreeOnlyWhenReleased(t *testing.T) {
	r := newRig(t, 1).open()
	r.write("a", "old")
	r.drop()
	id := r.id("a")
	r.held = nil
	r.ok(second(r.readID(id)))
	gone, last := r.u.tab.forget(id, 1)
	if !last {
		t.Fatal("someone else holds the inode")
	}
	for i := range 200 {
		if n := r.create(fmt.Sprint(i)); n == id {
			t.Fatalf("ID %d is used again before its descriptor is closed", id)
		}
	}
	r.u.release(id, &gone)
	r.u.tab.free(id)
	r.u.Forget(gone.parent, 1)
}

func second[T any](_ T, err error) error { return err }

// TestDescriptorOfForgottenInode: a request may open a file and come to the cache after the file's forget.
func TestDescriptorOfForgottenInode(t *testing.T) {
	r := newRig(t, 1).open()
	r.write("a", "old")
	r.drop()
	id := r.id("a")
	rec, _ := r.u.tab.get(id)
	r.drop()
	fd, err := unix.Open(filepath.Join(r.upper, "a"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	r.ok(err)
	f := r.u.keepFD(id, rec.gen, newOpenFile(fd))
	if f.fd != fd {
		t.Errorf("got descriptor %d, want %d", f.fd, fd)
	}
	if r.u.fds.get(id) != nil {
		t.Error("the descriptor of an inode that is gone is cached")
	}
	f.Release()
	if err := unix.Close(fd); err != unix.EBADF {
		t.Errorf("the descriptor is not closed: %v", err)
	}
}

func TestTableKeepsManyApart(t *testing.T) {
	tab := newTable(record{}, &dir{})
	const n = 50_000
	ids := make([]ID, n)
	seen := map[ID]bool{RootID: true}
	same := func(*record) bool { return true }
	for round := range 3 {
		clear(seen)
		seen[RootID] = true
		for i := range ids {
			name := fmt.Sprintf("%d-%0*d", i, i%200, 0)
			id, made := tab.acquire(record{ino: uint64(i), parent: RootID}, name, nil, same)
			if !made || seen[id] {
				t.Fatalf("round %d: inode %d got ID %d, made %t, which is used: %t", round, i, id, made, seen[id])
			}
			seen[id], ids[i] = true, id
		}
		for i, id := range ids {
			rec, name, ok := tab.getNamed(id)
			if want := fmt.Sprintf("%d-%0*d", i, i%200, 0); !ok || rec.ino != uint64(i) || name != want {
				t.Fatalf("ID %d is inode %d named %q, want %d named %q", id, rec.ino, name, i, want)
			}
			if again, made := tab.acquire(record{ino: uint64(i), parent: RootID}, "x", nil, same); again != id || made {
				t.Fatalf("inode %d found again as ID %d, made %t, want %d", i, again, made, id)
			}
		}
		for _, id := range ids {
			if _, last := tab.forget(id, 1); last {
				t.Fatalf("ID %d is gone with the first of two references", id)
			}
			if _, last := tab.forget(id, 5); !last {
				t.Fatalf("ID %d is there after its last reference", id)
			}
			tab.free(id)
			tab.drop(RootID)
		}
	}
	for i := range tab.shard {
		s := &tab.shard[i]
		if len(s.buckets) != bucketsLo || s.count != 0 {
			t.Errorf("shard %d: %d buckets for %d inodes", i, len(s.buckets), s.count)
		}
		for n, c := range s.chunks {
			if c != nil && n > 0 {
				t.Errorf("shard %d keeps chunk %d", i, n)
			}
		}
	}
}

func TestGenerationTellsUsesOfAnID(t *testing.T) {
	tab := newTable(record{}, &dir{})
	seen := map[string]bool{}
	for i := range 1000 {
		id, _ := tab.acquire(record{ino: 7, parent: RootID}, "n", nil, nil)
		rec, _ := tab.get(id)
		key := fmt.Sprint(id, rec.gen)
		if seen[key] {
			t.Fatalf("use %d of ID %d has generation %d, as one before", i, id, rec.gen)
		}
		seen[key] = true
		tab.forget(id, 1)
		tab.free(id)
	}
}
