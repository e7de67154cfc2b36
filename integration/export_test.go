package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// oddTree makes a tree of all that a tar can hold.
const oddTree = `set -e
mkdir -p d dev empty deep/$(printf 'abcdefghij/%.0s' $(seq 20)) $(printf 'x%.0s' $(seq 250))
echo a > d/a; ln d/a d/b; ln d/a z; ln -s a d/l; ln -s $(printf 'y/%.0s' $(seq 100)) long
mknod dev/null c 1 3; mknod dev/big b 259 70000; mkfifo fifo; ln fifo fifo2
truncate -s 10M sparse; echo middle | dd of=sparse bs=1 seek=5M conv=notrunc status=none; truncate -s 3M hole
setfattr -n user.foo -v bar d/a; setfattr -n user.d -v 'a=b' d; setfacl -m u:17:rw hole; setcap cap_net_raw+ep z
touch -h -d '1960-01-02 03:04:05.678' d/l; touch -d '2200-01-01 00:00:00.123456789' fifo
chown 3000000:5 dev/null; chmod 6755 z; chmod 1777 empty; echo u > 'ü
*'; echo q > deep/$(printf 'abcdefghij/%.0s' $(seq 20))q`

// TestExport exports a container before, while and after it is mounted, and has GNU tar unpack what comes: the trees are what
// GNU tar makes of the mount, holes included.
func TestExport(t *testing.T) {
	needRoot(t)
	needMount(t)
	needTools(t, "tar", "setfattr", "setfacl", "setcap")
	s, dir := newStore(t), t.TempDir()
	tool(t, "sh", "-c", "mkdir "+dir+"/odd; cd "+dir+"/odd; "+oddTree)
	pack := func(from, to string) {
		tool(t, "tar", "-C", from, "--xattrs", "--xattrs-include=*", "--format=pax", "-S", "-cf", filepath.Join(dir, to), ".")
	}
	unpack := func(name string) map[string]entry {
		to := filepath.Join(dir, "unpacked-"+name)
		if err := os.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		tool(t, "sh", "-c", "tar -C "+to+" --xattrs --xattrs-include='*' -xpf "+filepath.Join(dir, name)+" 2>/dev/null")
		return tree(t, to)
	}
	export := func(name string) map[string]entry {
		s.ok("export", "-o", filepath.Join(dir, name), "cc")
		return unpack(name)
	}
	pack(dir+"/odd", "odd.tar")
	s.ok("import", dir+"/odd.tar", "odd")
	s.mount("--name", "cc", "odd")
	s.ok("umount", "cc")
	sameTree(t, unpack("odd.tar"), export("before.tar"))

	m := s.mount("cc")
	tool(t, "sh", "-c", "cd "+m+`; set -e
		echo other > d/b; rm long; mv deep moved; rm -r empty; mkdir empty; echo y > empty/y; chmod 600 hole; setfattr -x user.d d
		truncate -s 8M hole2; echo x | dd of=sparse bs=1 seek=9M conv=notrunc status=none; mknod dev/zero c 1 5; rm fifo`)
	lazy, err := os.OpenFile(m+"/lazy", os.O_CREATE|os.O_WRONLY, 0o644) // written to and neither closed nor synced
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lazy.WriteString(strings.Repeat("lazy\n", 10000)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", m+"/dev", "tmpfs", 0, ""); err != nil { // as a program in the container may
		t.Fatal(err)
	}
	if err := os.WriteFile(m+"/dev/hidden", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mounted := export("mounted.tar")
	if err := unix.Unmount(m+"/dev", 0); err != nil {
		t.Fatal(err)
	}
	if err := lazy.Close(); err != nil {
		t.Fatal(err)
	}
	pack(m, "gnu.tar")
	s.ok("umount", "cc")
	want := unpack("gnu.tar")
	sameTree(t, want, mounted)
	sameTree(t, want, export("after.tar"))
	if holes(t, dir+"/unpacked-after.tar/hole2") > 64 || holes(t, dir+"/unpacked-mounted.tar/sparse") > 64 {
		t.Error("the holes of sparse files were filled")
	}
	// What is imported again is the same.
	s.ok("import", dir+"/after.tar", "again")
	s.ok("mount", "--name", "again", "--read-only", "again")
	s.ok("container", "export", "again", "-o", dir+"/again.tar")
	s.ok("umount", "again")
	sameTree(t, want, unpack("again.tar"))
}

// holes is how many 512-byte blocks of disk a file takes.
func holes(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

// TestExportPodman has podman take in an export and export it itself: the same tree comes out, but for what podman does not
// keep.
func TestExportPodman(t *testing.T) {
	needRoot(t)
	needMount(t)
	needTools(t, "podman", "tar")
	s, dir := newStore(t), t.TempDir()
	tool(t, "sh", "-c", "mkdir "+dir+"/odd; cd "+dir+"/odd; "+oddTree)
	tool(t, "tar", "-C", dir+"/odd", "-cf", dir+"/odd.tar", ".")
	s.ok("import", dir+"/odd.tar", "odd")
	s.mount("--name", "cc", "odd")
	s.ok("umount", "cc")
	s.ok("export", "-o", dir+"/plyfs.tar", "cc")
	podman := func(args ...string) string {
		return strings.TrimSpace(tool(t, "podman", append([]string{
			"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs", "--cgroup-manager=cgroupfs", "--events-backend=file",
		}, args...)...))
	}
	podman("import", "-q", dir+"/plyfs.tar", "localhost/odd")
	id := podman("create", "localhost/odd", "/none")
	podman("export", "-o", dir+"/podman.tar", id)
	podman("rm", id)
	trees := map[string]map[string]entry{}
	for _, by := range []string{"plyfs", "podman"} {
		to := dir + "/by-" + by
		tool(t, "sh", "-c", "mkdir "+to+"; tar -C "+to+" -xpf "+dir+"/"+by+".tar 2>/dev/null")
		trees[by] = tree(t, to)
		for name, e := range trees[by] {
			e.mtime, e.xattrs = "", "" // podman cuts times to seconds and leaves xattrs out
			trees[by][name] = e
		}
	}
	for _, made := range []string{"run", "etc", "proc", "sys", "tmp"} { // podman makes these in a container
		for name := range trees["podman"] {
			if name == made || strings.HasPrefix(name, made+"/") {
				delete(trees["podman"], name)
			}
		}
	}
	sameTree(t, trees["plyfs"], trees["podman"])
}
