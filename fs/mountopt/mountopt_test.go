package mountopt

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/fs"
	"github.com/plyfs/plyfs/overlay"
)

func overlayOf(t *testing.T, args ...string) Options {
	t.Helper()
	o, left, err := Overlay(append([]string{"lowerdir=/l"}, args...), false)
	if err != nil || len(left) != 0 {
		t.Fatalf("%q: %v, left %v", args, err, left)
	}
	return o
}

func TestDirectories(t *testing.T) {
	for _, test := range []struct {
		arg   string
		lower []string
	}{
		{`lowerdir=/a`, []string{"/a"}},
		{`lowerdir=/a:b:/c d`, []string{"/a", "b", "/c d"}},
		{`lowerdir=/a\:b:/c`, []string{"/a:b", "/c"}},
		{`lowerdir=/a\,b:/c\\d`, []string{"/a,b", `/c\d`}},
		{`lowerdir=/a=b`, []string{"/a=b"}},
		{`lowerdir=/a,lowerdir=/b`, []string{"/b"}},
		{`lowerdir+=/a:b,lowerdir+=/c`, []string{"/a:b", "/c"}},
		{`lowerdir=/a,lowerdir+=/b\,c`, []string{"/a", "/b,c"}},
	} {
		o, _, err := Overlay([]string{test.arg}, false)
		if err != nil || !slices.Equal(o.Lowers, test.lower) {
			t.Errorf("%s: %q, %v, want %q", test.arg, o.Lowers, err, test.lower)
		}
	}
	o := overlayOf(t, `upperdir=/u\,1,workdir=/w\:1`, "fsname=x")
	if o.Upper != "/u,1" || o.Work != "/w:1" || o.Source != "x" {
		t.Errorf("%+v", o)
	}
}

// TestRefusals looks at options that are an error, of which each says what it is about.
func TestRefusals(t *testing.T) {
	for arg, want := range map[string]error{
		"bogus": ErrUnknown, "bogus=1": ErrUnknown, "x": ErrUnknown, "LOWERDIR=/a": ErrUnknown,
		"datadir+=/d": ErrUnsupported, "lowerdir=/a::/b": ErrUnsupported, "lowerdir=/a:": ErrInvalid,
		"lowerdir=": ErrInvalid, `lowerdir=/a\`: ErrInvalid, "lowerdir=:/a": ErrInvalid, "upperdir=": ErrInvalid, "upperdir": ErrInvalid,
		"redirect_dir=maybe": ErrInvalid, "redirect_dir": ErrInvalid, "metacopy=1": ErrInvalid, "index": ErrInvalid,
		"xino=yes": ErrInvalid, "uuid=on": ErrUnsupported,
		"verity=on": ErrUnsupported, "verity=require": ErrUnsupported, "nooverride_creds": ErrUnsupported,
		"userxattr=1": ErrInvalid, "volatile": ErrInvalid, "upperdir=/u": ErrInvalid, "workdir=/w": ErrInvalid,
		"userxattr,metacopy=on": ErrInvalid, "userxattr,redirect_dir=on": ErrInvalid,
		"upperdir=/u,workdir=/w,metacopy=on,redirect_dir=off": ErrInvalid,
		"plugins=/p": ErrUnsupported, "fast_ino=1": ErrUnsupported,
		"xattr_permissions=3": ErrInvalid, "timeout=abc": ErrInvalid, "timeout=-1": ErrInvalid, "timeout=": ErrInvalid,
		"timeout=NaN": ErrInvalid, "timeout=1e300": ErrInvalid, "fsync=2": ErrInvalid, "noxattrs=on": ErrInvalid,
		"squash_to_uid=x": ErrInvalid, "squash_to_uid=-1": ErrInvalid, "squash_to_uid=4294967295": ErrInvalid,
		"squash_to_root=1": ErrInvalid,
		"uidmapping=1:2":   ErrInvalid, "uidmapping=0:0:0": ErrInvalid, "uidmapping=": ErrInvalid,
		"uidmapping=0:0:10:5:20:1": ErrInvalid, "gidmapping=0:5:10:20:9:2": ErrInvalid,
		"gidmapping=4294967290:0:10": ErrInvalid, "gidmapping=a:b:c": ErrInvalid,
		"auto_unmount": ErrUnsupported, "clone_fd": ErrUnsupported, "max_threads=4": ErrUnsupported,
		"subtype=other": ErrInvalid, "max_write=1": ErrInvalid, "max_read=99999999": ErrInvalid,
		"remount": ErrUnsupported, "bind": ErrUnsupported, "mand": ErrUnsupported, "strictatime": ErrUnsupported,
		"lazytime": ErrUnsupported, "iversion": ErrUnsupported, "ro=1": ErrInvalid, "context=": ErrInvalid,
		"name=x": ErrUnknown, "root=/x": ErrUnknown, "a\x00b": ErrInvalid, strings.Repeat("x", MaxLength+1): ErrInvalid,
	} {
		_, _, err := Overlay([]string{"lowerdir=/l", arg}, false)
		if !errors.Is(err, want) {
			t.Errorf("%.80q: error %v, want %v", arg, err, want)
			continue
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%.80q: more than one line: %v", arg, err)
		}
	}
	if _, _, err := Overlay([]string{"ro"}, false); !errors.Is(err, ErrInvalid) {
		t.Errorf("without lowerdir: %v", err)
	}
}

func TestMeaning(t *testing.T) {
	base := overlayOf(t)
	sec := func(d time.Duration) *time.Duration { return &d }
	with := func(f func(o *Options)) Options {
		o := base
		f(&o)
		return o
	}
	for arg, want := range map[string]Options{
		"redirect_dir=on":          base,
		"redirect_dir=follow":      with(func(o *Options) { o.Union.Redirect = overlay.RedirectFollow }),
		"redirect_dir=off":         with(func(o *Options) { o.Union.Redirect = overlay.RedirectFollow }),
		"redirect_dir=nofollow":    with(func(o *Options) { o.Union.Redirect = overlay.RedirectNoFollow }),
		"metacopy=on":              with(func(o *Options) { o.Union.NoMetacopy = false }),
		"metacopy=on,metacopy=off": base,
		"index=off":                with(func(o *Options) { o.Union.NoIndex = true }),
		"index=on":                 with(func(o *Options) { o.Union.KernelIndex = true }),
		"nfs_export=off":           base,
		"nfs_export=on":            with(func(o *Options) { o.Union.KeepNodes = true }),
		"uuid=null":                base,
		"verity=off":               base,
		"static_nlink":             with(func(o *Options) { o.Union.StaticNlink = true }),
		"userxattr": with(func(o *Options) {
			o.Union.UserXattr, o.Union.Redirect = true, overlay.RedirectNoFollow
		}),
		"xino=on":    base,
		"xino=auto":  base,
		"xino=off":   with(func(o *Options) { o.FS.Inodes = fs.InodesPlain }),
		"ino32_t":    with(func(o *Options) { o.FS.Inodes = fs.Inodes32 }),
		"noacl":      with(func(o *Options) { o.FS.NoACL = true }),
		"noxattrs=1": with(func(o *Options) { o.FS.NoXattrs = true }),
		"noxattrs=0": base,
		"fsync=0":    with(func(o *Options) { o.FS.NoSync = true }),
		"fsync=1":    base,
		"timeout=2.5": with(func(o *Options) {
			o.FS.EntryTimeout, o.FS.AttrTimeout, o.FS.NegativeTimeout = sec(2500*time.Millisecond), sec(2500*time.Millisecond), sec(2500*time.Millisecond)
		}),
		"attr_timeout=0":  with(func(o *Options) { o.FS.AttrTimeout = sec(0) }),
		"squash_to_root":  with(func(o *Options) { o.FS.SquashUID, o.FS.SquashGID = id(0), id(0) }),
		"squash_to_uid=7": with(func(o *Options) { o.FS.SquashUID = id(7) }),
		"squash_to_gid=8,squash_to_root": with(func(o *Options) {
			o.FS.SquashUID, o.FS.SquashGID = id(0), id(8)
		}),
		"uidmapping=0:1000:1:1:110000:65536": with(func(o *Options) {
			o.FS.UIDs = fs.IDMap{{Kept: 0, Shown: 1000, Count: 1}, {Kept: 1, Shown: 110000, Count: 65536}}
		}),
		"gidmapping=0:1:2":    with(func(o *Options) { o.FS.GIDs = fs.IDMap{{Kept: 0, Shown: 1, Count: 2}} }),
		"allow_other":         with(func(o *Options) { o.AllowOther = true }),
		"debug":               with(func(o *Options) { o.FS.Debug = true }),
		"writeback=0":         with(func(o *Options) { o.FS.NoWriteback = true }),
		"threaded=0":          with(func(o *Options) { o.FS.SingleThread = true }),
		"max_write=65536":     with(func(o *Options) { o.FS.MaxWrite = 65536 }),
		"ro":                  with(func(o *Options) { o.ReadOnly = true }),
		"ro,rw":               base,
		"nosuid,nodev,noexec": with(func(o *Options) { o.FS.Flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC }),
		"nosuid,suid":         base,
		"user,exec":           with(func(o *Options) { o.FS.Flags = unix.MS_NOSUID | unix.MS_NODEV }),
		"noatime,nodiratime":  with(func(o *Options) { o.FS.Flags = unix.MS_NOATIME | unix.MS_NODIRATIME }),
		"rw,relatime":         with(func(o *Options) { o.FS.Flags = unix.MS_RELATIME }),
		"sync,dirsync":        with(func(o *Options) { o.FS.Flags = unix.MS_SYNCHRONOUS | unix.MS_DIRSYNC }),
		"rw,dev,suid,,_netdev,nofail,x-systemd.automount,X-mount.mkdir=0755,comment=a b,noauto,defaults,default_permissions": base,
		`context="system_u:object_r:x_t:s0:c1,c2",ro`: with(func(o *Options) {
			o.FS.Context, o.ReadOnly = []string{`context="system_u:object_r:x_t:s0:c1,c2"`}, true
		}),
	} {
		got := overlayOf(t, arg)
		got.set, want.set = nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v, want\n%+v", arg, got, want)
		}
	}
	o := overlayOf(t, "upperdir=/u,workdir=/w,volatile")
	if !o.Union.Volatile || !o.FS.NoSync {
		t.Errorf("volatile: %+v", o)
	}
}

func TestSloppy(t *testing.T) {
	_, left, err := Overlay([]string{"lowerdir=/l,bogus=1,ro", "strictatime"}, true)
	if err != nil || len(left) != 2 || left[0].String() != "bogus=1" || left[1].String() != "strictatime" {
		t.Errorf("%v, %v", left, err)
	}
	if _, _, err := Overlay([]string{"lowerdir=/l,timeout=x"}, true); !errors.Is(err, ErrInvalid) {
		t.Errorf("a value that is none: %v", err)
	}
}

func TestImage(t *testing.T) {
	o, _, err := Image([]string{"rw,name=web,root=/var/lib/x", "nosuid"}, false)
	if err != nil || o.Name != "web" || o.Root != "/var/lib/x" || o.FS.Flags != unix.MS_NOSUID || o.Union != (overlay.Modes{}) {
		t.Errorf("%+v, %v", o, err)
	}
	for _, arg := range []string{"lowerdir=/l", "upperdir=/u", "volatile", "index=off"} {
		if _, _, err := Image([]string{arg}, false); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

// FuzzOverlay parses anything without a crash, and what it accepts makes sense.
func FuzzOverlay(f *testing.F) {
	for _, seed := range []string{
		"lowerdir=/a:/b,upperdir=/u,workdir=/w", `lowerdir=/a\:b\,c,volatile`, "lowerdir+=/a,lowerdir+=/b",
		`context="a,b",lowerdir=/l`, "lowerdir=/l,uidmapping=0:1000:1:1:110000:65536", "lowerdir=/l,timeout=1e9",
		`lowerdir=\`, `lowerdir=/l,context="`, "lowerdir=::", "=", ",,,", "lowerdir=/l,squash_to_uid=99999999999",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		o, left, err := Overlay([]string{arg}, false)
		if err != nil {
			for _, e := range []error{ErrUnknown, ErrUnsupported, ErrInvalid} {
				if errors.Is(err, e) {
					return
				}
			}
			t.Fatalf("%q: an error of no kind: %v", arg, err)
		}
		if len(left) > 0 {
			t.Fatalf("%q: left %v", arg, left)
		}
		if len(o.Lowers) == 0 || slices.Contains(o.Lowers, "") || (o.Upper == "") != (o.Work == "") {
			t.Fatalf("%q: accepted as %+v", arg, o)
		}
		for _, d := range []*time.Duration{o.FS.EntryTimeout, o.FS.AttrTimeout, o.FS.NegativeTimeout} {
			if d != nil && *d < 0 {
				t.Fatalf("%q: a timeout of %v", arg, *d)
			}
		}
	})
}
