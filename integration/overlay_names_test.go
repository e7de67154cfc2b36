package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverlayNames mounts under each of the names that the binary answers to.
func TestOverlayNames(t *testing.T) {
	u := newUnion(t, 1)
	u.write(u.lowers[0]+"/f", "x")
	for _, test := range []struct {
		name   string
		args   []string
		source string
	}{
		{"plyfs", []string{"overlay", "-o", u.options(), u.mnt}, "plyfs"},
		{"plyfs", []string{"overlay", u.mnt, "-o", u.options()}, "plyfs"},
		{"plyfs", []string{"--log-level", "error", "overlay", "-o" + u.options(), "--", u.mnt}, "plyfs"},
		{"plyfs", []string{"overlay", "-o", "ro", "-o", u.options("rw"), "mnt"}, "plyfs"},
		{"plyfs", []string{"-o", u.options(), u.mnt}, "plyfs"}, // as containers/storage calls its mount_program
		{"fuse-overlayfs", []string{"-o", u.options(), u.mnt}, "plyfs"},
		{"/usr/bin/fuse-overlayfs", []string{"-o", u.options("fsname=source"), u.mnt}, "source"},
		{"/sbin/mount.fuse.plyfs", []string{"source", u.mnt, "-n", "-o", u.options("rw", "dev", "suid"), "-t", "fuse.plyfs"}, "source"},
		{"mount.fuse3.plyfs", []string{"none", u.mnt, "-v", "-o", u.options()}, "none"},
		{"mount.fuse", []string{"none", u.mnt, "-s", "-o", u.options("bogus", "strictatime")}, "none"},
	} {
		r := u.plyfs(test.name, test.args...)
		if r.code != 0 || r.stdout != "" {
			t.Errorf("%s %q: %+v", test.name, test.args, r)
			continue
		}
		if u.read(u.path("f")) != "x" {
			t.Errorf("%s %q: the file is not there", test.name, test.args)
		}
		if !strings.Contains(u.read("/proc/mounts"), test.source+" "+u.mnt+" fuse.plyfs rw,") {
			t.Errorf("%s %q: the source is not %s", test.name, test.args, test.source)
		}
		if sloppy := test.name == "mount.fuse"; sloppy != strings.Contains(r.stderr, "bogus") {
			t.Errorf("%s %q: says %q", test.name, test.args, r.stderr)
		}
		u.umount()
	}
}

func TestOverlayNamesRefuse(t *testing.T) {
	u := newUnion(t, 1)
	for _, test := range []struct {
		code int
		name string
		args []string
	}{
		{2, "plyfs", []string{"overlay", "-o", u.options("bogus"), u.mnt}},
		{1, "fuse-overlayfs", []string{"-o", u.options("bogus"), u.mnt}},
		{1, "fuse-overlayfs", []string{"-o", u.options()}},
		{1, "mount.fuse.plyfs", []string{"none", u.mnt, "-o", u.options("bogus")}},
		{1, "mount.fuse.plyfs", []string{u.mnt, "-o", u.options()}},
		{1, "mount.fuse.plyfs", []string{"none", u.mnt, "-o", u.options(), "-N", "/proc/1/ns/mnt"}},
		{32, "mount.fuse.plyfs", []string{"none", u.mnt + "/missing", "-o", u.options()}},
		{1, "mount.plyfs", []string{"image", u.mnt, "-o", "lowerdir=/l"}},
		{32, "mount.plyfs", []string{"image", u.mnt, "-o", "root=" + u.dir + "/store"}},
	} {
		r := u.plyfs(test.name, test.args...)
		if err := oneError(r.stderr); r.code != test.code || err != nil {
			t.Errorf("%s %q: %+v: %v", test.name, test.args, r, err)
		}
	}
	// A helper's -f only checks.
	if r := u.plyfs("mount.fuse.plyfs", "none", u.mnt, "-f", "-o", u.options()); r.code != 0 || len(mountsBelow(t, u.dir)) > 0 {
		t.Errorf("-f: %+v", r)
	}
	for _, name := range []string{"fuse-overlayfs", "mount.fuse.plyfs", "mount.plyfs"} {
		for _, args := range [][]string{{"--version"}, {"-V"}, {"--help"}, {"-h"}} {
			r := u.plyfs(name, args...)
			if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, "plyfs") && !strings.Contains(r.stdout, "usage") {
				t.Errorf("%s %q: %+v", name, args, r)
			}
		}
	}
}

// TestOverlayForeground sees -f serve until it is interrupted, and unmount then.
func TestOverlayForeground(t *testing.T) {
	u := newUnion(t, 1)
	u.write(u.lowers[0]+"/f", "x")
	for _, sig := range []os.Signal{unix.SIGINT, unix.SIGTERM} {
		cmd, wait := u.foreground("-f", "-o", u.options())
		if u.read(u.path("f")) != "x" {
			t.Error("the file is not there")
		}
		u.ok(cmd.Process.Signal(sig))
		if err := wait(); err != nil {
			t.Errorf("after %v: %v", sig, err)
		}
		if m := mountsBelow(t, u.dir); len(m) > 0 {
			t.Errorf("after %v %q is mounted", sig, m)
		}
	}
}

// TestOverlayUserNamespace mounts as root of a user namespace, as rootless podman does: marks are then user.* xattrs.
func TestOverlayUserNamespace(t *testing.T) {
	needTools(t, "unshare", "getfattr")
	u := newUnion(t, 1)
	u.write(u.lowers[0]+"/d/f", "x")
	u.write(u.lowers[0]+"/rm", "x")
	out := tool(t, "unshare", "-Urm", "sh", "-ec", fmt.Sprintf(`
%[1]s overlay -o %[2]s %[3]s
cd %[3]s; cat d/f; rm rm; rm -r d; mkdir d; echo y > d/new; ls; ls d; cd /
umount %[3]s`, plyfsBinary(), u.options("nosuid"), u.mnt))
	if want := "xd\nnew\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	if got := u.xattr(u.upper+"/d", "user.overlay.opaque"); got != "y" {
		t.Errorf("user.overlay.opaque is %q", got)
	}
	u.mount()
	if _, err := os.Stat(u.path("rm")); !os.IsNotExist(err) {
		t.Errorf("rm is back: %v", err)
	}
	if left, err := os.ReadDir(u.path("d")); err != nil || len(left) != 1 {
		t.Errorf("d holds %v, %v", left, err)
	}
}

// inNamespace runs a script where the helpers of mount(8) are the binary under test, in a mount namespace of its own.
func (u *union) inNamespace(script string) string {
	u.t.Helper()
	bin := u.dir + "/sbin"
	u.ok(os.MkdirAll(bin, 0o755))
	for _, n := range []string{"mount.plyfs", "mount.fuse.plyfs"} {
		u.ok(os.RemoveAll(filepath.Join(bin, n)))
		u.ok(os.Symlink(plyfsBinary(), filepath.Join(bin, n)))
	}
	real, err := filepath.EvalSymlinks("/sbin")
	u.ok(err)
	return tool(u.t, "unshare", "--mount", "sh", "-ec", fmt.Sprintf("mount -t overlay -o lowerdir=%s:%s overlay %s\n%s", bin, real, real, script))
}

func TestMountHelper(t *testing.T) {
	needTools(t, "unshare", "mount")
	u := newUnion(t, 1)
	u.write(u.lowers[0]+"/f", "text")
	u.write(u.dir+"/fstab", fmt.Sprintf("some\\040where %s fuse.plyfs %s,nosuid,nofail,x-a.b=c 0 0\n", u.mnt, u.options()))
	out := u.inNamespace(fmt.Sprintf(`
mount -t fuse.plyfs none %[1]s -o %[2]s
cat %[1]s/f; grep -o 'none %[1]s fuse.plyfs rw,relatime' /proc/mounts
umount %[1]s
mount -T %[3]s/fstab %[1]s
cat %[1]s/f; grep -o 'some.* %[1]s fuse.plyfs rw,nosuid' /proc/mounts
umount %[1]s
if mount -t fuse.plyfs none %[1]s -o %[2]s,strictatime 2>%[3]s/err; then echo accepted; fi
`, u.mnt, u.options(), u.dir))
	if want := "textnone " + u.mnt + " fuse.plyfs rw,relatime\ntextsome\\040where " + u.mnt + " fuse.plyfs rw,nosuid\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	if err := oneError(u.read(u.dir + "/err")); err != nil {
		t.Error(err)
	}
}

// TestMountImage mounts an image by mount(8): a name keeps the changes over mounts, ro makes none.
func TestMountImage(t *testing.T) {
	needTools(t, "unshare", "mount")
	u := newUnion(t, 0)
	s, ref := pulled(t)
	run := func(what, options, script string) string {
		t.Helper()
		return u.inNamespace(fmt.Sprintf("mount -t plyfs %s %s -o root=%s%s\ncd %s\n%s\ncd /\numount %s",
			what, u.mnt, s.root, options, u.mnt, script, u.mnt))
	}
	run(ref, ",name=web,nosuid", `grep -q "plyfs:[0-9a-f]* $PWD fuse.plyfs rw,nosuid" /proc/mounts; echo kept > new`)
	if got := run(ref, ",name=web", "cat new"); got != "kept\n" {
		t.Errorf("the second mount has %q", got)
	}
	if got := run("web", ",ro", "cat new; touch x 2>&1 || true"); !strings.HasPrefix(got, "kept\n") || !strings.Contains(got, "Read-only") {
		t.Errorf("by the name of the container, read-only: %q", got)
	}
	if got := run(ref, ",ro,name=fixed", "ls -d new x 2>&1 || true; touch x 2>&1 || true"); !strings.Contains(got, "Read-only") || strings.Contains(got, "kept") {
		t.Errorf("read-only: %q", got)
	}
	for options, want := range map[string]string{
		"name=web,bogus": "bogus", "name=web,lowerdir=/l": "lowerdir", "name=web,volatile": "volatile",
	} {
		r := u.plyfs("mount.plyfs", ref, u.mnt, "-o", "root="+s.root+","+options)
		if err := oneError(r.stderr); r.code != 1 || err != nil || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v: %v", options, r, err)
		}
	}
	r := u.plyfs("mount.plyfs", "web", u.mnt, "-o", "name=web,root="+s.root)
	if err := oneError(r.stderr); r.code != 32 || err != nil || !strings.Contains(r.stderr, "web") {
		t.Errorf("a container of another image: %+v: %v", r, err)
	}
}

// TestInstall sees `make install` put the names in place, below DESTDIR and nowhere else, and uninstall take them away.
func TestInstall(t *testing.T) {
	needTools(t, "make", "install", "man")
	dest := t.TempDir()
	tool(t, "make", "-C", "..", "install", "DESTDIR="+dest, "PREFIX=/opt/p", "BINARY="+plyfsBinary())
	for name, target := range map[string]string{"sbin/mount.plyfs": "/opt/p/bin/plyfs", "sbin/mount.fuse.plyfs": "/opt/p/bin/plyfs"} {
		if got, err := os.Readlink(filepath.Join(dest, name)); err != nil || got != target {
			t.Errorf("%s leads to %s, %v, want %s", name, got, err, target)
		}
	}
	if out := tool(t, filepath.Join(dest, "opt/p/bin/plyfs"), "version"); !strings.HasPrefix(out, "plyfs version") {
		t.Errorf("the installed binary says %q", out)
	}
	for _, name := range []string{
		"man/man1/plyfs.1", "man/man1/plyfs-image-tree.1", "bash-completion/completions/plyfs", "zsh/site-functions/_plyfs",
		"fish/vendor_completions.d/plyfs.fish",
	} {
		if _, err := os.Stat(filepath.Join(dest, "opt/p/share", name)); err != nil {
			t.Error(err)
		}
	}
	page := filepath.Join(dest, "opt/p/share/man/man8/plyfs-overlay.8")
	cmd := exec.Command("man", "--warnings", "-l", page)
	cmd.Env = append(os.Environ(), "MANWIDTH=100", "LC_ALL=C.UTF-8")
	var warnings strings.Builder
	cmd.Stderr = &warnings
	if out, err := cmd.Output(); err != nil || warnings.Len() > 0 || !strings.Contains(string(out), "squash_to_root") {
		t.Errorf("man: %v: %s", err, warnings.String())
	}
	tool(t, "make", "-C", "..", "uninstall", "DESTDIR="+dest, "PREFIX=/opt/p")
	err := filepath.WalkDir(dest, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			t.Errorf("uninstall leaves %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
