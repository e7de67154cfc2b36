package fs_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// readTree describes each path below a root: all that a program can see but times and inode numbers. Hard links are
// told by the first path of their group. What cannot be read is told by the error.
func readTree(t *testing.T, root string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	first := map[uint64]string{}
	var paths []string
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			tree[p] = err.Error()
		}
		paths = append(paths, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(paths)
	for _, p := range paths {
		rel, err := filepath.Rel(root, p)
		if err != nil {
			t.Fatal(err)
		}
		d, err := describe(p, rel, first)
		if err != nil {
			d += err.Error()
		}
		tree[rel] += d
	}
	return tree
}

func describe(p, rel string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return "", err
	}
	d := fmt.Sprintf("%o %d:%d nlink %d", st.Mode, st.Uid, st.Gid, st.Nlink)
	if first[st.Ino] == "" {
		first[st.Ino] = rel
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		b, err := os.ReadFile(p) // #nosec G304 -- a test's own file
		if err != nil {
			return d, err
		}
		d += fmt.Sprintf(" size %d %x link of %s", st.Size, sha256.Sum256(b), first[st.Ino])
	case unix.S_IFLNK:
		target, err := os.Readlink(p)
		if err != nil {
			return d, err
		}
		d += fmt.Sprintf(" size %d -> %s link of %s", st.Size, target, first[st.Ino])
	case unix.S_IFDIR:
	default:
		d += fmt.Sprintf(" rdev %d link of %s", st.Rdev, first[st.Ino])
	}
	x, err := xattrsOf(p)
	return d + x, err
}

func xattrsOf(p string) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		return "", err
	}
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	sort.Strings(names)
	out := ""
	for _, name := range names {
		v := make([]byte, 4096)
		n, err := unix.Lgetxattr(p, name, v)
		if err != nil {
			return out, err
		}
		out += fmt.Sprintf(" %s=%q", name, v[:n])
	}
	return out, nil
}
