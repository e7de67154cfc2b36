package mountopt

import (
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestManualHasAllOptions: each option that is known, honoured or not, has its place in the manual.
func TestManualHasAllOptions(t *testing.T) {
	b, err := os.ReadFile("../../man/plyfs-overlay.8")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`\-`, "-", `"`, " ").Replace(string(b))
	for _, options := range []map[string]setter{overlayOptions, fuseOptions, genericOptions, imageOptions} {
		for _, name := range slices.Sorted(maps.Keys(options)) {
			there, err := regexp.MatchString(`(^|[\s,])`+regexp.QuoteMeta(name)+`(=|[\s,.;:|]|$)`, text)
			if err != nil {
				t.Fatal(err)
			}
			if !there {
				t.Errorf("the manual says nothing of %s", name)
			}
		}
	}
}

// TestNoPeersOptionIsUnknown: what fuse-overlayfs and the kernel take is honoured, or refused for a reason. Those that
// are refused are listed, so that none comes to be by mistake.
func TestNoPeersOptionIsUnknown(t *testing.T) {
	refused := map[string]bool{
		"plugins=a": true, "fast_ino=1": true, "uuid=on": true, "verity=on": true, "datadir+=/d": true,
		"nooverride_creds": true, "auto_unmount": true, "clone_fd": true,
	}
	for _, o := range strings.Fields(`
		lowerdir=/a:/b lowerdir+=/c datadir+=/d upperdir=/u workdir=/w default_permissions redirect_dir=on redirect_dir=follow
		redirect_dir=nofollow redirect_dir=off index=on index=off uuid=auto uuid=null uuid=off uuid=on nfs_export=on
		nfs_export=off userxattr xino=on xino=off xino=auto metacopy=on metacopy=off verity=off verity=on volatile
		override_creds nooverride_creds
		uidmapping=0:1:2 gidmapping=0:1:2 timeout=1 threaded=1 fsync=0 fsync=1 writeback=1 noxattrs=0 plugins=a fast_ino=1
		xattr_permissions=0 xattr_permissions=1 xattr_permissions=2 squash_to_root squash_to_uid=1 squash_to_gid=1
		static_nlink noacl ino32_t allow_other clone_fd auto_unmount max_write=65536 context=a:b:c:d
		ro rw suid nosuid dev nodev exec noexec atime noatime diratime nodiratime relatime sync async dirsync fsname=x`) {
		_, _, err := Overlay([]string{"lowerdir=/l,upperdir=/u,workdir=/w," + o}, false)
		switch {
		case refused[o] && !errors.Is(err, ErrUnsupported):
			t.Errorf("%s, which is not supported: %v", o, err)
		case !refused[o] && err != nil:
			t.Errorf("%s: %v", o, err)
		case refused[o] && !strings.Contains(err.Error(), ": "):
			t.Errorf("%s is refused for no reason: %v", o, err)
		}
	}
}
