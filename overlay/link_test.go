package overlay

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// fillUp takes all inodes of a filesystem and returns a function that gives so many back.
func fillUp(t *testing.T, dir string) (free func(n int)) {
	t.Helper()
	var fill []string
	for i := 0; ; i++ {
		n := filepath.Join(dir, fmt.Sprint("fill", i))
		if err := os.WriteFile(n, nil, 0o600); err != nil {
			break
		}
		fill = append(fill, n)
	}
	return func(n int) {
		t.Helper()
		for _, f := range fill[:n] {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
		fill = fill[n:]
	}
}

// linked makes a lower file with two names.
func (r *rig) linked(a, b, content string) {
	r.Helper()
	p := r.low(0, a, content)
	q := filepath.Join(r.lowers[0], b)
	r.ok(os.MkdirAll(filepath.Dir(q), 0o755)) // #nosec G301 -- a test's own
	r.ok(os.Link(p, q))
}

func TestLowerHardLinkStaysOne(t *testing.T) {
	r := newRig(t, 1)
	r.linked("a", "d/b", "data")
	r.open()
	ino := r.attr("a").Ino
	r.write("d/b", "new")
	check := func(names ...string) {
		t.Helper()
		for _, n := range names {
			r.reads(n, "new")
			if a := r.attr(n); a.Ino != ino || int(a.Nlink) != len(names) {
				t.Errorf("%s: inode %x with %d links, want %x with %d", n, a.Ino, a.Nlink, ino, len(names))
			}
		}
	}
	check("a", "d/b")
	r.reopen()
	check("a", "d/b")
	r.link("a", "c")
	check("a", "d/b", "c")
	r.reopen()
	check("a", "d/b", "c")
	r.ok(r.rename("a", "d/e", 0))
	r.absent("a")
	check("d/e", "d/b", "c")
	r.unlink("d/b")
	r.reopen()
	check("d/e", "c")
	r.unlink("d/e")
	r.unlink("c")
	r.absent("c")
	r.reopen()
	for _, n := range []string{"a", "d/b", "d/e", "c"} {
		r.absent(n)
	}
	if left, err := os.ReadDir(filepath.Join(r.work, "plyfs-index")); err != nil || len(left) != 0 {
		t.Errorf("the index holds %v, %v", left, err)
	}
}

// TestLowerHardLinkOnFullDisk runs out of inodes at each step of the copy-up, a link being one on tmpfs.
func TestLowerHardLinkOnFullDisk(t *testing.T) {
	failed := 0
	for room := range 4 {
		r := newRigIn(t, smallFS(t, "size=1m,nr_inodes=32"), 1)
		r.linked("d/a", "d/b", "data")
		r.open()
		r.chmod("d", 0o700)
		free := fillUp(t, r.upper)
		free(room)
		id := r.id("d/a")
		if _, err := r.u.Write(id, []byte("X"), 0, false); err != nil {
			r.want(err, unix.ENOSPC)
			r.reads("d/a", "data")
			r.reads("d/b", "data")
			failed++
		}
		free(4)
		r.ok(second(r.u.Write(id, []byte("X"), 0, false)))
		for _, n := range []string{"d/a", "d/b"} {
			r.reads(n, "Xata")
			if links := r.attr(n).Nlink; links != 2 {
				t.Errorf("room for %d inodes: %s has %d links, want 2", room, n, links)
			}
		}
	}
	if failed < 2 {
		t.Errorf("%d of the steps failed, want 2 at least", failed)
	}
}

// TestIndexLost: with another work directory a copied-up hard link is a file like any other.
func TestIndexLost(t *testing.T) {
	r := newRig(t, 1)
	r.linked("a", "b", "data")
	r.open()
	r.write("a", "new")
	r.close()
	r.ok(os.RemoveAll(filepath.Join(r.work, "plyfs-index")))
	r.open()
	for range 2 {
		r.reads("b", "data")
		r.reads("a", "new")
		r.reads("b", "data")
		r.drop()
		r.reads("a", "new") // and the other way round
	}
	r.ok(r.rename("a", "c", 0))
	r.write("b", "other")
	r.reads("c", "new")
	r.reads("b", "other")
	r.unlink("c")
	r.absent("a")
}

// TestIndexOfAnotherType: an index that was tampered with is damage, not a file.
func TestIndexOfAnotherType(t *testing.T) {
	r := newRig(t, 1)
	r.linked("a", "b", "data")
	r.open()
	r.chmod("a", 0o600)
	rec, _ := r.u.tab.get(r.id("a"))
	p := r.u.indexPlace(&rec)
	r.close()
	for _, mk := range []func(p string) error{
		func(p string) error { return os.Mkdir(p, 0o700) },
		func(p string) error { return os.Symlink("/etc/passwd", p) },
		func(p string) error { return unix.Mknod(p, unix.S_IFCHR, 0) },
	} {
		at := filepath.Join(r.work, "plyfs-index", p.name)
		r.ok(os.RemoveAll(at))
		r.ok(mk(at))
		r.open()
		r.want(second(r.u.Lookup(RootID, "b", &Attr{})), ErrCorrupt)
		r.close()
	}
}

func TestTmpfileAndLink(t *testing.T) {
	r := newRig(t, 1).open()
	var a Attr
	id, err := r.u.Tmpfile(RootID, Cred{}, 0o600, &a)
	r.ok(err)
	if a.Nlink != 0 {
		t.Errorf("a file without a name has %d links", a.Nlink)
	}
	r.ok(second(r.u.Write(id, []byte("data"), 0, false)))
	again, err := r.u.Link(id, RootID, "named", &a)
	r.ok(err)
	r.held = append(r.held, id, again)
	if again != id || a.Nlink != 1 {
		t.Errorf("linked as inode %d with %d links, want %d with 1", again, a.Nlink, id)
	}
	r.reads("named", "data")
	r.reopen()
	r.reads("named", "data")
}

// TestImmutableHardLink: none of its names can be removed or replaced, those in lower layers neither.
func TestImmutableHardLink(t *testing.T) {
	r := newRig(t, 1)
	r.linked("a", "b", "data")
	r.low(0, "c", "other")
	r.open()
	r.chmod("a", 0o600)
	flags := make([]byte, 4)
	setFlags := func(v byte) {
		t.Helper()
		flags[0] = v
		if err := r.u.Ioctl(r.id("a"), IocSetFlags, flags); err != nil {
			t.Skipf("no inode flags here: %v", err)
		}
	}
	setFlags(unix.STATX_ATTR_IMMUTABLE) // FS_IMMUTABLE_FL has the same value
	defer setFlags(0)
	r.want(r.u.Unlink(RootID, "b"), unix.EPERM)
	r.want(r.rename("c", "b", 0), unix.EPERM)
	for range 2 {
		for _, n := range []string{"a", "b"} {
			r.reads(n, "data")
			if links := r.attr(n).Nlink; links != 2 {
				t.Errorf("%s has %d links, want 2", n, links)
			}
		}
		r.reads("c", "other")
		r.reopen()
	}
}
