package overlay

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func (r *rig) xattr(path, name string) (string, error) {
	buf := make([]byte, 4096)
	n, err := r.u.GetXattr(r.id(path), name, buf)
	return string(buf[:max(n, 0)]), err
}

// TestMarksAreHidden: what the union notes in xattrs is neither seen nor changed through it.
func TestMarksAreHidden(t *testing.T) {
	r := newRig(t, 1)
	r.low(0, "d/f", "data")
	r.open()
	r.chmod("d/f", 0o600)
	r.ok(r.rename("d", "e", 0))
	for _, p := range []string{"e", "e/f"} {
		buf := make([]byte, 4096)
		n, err := r.u.ListXattr(r.id(p), buf)
		r.ok(err)
		if strings.Contains(string(buf[:n]), "overlay") || strings.Contains(string(buf[:n]), "plyfs") {
			t.Errorf("%s lists %q", p, buf[:n])
		}
		for _, name := range []string{"trusted.overlay.redirect", "trusted.overlay.metacopy", "trusted.overlay.plyfs.origin"} {
			r.want(second(r.xattr(p, name)), unix.ENODATA)
			r.want(r.u.RemoveXattr(r.id(p), name), unix.ENODATA)
			r.ok(r.u.SetXattr(r.id(p), name, []byte("/nowhere"), 0)) // a mark of another union, in this one
		}
		r.want(r.u.SetXattr(r.id(p), "user.plyfs.layer", []byte("x"), 0), unix.EPERM)
		r.want(r.u.RemoveXattr(r.id(p), "user.plyfs.layer"), unix.EPERM)
	}
	r.reopen()
	r.reads("e/f", "data")
}

func TestXattrsComeUp(t *testing.T) {
	r := newRig(t, 1)
	p := r.low(0, "f", "data")
	big := strings.Repeat("v", 3000)
	r.ok(unix.Setxattr(p, "user.big", []byte(big), 0))
	r.ok(unix.Setxattr(p, "trusted.t", []byte("t"), 0))
	r.open()
	for range 2 {
		for name, want := range map[string]string{"user.big": big, "trusted.t": "t"} {
			if got, err := r.xattr("f", name); got != want || err != nil {
				t.Errorf("%s is %.20q, %v", name, got, err)
			}
		}
		n, err := r.u.GetXattr(r.id("f"), "user.big", nil)
		if n != len(big) || err != nil {
			t.Errorf("its length is %d, %v", n, err)
		}
		r.want(second(r.u.GetXattr(r.id("f"), "user.big", make([]byte, 10))), unix.ERANGE)
		r.chmod("f", 0o600)
	}
	r.want(r.u.SetXattr(r.id("f"), "user.big", nil, unix.XATTR_CREATE), unix.EEXIST)
	r.want(r.u.RemoveXattr(r.id("f"), "user.none"), unix.ENODATA)
}
