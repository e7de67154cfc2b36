package integration

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// shownAs tells owners, modes and kinds as a tree shows them.
func (u *union) shownAs(dir string, names ...string) []string {
	u.t.Helper()
	var all []string
	for _, n := range names {
		st := u.stat(dir + "/" + n)
		if st.Mode&unix.S_IFMT != unix.S_IFCHR {
			st.Rdev = 0
		}
		all = append(all, fmt.Sprintf("%s %d:%d %o %x", n, st.Uid, st.Gid, st.Mode, st.Rdev))
	}
	return all
}

func wantShown(t *testing.T, what string, want, got []string) {
	t.Helper()
	if !slices.Equal(want, got) {
		t.Errorf("%s shows\n%q, want\n%q", what, got, want)
	}
}

// give makes files whose owners and modes differ from what the server could give them.
func (u *union) give(prefix string, special bool) []string {
	u.t.Helper()
	u.write(u.path(prefix+"file"), "x")
	u.ok(os.Chown(u.path(prefix+"file"), 12, 34))
	u.ok(unix.Chmod(u.path(prefix+"file"), 0o4711))
	u.ok(os.Mkdir(u.path(prefix+"dir"), 0o755))
	u.ok(os.Chown(u.path(prefix+"dir"), 56, 78))
	u.ok(unix.Chmod(u.path(prefix+"dir"), 0o1700))
	if !special {
		return []string{prefix + "file", prefix + "dir"}
	}
	u.ok(unix.Mknod(u.path(prefix+"null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))) // #nosec G115 -- small
	u.ok(unix.Mkfifo(u.path(prefix+"fifo"), 0o755))
	return []string{prefix + "file", prefix + "dir", prefix + "null", prefix + "fifo"}
}

// TestOverlayXattrPermissions has plyfs and fuse-overlayfs go on with the owners that the other keeps in xattrs.
func TestOverlayXattrPermissions(t *testing.T) {
	needTools(t, "fuse-overlayfs")
	for _, option := range []string{"xattr_permissions=1", "xattr_permissions=2"} {
		t.Run(option, func(t *testing.T) {
			u := newUnion(t, 1)
			u.write(u.lowers[0]+"/low", "low")
			u.ok(os.Chown(u.lowers[0]+"/low", 5, 6))

			u.mountWith("fuse-overlayfs", option)
			names := u.give("theirs-", option == "xattr_permissions=2") // with 1 it fails to
			u.ok(os.Chown(u.path("low"), 7, 8))
			names = append(names, "low")
			want := u.shownAs(u.mnt, names...)
			u.umount()
			if st := u.stat(u.upper + "/theirs-file"); st.Uid != 0 {
				t.Fatalf("the owner is in the inode: %d", st.Uid)
			}

			// The upper directory itself tells that its owners are in xattrs.
			u.mount()
			wantShown(t, "plyfs", want, u.shownAs(u.mnt, names...))
			u.umount()
			u.mount(option)
			wantShown(t, "plyfs -o "+option, want, u.shownAs(u.mnt, names...))
			ours := u.give("ours-", true)[:2] // it does not know what stands for a device
			u.ok(os.Chown(u.path("theirs-file"), 1, 2))
			u.ok(os.Link(u.path("ours-file"), u.path("hard")))
			names = append(names, append(ours, "hard")...)
			want = u.shownAs(u.mnt, names...)
			for _, n := range names {
				list := make([]byte, 1024)
				if n, err := unix.Llistxattr(u.path(n), list); err != nil || n != 0 {
					t.Errorf("xattrs of %s show: %q, %v", names, list[:max(n, 0)], err)
				}
			}
			u.wantErrno(unix.EPERM, unix.Setxattr(u.path("ours-file"), "user.containers.override_stat", []byte("0:0:777"), 0), "setting an override")
			u.umount()

			u.mountWith("fuse-overlayfs", option)
			wantShown(t, "fuse-overlayfs", want, u.shownAs(u.mnt, names...))
			u.umount()

			u.asPermissionLayer(want, names)
		})
	}
}

// asPermissionLayer shows the upper directory as the layer below another.
func (u *union) asPermissionLayer(want, names []string) {
	u.t.Helper()
	layered := *u
	layered.lowers = append([]string{u.upper}, u.lowers...)
	layered.upper, layered.work = u.dir+"/upper2", u.dir+"/work2"
	u.ok(os.Mkdir(layered.upper, 0o755))
	u.ok(os.Mkdir(layered.work, 0o755))
	for _, kind := range []string{"plyfs", "fuse-overlayfs"} {
		layered.mountWith(kind)
		wantShown(u.t, kind+", from a layer", want, u.shownAs(u.mnt, names...))
		layered.umount()
	}
	layered.mount() // copies up into a directory that keeps owners in its inodes
	for _, n := range names {
		u.ok(unix.UtimesNanoAt(unix.AT_FDCWD, u.path(n), []unix.Timespec{{Sec: 1}, {Sec: 1}}, unix.AT_SYMLINK_NOFOLLOW))
	}
	wantShown(u.t, "plyfs, copied up", want, u.shownAs(u.mnt, names...))
	layered.umount()
	if last := len(names) - 1; names[last] != "hard" {
		u.t.Fatalf("the last name is %s", names[last])
	} else { // which is in the index alone
		wantShown(u.t, "the upper directory", want[:last], u.shownAs(layered.upper, names[:last]...))
	}
}

// TestOverlayStandIns reads what containers/storage and later versions of fuse-overlayfs let a file stand for.
func TestOverlayStandIns(t *testing.T) {
	u := newUnion(t, 1)
	low := u.lowers[0]
	u.ok(unix.Setxattr(low, "user.containers.override_stat", []byte("0:0:0755:dir"), 0))
	for n, v := range map[string]string{
		"char": "1:2:0640:char-1-3", "char2": "1:2:640:char1:3", "block": "3:4:0600:block-7-1", "pipe": "5:6:0644:pipe",
		"sock": "7:8:0755:socket", "old": "9:10:100755", "suid": "11:12:4755:file", "zero": "0:0:0600:char-0-0",
	} {
		u.write(low+"/"+n, "")
		u.ok(unix.Setxattr(low+"/"+n, "user.containers.override_stat", []byte(v), 0))
	}
	u.write(low+"/link", "to/there")
	u.ok(unix.Setxattr(low+"/link", "user.containers.override_stat", []byte("13:14:0777:symlink"), 0))
	u.write(low+"/bad", "")
	u.ok(unix.Setxattr(low+"/bad", "user.containers.override_stat", []byte("x"), 0))
	u.write(low+"/caps", "")
	u.ok(unix.Setxattr(low+"/caps", "user.containers.override_security.foo", []byte("bar"), 0))
	names := []string{"char", "char2", "block", "pipe", "sock", "old", "suid", "link", "zero"}
	want := []string{
		"char 1:2 20640 103", "char2 1:2 20640 103", "block 3:4 60600 0", "pipe 5:6 10644 0", "sock 7:8 140755 0",
		"old 9:10 100755 0", "suid 11:12 104755 0", "link 13:14 120777 0", "zero 0:0 20600 0",
	}
	for _, option := range []string{"xattr_permissions=2", "xattr_permissions=0"} {
		u.mount(option)
		wantShown(t, "lower", want, u.shownAs(u.mnt, names...))
		entries, err := os.ReadDir(u.mnt)
		u.ok(err)
		for _, e := range entries {
			if i := slices.Index(names, e.Name()); i >= 0 {
				if st := u.stat(u.path(e.Name())); unixType(e.Type()) != st.Mode&unix.S_IFMT {
					t.Errorf("%s is listed as %v", e.Name(), e.Type())
				}
			}
		}
		target, err := os.Readlink(u.path("link"))
		u.ok(err)
		if v := u.xattr(u.path("caps"), "security.foo"); target != "to/there" || v != "bar" {
			t.Errorf("link to %q, security.foo=%q", target, v)
		}
		_, err = os.Lstat(u.path("bad"))
		u.wantErrno(unix.EIO, err, "a damaged override")
		if option == "xattr_permissions=0" { // it shows what a device takes privilege to be
			u.umount()
			break
		}
		for _, n := range names {
			u.ok(os.Lchown(u.path(n), 1, 1))
			u.ok(os.Rename(u.path(n), u.path(n+"-up")))
		}
		for i := range want {
			var uid, gid, mode, dev int
			var n string
			_, err := fmt.Sscanf(want[i], "%s %d:%d %o %x", &n, &uid, &gid, &mode, &dev)
			u.ok(err)
			if n == "suid" {
				mode &^= unix.S_ISUID
			}
			got := u.shownAs(u.mnt, n+"-up")[0]
			if w := fmt.Sprintf("%s-up 1:1 %o %x", n, mode, dev); got != w {
				t.Errorf("copied up: %s, want %s", got, w)
			}
			if st := u.stat(u.upper + "/" + n + "-up"); st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != 0 {
				t.Errorf("%s-up is %o of %d in the upper directory, want a regular file of 0", n, st.Mode, st.Uid)
			}
		}
		target, err = os.Readlink(u.path("link-up"))
		u.ok(err)
		if target != "to/there" {
			t.Errorf("copied-up link to %q", target)
		}
		u.umount()
		u.ok(os.RemoveAll(u.upper))
		u.ok(os.RemoveAll(u.work))
		u.ok(os.Mkdir(u.upper, 0o755))
		u.ok(os.Mkdir(u.work, 0o755))
	}
}

// unixType is the S_IFMT bits of a listing's type.
func unixType(m os.FileMode) uint32 {
	return map[os.FileMode]uint32{
		os.ModeDir: unix.S_IFDIR, os.ModeSymlink: unix.S_IFLNK, os.ModeNamedPipe: unix.S_IFIFO, os.ModeSocket: unix.S_IFSOCK,
		os.ModeDevice: unix.S_IFBLK, os.ModeDevice | os.ModeCharDevice: unix.S_IFCHR, 0: unix.S_IFREG,
	}[m.Type()]
}
