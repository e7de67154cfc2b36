package integration

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverlayOwners compares whom files belong to with fuse-overlayfs, in the mount and in the upper directory.
func TestOverlayOwners(t *testing.T) {
	needTools(t, "fuse-overlayfs")
	for _, option := range []string{
		"rw",
		"uidmapping=0:1000:1:1:110000:65536,gidmapping=0:1000:1:1:110000:65536",
		"uidmapping=0:1000:10,gidmapping=5:20:3:0:100:2",
		"uidmapping=1000:0:5",
		"squash_to_root",
		"squash_to_uid=7",
		"squash_to_uid=7,squash_to_gid=8",
		"squash_to_root,squash_to_gid=9",
		"squash_to_uid=3,uidmapping=0:1000:10",
	} {
		want := ownersUnder(t, "fuse-overlayfs", option)
		got := ownersUnder(t, "plyfs", option)
		if !slices.Equal(got, want) {
			t.Errorf("%s:\nplyfs          %q\nfuse-overlayfs %q", option, got, want)
		}
	}
}

// ownersUnder does the same to a new union and tells whom all belongs to.
func ownersUnder(t *testing.T, kind, option string) []string {
	u := newUnion(t, 1)
	owners := map[string]int{"zero": 0, "one": 1, "six": 6, "thousand": 1000, "far": 70000}
	names := []string{"zero", "one", "six", "thousand", "far"}
	for n, id := range owners {
		u.write(u.lowers[0]+"/"+n, n)
		u.ok(os.Chown(u.lowers[0]+"/"+n, id, id))
	}
	u.mountWith(kind, option)
	var all []string
	tell := func(what, dir string) {
		for _, n := range names {
			var st unix.Stat_t
			if err := unix.Lstat(dir+"/"+n, &st); err != nil {
				if !errors.Is(err, unix.ENOENT) {
					t.Fatal(err)
				}
				continue
			}
			all = append(all, fmt.Sprintf("%s %s %d:%d", what, n, st.Uid, st.Gid))
		}
	}
	tell("lower", u.mnt)
	for n := range owners {
		u.ok(os.Chmod(u.path(n), 0o640))
	}
	tell("copied up", u.mnt)
	for _, c := range []struct {
		name     string
		uid, gid int
	}{{"zero", 1000, 1001}, {"one", 2, -1}, {"six", -1, 110002}, {"thousand", 0, 0}, {"far", 110005, 20}} {
		u.ok(os.Chown(u.path(c.name), c.uid, c.gid))
	}
	u.write(u.path("new"), "")
	u.ok(os.Mkdir(u.path("newdir"), 0o755))
	names = append(names, "new", "newdir")
	tell("changed", u.mnt)
	u.umount()
	tell("kept", u.upper)
	return all
}

// TestOverlayMapsACLs sees the owners that an ACL names mapped like any other.
func TestOverlayMapsACLs(t *testing.T) {
	needTools(t, "setfacl", "getfacl")
	u := newUnion(t, 1)
	u.write(u.lowers[0]+"/f", "x")
	tool(t, "setfacl", "-m", "u:3:r,g:4:rw", u.lowers[0]+"/f")
	u.mount("uidmapping=0:1000:100", "gidmapping=0:2000:100")
	want := "user::rw-\nuser:1003:r--\ngroup::r--\ngroup:2004:rw-\nmask::rw-\nother::r--\n\n"
	if got := tool(t, "getfacl", "-cn", u.path("f")); got != want {
		t.Errorf("shown: %q, want %q", got, want)
	}
	tool(t, "setfacl", "-m", "u:1005:rwx", u.path("f"))
	want = "user::rw-\nuser:3:r--\nuser:5:rwx\ngroup::r--\ngroup:4:rw-\nmask::rwx\nother::r--\n\n"
	if got := tool(t, "getfacl", "-cn", u.upper+"/f"); got != want {
		t.Errorf("kept: %q, want %q", got, want)
	}
}
