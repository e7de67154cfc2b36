package overlay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLookupOfDots(t *testing.T) {
	r := newRig(t, 2)
	r.low(0, "a/b/f", "")
	r.low(1, "a/b/g", "")
	r.low(1, "c/x", "")
	r.open()
	a, b, c, f := r.id("a"), r.id("a/b"), r.id("c"), r.id("a/b/f")
	check := func(id ID, name string, want ID, wantErr error) {
		t.Helper()
		var at Attr
		got, err := r.u.Lookup(id, name, &at)
		r.want(err, wantErr)
		if err == nil {
			r.held = append(r.held, got)
		}
		if got != want {
			t.Errorf("%d/%s is %d, want %d", id, name, got, want)
		}
	}
	check(b, ".", b, nil)
	check(f, ".", f, nil) // the kernel asks so for the inode of a file handle
	check(f, "..", 0, unix.ENOTDIR)
	check(b, "..", a, nil)
	check(a, "..", RootID, nil)
	check(RootID, ".", RootID, nil)
	check(RootID, "..", RootID, nil)
	check(12345, ".", 0, unix.ESTALE)
	r.ok(r.rename("a/b", "c/b", 0))
	check(b, "..", c, nil)
}

func TestNamesThatAreNone(t *testing.T) {
	r := newRig(t, 1)
	r.low(0, "f", "")
	r.open()
	for name, want := range map[string]error{
		"": unix.EINVAL, ".": unix.EINVAL, "..": unix.EINVAL, "a/b": unix.EINVAL, "../f": unix.EINVAL, "a\x00": unix.EINVAL,
		strings.Repeat("n", 256): unix.ENAMETOOLONG,
	} {
		var a Attr
		if name != "." && name != ".." {
			r.want(second(r.u.Lookup(RootID, name, &a)), want)
		}
		r.want(second(r.u.Mknod(RootID, name, Cred{}, unix.S_IFREG, 0, &a)), want)
		r.want(second(r.u.Mkdir(RootID, name, Cred{}, 0, &a)), want)
		r.want(second(r.u.Symlink(RootID, name, "t", Cred{}, &a)), want)
		r.want(second(r.u.Link(r.id("f"), RootID, name, &a)), want)
		r.want(r.u.Unlink(RootID, name), want)
		r.want(r.u.Rmdir(RootID, name), want)
		r.want(r.u.Rename(RootID, "f", RootID, name, 0), want)
		r.want(r.u.Rename(RootID, name, RootID, "f", 0), want)
	}
	long := strings.Repeat("n", 255)
	r.write(long, "x")
	r.reads(long, "x")
}

// TestRedirectsStayInTheLayers: whoever fills a directory that becomes a layer may set user.* marks in it.
func TestRedirectsStayInTheLayers(t *testing.T) {
	for _, to := range []string{"../../secret", "..", ".", "a/../../../secret", "/../secret", "/", "", "/a//b", "a/b"} {
		for _, where := range []string{"upper", "lower"} {
			t.Run(where+" "+to, func(t *testing.T) {
				if to == "" && where == "upper" {
					t.Skip("kernel overlayfs takes it for none")
				}
				r := newRig(t, 2)
				base := filepath.Dir(r.lowers[1])
				r.ok(os.Mkdir(filepath.Join(base, "secret"), 0o700))
				r.low(1, "d/f", "f")
				p := filepath.Join(r.lowers[0], "d")
				if where == "upper" {
					p = filepath.Join(r.upper, "d")
				}
				r.ok(os.Mkdir(p, 0o700))
				r.ok(unix.Setxattr(p, "trusted.overlay.redirect", []byte(to), 0))
				r.open()
				if _, _, err := r.find("d"); err == nil {
					t.Errorf("it leads to a directory that holds %q", r.list("d"))
				}
			})
		}
	}
}

// TestOpaqueAmongManyXattrs: the names of xattrs may be longer than the buffer that most fit.
func TestOpaqueAmongManyXattrs(t *testing.T) {
	for _, where := range []string{"upper", "lower"} {
		r := newRig(t, 2)
		r.low(1, "d/f", "")
		p := filepath.Join(r.lowers[0], "d")
		if where == "upper" {
			p = filepath.Join(r.upper, "d")
		}
		r.ok(os.Mkdir(p, 0o700))
		for i := range 20 {
			r.ok(unix.Setxattr(p, "user."+strings.Repeat("k", 80)+string(rune('a'+i)), []byte("1"), 0))
		}
		r.ok(unix.Setxattr(p, "trusted.overlay.opaque", []byte("y"), 0))
		r.open()
		r.absent("d/f")
	}
}

// spy calls a function before each listing of a layer.
type spy struct {
	Layer
	readDir func()
}

func (s spy) ReadDir(e Entry, after uint64, buf []DirEntry) (int, error) {
	s.readDir()
	return s.Layer.ReadDir(e, after, buf)
}

// TestLookupHoldsNoLockForAttributes: counting a directory's subdirectories takes that directory's lock, which a rename
// may hold that waits for the parent's.
func TestLookupHoldsNoLockForAttributes(t *testing.T) {
	r := newRig(t, 2)
	r.low(0, "d/s/f", "")
	r.low(1, "d/t/f", "")
	listed := false
	r.wrap = func(l Layer) Layer {
		return spy{l, func() {
			listed = true
			root := r.u.tab.dir(RootID)
			if !root.mu.TryLock() {
				t.Error("the parent is locked while its child is listed")
				return
			}
			root.mu.Unlock()
		}}
	}
	r.open()
	if n := r.attr("d").Nlink; n != 4 {
		t.Errorf("nlink is %d, want 4", n)
	}
	if !listed {
		t.Error("the directory was not listed")
	}
}

// TestUpperMarksOfOthers: marks that no union could have left do not break it.
func TestUpperMarksOfOthers(t *testing.T) {
	for name, value := range map[string]string{
		"nlink": "U+1", "impure": "\x00", "opaque": strings.Repeat("y", 200), "origin": "x",
	} {
		for _, v := range []string{value, "", "U-5", "U+99999999999", "U+x", "L+1"} {
			r := newRig(t, 1)
			p := filepath.Join(r.upper, "f")
			r.ok(os.WriteFile(p, []byte("x"), 0o600))
			r.ok(unix.Setxattr(p, "trusted.overlay."+name, []byte(v), 0))
			r.open()
			var a Attr
			r.ok(r.u.GetAttr(r.id("f"), &a))
			if a.Nlink != 1 {
				t.Errorf("%s=%q: nlink is %d, want 1", name, v, a.Nlink)
			}
			r.reads("f", "x")
			r.ok(r.rename("f", "g", 0))
			r.unlink("g")
			r.absent("g")
		}
	}
}

// finder calls a function before each lookup in a layer.
type finder struct {
	Layer
	lookup func(name string)
}

func (f finder) Lookup(e Entry, name string) (Item, error) {
	f.lookup(name)
	return f.Layer.Lookup(e, name)
}

// TestCopyUpDuringLookup: a file whose attributes alone are in the upper layer is completed, and forgotten, after a
// lookup has seen that its data are not there.
func TestCopyUpDuringLookup(t *testing.T) {
	r := newRig(t, 1)
	r.low(0, "f", "data")
	between := func() {}
	r.wrap = func(l Layer) Layer {
		return finder{l, func(string) {
			f := between
			between = func() {}
			f()
		}}
	}
	r.open()
	r.chmod("f", 0o600)
	r.drop()
	between = func() {
		var a Attr
		id, err := r.u.Lookup(RootID, "f", &a)
		r.ok(err)
		r.ok(second(r.u.Write(id, []byte("D"), 0, false)))
		r.u.Forget(id, 1)
	}
	r.reads("f", "Data")
}
