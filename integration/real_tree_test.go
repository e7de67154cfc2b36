package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// entry is all that two trees are compared by. Its text form is what a difference is shown as.
type entry struct {
	mode   uint32 // type and permissions
	uid    uint32
	gid    uint32
	size   int64 // 0 for directories, whose size is the file system's own affair
	mtime  string
	rdev   string // of devices
	target string // of symlinks
	group  string // of files with several names: the first of them
	nlink  uint64 // 0 for directories
	xattrs string
	hash   string // of regular files
}

// tree reads everything below a directory, which has the name ".".
func tree(t *testing.T, root string) map[string]entry {
	t.Helper()
	entries := map[string]entry{}
	groups := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		e, err := readEntry(path, name, groups)
		entries[name] = e
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func readEntry(path, name string, groups map[string]string) (entry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return entry{}, fmt.Errorf("lstat %s: %w", path, err)
	}
	e := entry{mode: st.Mode, uid: st.Uid, gid: st.Gid, mtime: fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)}
	var err error
	if e.xattrs, err = readXattrs(path); err != nil {
		return e, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		e.size, e.nlink = st.Size, uint64(st.Nlink) //nolint:unconvert // uint32 on other machines
		if st.Nlink > 1 {
			id := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
			if _, seen := groups[id]; !seen {
				groups[id] = name
			}
			e.group = groups[id]
		}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK, unix.S_IFCHR:
		e.rdev = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFLNK:
		e.target, err = os.Readlink(path)
	case unix.S_IFREG:
		e.hash, err = hashFile(path)
	}
	return e, err
}

func readXattrs(path string) (string, error) {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return "", fmt.Errorf("llistxattr %s: %w", path, err)
	}
	found := map[string]string{}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", fmt.Errorf("lgetxattr %s %s: %w", path, name, err)
		}
		found[name] = hex.EncodeToString(value[:n])
	}
	var text []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		text = append(text, name+"="+found[name])
	}
	return strings.Join(text, " "), nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sameTree reports the differences of two trees, the first few of them.
func sameTree(t *testing.T, want, got map[string]entry) {
	t.Helper()
	const most = 20
	names := map[string]bool{}
	for name := range want {
		names[name] = true
	}
	for name := range got {
		names[name] = true
	}
	differ := 0
	for _, name := range slices.Sorted(maps.Keys(names)) {
		w, inWant := want[name]
		g, inGot := got[name]
		if inWant && inGot && w == g {
			continue
		}
		if differ++; differ > most {
			continue
		}
		switch {
		case !inWant:
			t.Errorf("%q is there and should not be: %+v", name, g)
		case !inGot:
			t.Errorf("%q is missing: %+v", name, w)
		default:
			t.Errorf("%q differs:\nwant %+v\ngot  %+v", name, w, g)
		}
	}
	if differ > most {
		t.Errorf("and %d more entries differ", differ-most)
	}
	if len(want) < 2 {
		t.Error("the tree to compare with is empty")
	}
}

// storeFiles maps every file of a store to its size and hash. Lock files, which are empty, come and go and are left out.
func (s *store) files() map[string]string {
	s.t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Size() == 0 && (d.Name() == "lock" || strings.HasSuffix(d.Name(), ".lock")) {
			return nil
		}
		name, err := filepath.Rel(s.root, path)
		if err != nil {
			return err
		}
		hash, err := hashFile(path)
		found[name] = fmt.Sprintf("%d bytes, %s", info.Size(), hash)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

// unchanged reports how the store's files differ from what they were. Names that ignore says are not compared.
func (s *store) unchanged(before map[string]string, ignore func(name string) bool) {
	s.t.Helper()
	after := s.files()
	for name, was := range before {
		if is, ok := after[name]; !ok {
			s.t.Errorf("the store lost %s", name)
		} else if is != was {
			s.t.Errorf("the store's %s changed from %s to %s", name, was, is)
		}
	}
	for name, is := range after {
		if _, ok := before[name]; !ok && (ignore == nil || !ignore(name)) {
			s.t.Errorf("the store has a new %s: %s", name, is)
		}
	}
}

// whole checks that every file of the store that a digest names has the content that the digest says.
func (s *store) whole() {
	s.t.Helper()
	checked := 0
	for name, is := range s.files() {
		digest := strings.TrimSuffix(filepath.Base(name), ".tar")
		if len(digest) != 64 || !strings.Contains(name, "sha256/") {
			continue
		}
		checked++
		if !strings.HasSuffix(is, digest) {
			s.t.Errorf("the store's %s has other content: %s", name, is)
		}
	}
	if checked == 0 {
		s.t.Error("no file of the store is named by a digest: this check checks nothing")
	}
}
