package fs_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"golang.org/x/sys/unix"
)

// readTree describes each path below a root: all that a program can see but times and inode numbers. Hard links are
// told by the first path of their group.
func readTree(t *testing.T, root string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	first := map[uint64]string{}
	var paths []string
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		paths = append(paths, p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(paths)
	for _, p := range paths {
		st := stat(t, p)
		rel, err := filepath.Rel(root, p)
		if err != nil {
			t.Fatal(err)
		}
		d := fmt.Sprintf("%o %d:%d nlink %d", st.Mode, st.Uid, st.Gid, st.Nlink)
		if first[st.Ino] == "" {
			first[st.Ino] = rel
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p) // #nosec G304 -- a test's own file
			if err != nil {
				t.Fatal(err)
			}
			d += fmt.Sprintf(" size %d %x link of %s", st.Size, sha256.Sum256(b), first[st.Ino])
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				t.Fatal(err)
			}
			d += fmt.Sprintf(" size %d -> %s link of %s", st.Size, target, first[st.Ino])
		case unix.S_IFDIR:
		default:
			d += fmt.Sprintf(" rdev %d link of %s", st.Rdev, first[st.Ino])
		}
		tree[rel] = d + xattrsOf(t, p)
	}
	return tree
}

func xattrsOf(t *testing.T, p string) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		t.Fatalf("listxattr %s: %v", p, err)
	}
	var names []string
	for start, i := 0, 0; i < n; i++ {
		if buf[i] == 0 {
			names = append(names, string(buf[start:i]))
			start = i + 1
		}
	}
	sort.Strings(names)
	out := ""
	for _, name := range names {
		v := make([]byte, 4096)
		n, err := unix.Lgetxattr(p, name, v)
		if err != nil {
			t.Fatalf("getxattr %s %s: %v", p, name, err)
		}
		out += fmt.Sprintf(" %s=%q", name, v[:n])
	}
	return out
}
