package tarlayer

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/overlay"
	"golang.org/x/sys/unix"
)

// needTar skips a test that must be root, to own what it unpacks, and needs GNU tar.
func needTar(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	if out, err := exec.Command("tar", "--version").Output(); err != nil || !bytes.Contains(out, []byte("GNU tar")) {
		t.Skip("no GNU tar")
	}
}

func run(t *testing.T, dir, script string) []byte {
	t.Helper()
	cmd := exec.Command("sh", "-e", "-c", script)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, stderr.Bytes())
	}
	return out
}

// factsOfDisk describes every file below root, by path.
func factsOfDisk(t *testing.T, root string) map[string]string {
	t.Helper()
	facts, groups := map[string]string{}, map[uint64][]string{}
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		a := overlay.Attr{
			Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: uint64(st.Size), Nlink: uint32(st.Nlink),
			Mtime: overlay.Timespec{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)},
		}
		a.Rdev = unix.Minor(st.Rdev)&0xff | unix.Major(st.Rdev)<<8 | unix.Minor(st.Rdev)&^0xff<<12
		rel, _ := filepath.Rel(root, p)
		groups[st.Ino] = append(groups[st.Ino], rel)
		var data []byte
		var target string
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if data, err = os.ReadFile(p); err != nil {
				return err
			}
		case unix.S_IFLNK:
			if target, err = os.Readlink(p); err != nil {
				return err
			}
		}
		buf := make([]byte, 65536)
		n, err := unix.Llistxattr(p, buf)
		if err != nil {
			return err
		}
		xattrs := map[string]string{}
		for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
			if v := make([]byte, 65536); name != "" && name != "security.selinux" {
				k, err := unix.Lgetxattr(p, name, v)
				if err != nil {
					return err
				}
				xattrs[name] = string(v[:k])
			}
		}
		facts[rel] = fact(&a, data, target, xattrs)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	addGroups(facts, groups)
	return facts
}

// factsOfLayer describes every name of a layer in the same words.
func factsOfLayer(t *testing.T, l *Layer) map[string]string {
	t.Helper()
	facts, groups := map[string]string{}, map[uint64][]string{}
	var visit func(dir overlay.Entry, at string)
	visit = func(dir overlay.Entry, at string) {
		names, err := list(l, dir, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range names {
			rel := filepath.Join(at, d.Name)
			var a overlay.Attr
			if err := l.Attr(d.Entry, &a); err != nil {
				t.Fatal(err)
			}
			groups[a.Ino] = append(groups[a.Ino], rel)
			var data []byte
			var target string
			switch a.Mode & unix.S_IFMT {
			case unix.S_IFREG:
				data, err = content(l, d.Entry)
			case unix.S_IFLNK:
				target, err = l.Readlink(d.Entry)
			case unix.S_IFDIR:
				visit(d.Entry, rel)
			}
			if err != nil {
				t.Fatal(err)
			}
			xattrs := map[string]string{}
			keys, err := l.Xattrs(d.Entry)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				v, err := l.Xattr(d.Entry, k)
				if err != nil {
					t.Fatal(err)
				}
				xattrs[k] = string(v)
			}
			facts[rel] = fact(&a, data, target, xattrs)
		}
	}
	visit(overlay.RootEntry, "")
	addGroups(facts, groups)
	return facts
}

func fact(a *overlay.Attr, data []byte, target string, xattrs map[string]string) string {
	s := fmt.Sprintf("%o %d:%d %d.%09d n%d", a.Mode, a.UID, a.GID, a.Mtime.Sec, a.Mtime.Nsec, a.Nlink)
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s += fmt.Sprintf(" size %d sha256 %x", a.Size, sha256.Sum256(data))
	case unix.S_IFLNK:
		s += fmt.Sprintf(" size %d -> %s", a.Size, target)
	case unix.S_IFCHR, unix.S_IFBLK:
		s += fmt.Sprintf(" rdev %#x", a.Rdev)
	}
	var keys []string
	for k := range xattrs {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		s += fmt.Sprintf(" %s=%q", k, xattrs[k])
	}
	return s
}

func addGroups(facts map[string]string, groups map[uint64][]string) {
	for _, g := range groups {
		slices.Sort(g)
		for _, p := range g {
			facts[p] += " same as " + strings.Join(g, ",")
		}
	}
}

const treeScript = `
mkdir -p a/b "sp ace" empty sticky
echo hi >a/f; ln a/f a/g; ln a/f a/b/h; ln -s ../../x a/s; ln a/s a/s2; ln -s f a/b/t
mkfifo p; mknod c c 1 3; mknod b b 8 1; mknod big c 4000 1000000
chmod 1777 sticky; cp /bin/true a/suid; chmod 6755 a/suid; chmod 0 a/b/h
seq 1 5000 >"sp ace/$(printf '\303\244\377')"; : >empty/zero
truncate -s 10M sparse; printf x | dd of=sparse bs=1 seek=5000000 conv=notrunc 2>/dev/null
truncate -s 3M allhole
cp sparse many; for i in $(seq 0 30); do printf y | dd of=many bs=1 seek=$((i*100000)) conv=notrunc 2>/dev/null; done
long=$(printf 'n%.0s' $(seq 90)); mkdir -p $long/$long; echo deep >$long/$long/$long
ln $long/$long/$long linked; ln -s $(printf 'l%.0s' $(seq 400)) longlink
touch -d 2026-01-02T03:04:05.123456789 a/f; touch -d 1960-01-01T00:00:00.5 c; touch -d 2105-01-01 p
`

const paxScript = `
chown 3000000:4000000000 a/g; chown 5:6 -h a/s; touch -h -d 2001-01-01 a/s
setfattr -n user.k -v value a; setfattr -n user.bin -v 0x000aff3d00 a/f; setfattr -n trusted.t -v 1 p
setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 a/suid
touch -d @-12345678901.25 empty; touch -d 2200-01-01 empty/zero
`

// TestOracle compares what the index says of an archive of GNU tar with what GNU tar unpacks of it.
func TestOracle(t *testing.T) {
	needTar(t)
	for _, c := range []struct{ name, prepare, flags string }{
		{"pax", paxScript, "--format=pax --xattrs --xattrs-include=*"},
		{"pax sparse 0.0", paxScript, "--format=pax --xattrs --xattrs-include=* -S --sparse-version=0.0"},
		{"pax sparse 0.1", paxScript, "--format=pax --xattrs --xattrs-include=* -S --sparse-version=0.1"},
		{"pax sparse 1.0", paxScript, "--format=pax --xattrs --xattrs-include=* -S --sparse-version=1.0"},
		{"pax global", "", "--format=pax --pax-option=globexthdr.name=g,comment=hi,mtime=2000000000"},
		{"gnu", "chown 3000000:4000000000 a/g", "--format=gnu"},
		{"gnu sparse", "chown 3000000:4000000000 a/g", "--format=gnu -S"},
		{"ustar", "rm -rf nnn* linked longlink c big; :", "--format=ustar"},
		{"v7", "rm -rf nnn* linked longlink c b big p; :", "--format=v7"},
		{"order", "", "--format=pax --sort=name --no-recursion -T order"},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, dst := t.TempDir(), t.TempDir()
			run(t, src, treeScript+c.prepare)
			in := "."
			if c.name == "order" { // children before their directories
				run(t, src, "find . -depth ! -name order ! -path . >../order.tmp; mv ../order.tmp order")
				in = ""
			}
			archive := run(t, src, "tar -c --numeric-owner "+c.flags+" "+in)
			file := filepath.Join(dst, "tar")
			if err := os.WriteFile(file, archive, 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, dst, "mkdir root; tar -xpf tar --numeric-owner --delay-directory-restore --xattrs --xattrs-include='*' -C root")
			want, got := factsOfDisk(t, filepath.Join(dst, "root")), factsOfLayer(t, open(t, archive))
			if len(want) < 15 {
				t.Fatalf("only %d files", len(want))
			}
			for p := range want {
				if got[p] != want[p] {
					t.Errorf("%q:\nindex %s\ntar   %s", p, got[p], want[p])
				}
			}
			if len(got) != len(want) {
				t.Errorf("the index has %d names, tar unpacks %d", len(got), len(want))
			}
		})
	}
}
