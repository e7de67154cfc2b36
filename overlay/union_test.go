package overlay

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	unix.Umask(0) // as the server: modes come from the caller
	os.Exit(m.Run())
}

// rig is a union of directories, driven without a mount.
type rig struct {
	*testing.T
	lowers []string // top first
	upper  string   // "" for a read-only union
	work   string
	u      *Union
	layers []*DirLayer
	held   []ID // looked up by id and not yet forgotten
	wrap   func(l Layer) Layer
}

// newRig makes the directories of a union of n lower layers, which open puts together.
func newRig(t *testing.T, n int) *rig {
	t.Helper()
	return newRigIn(t, t.TempDir(), n)
}

func newRigIn(t *testing.T, base string, n int) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("whiteouts and trusted xattrs take root")
	}
	r := &rig{T: t, upper: filepath.Join(base, "u"), work: filepath.Join(base, "w")}
	for i := range n {
		r.lowers = append(r.lowers, filepath.Join(t.TempDir(), "l"+string(rune('0'+i))))
	}
	for _, d := range append([]string{r.upper, r.work}, r.lowers...) {
		r.ok(os.Mkdir(d, 0o755)) // #nosec G301 -- a test's own
	}
	return r
}

var epoch = time.Unix(1500000000, 123456789) // when files of lower layers were made

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) want(err, want error) {
	r.Helper()
	if !errors.Is(err, want) {
		r.Fatalf("error %v, want %v", err, want)
	}
}

// low puts a file into a lower layer.
func (r *rig) low(layer int, name, content string) string {
	r.Helper()
	p := filepath.Join(r.lowers[layer], name)
	r.ok(os.MkdirAll(filepath.Dir(p), 0o755))     // #nosec G301 -- a test's own
	r.ok(os.WriteFile(p, []byte(content), 0o644)) // #nosec G306 -- a test's own
	r.ok(os.Chtimes(p, epoch, epoch))
	return p
}

// open puts the union together until the test ends.
func (r *rig) open() *rig {
	r.Helper()
	cfg := Config{AdoptRoot: true}
	r.layers = nil
	for _, d := range r.lowers {
		l, err := NewDirLayer(d, 0)
		r.ok(err)
		r.layers = append(r.layers, l)
		var x Layer = l
		if r.wrap != nil {
			x = r.wrap(l)
		}
		cfg.Lowers = append(cfg.Lowers, x)
	}
	if r.upper != "" {
		cfg.Upper, cfg.Work = r.upper, r.work
	}
	u, err := New(cfg)
	r.ok(err)
	r.u = u
	r.Cleanup(func() {
		if r.u == u {
			r.close()
		}
	})
	return r
}

// close checks that nothing is left behind once all that was held is given back.
func (r *rig) close() {
	r.Helper()
	r.drop()
	r.checkEmpty()
	r.ok(r.u.Close())
	r.u = nil
}

func (r *rig) reopen() {
	r.Helper()
	r.close()
	r.open()
}

// drop forgets all that id looked up.
func (r *rig) drop() {
	for _, id := range r.held {
		r.u.Forget(id, 1)
	}
	r.held = nil
}

// checkEmpty checks that the tables hold their roots alone and the caches nothing.
func (r *rig) checkEmpty() {
	r.Helper()
	r.checkTable("union", r.u.tab, r.u.fds)
	for i, l := range r.layers {
		r.checkTable(r.lowers[i], l.tab, l.fds)
	}
	if n := len(r.u.aliases); n > 0 {
		r.Errorf("%d second names still known", n)
	}
	if n := len(r.u.pins); n > 0 {
		r.Errorf("%d inodes still pinned", n)
	}
	if n := len(r.u.copies); n > 0 {
		r.Errorf("%d copy-ups still under way", n)
	}
}

func (r *rig) checkTable(what string, t *table, c *fdCache) {
	r.Helper()
	for i := range t.shard {
		s := &t.shard[i]
		if s.count > 0 {
			r.Errorf("%s: shard %d holds %d inodes", what, i, s.count)
		}
		for id := range s.dirs {
			if id != RootID {
				r.Errorf("%s: directory %d is still there", what, id)
			}
		}
		if n := len(c.shard[i].files); n > 0 {
			r.Errorf("%s: %d descriptors cached", what, n)
		}
	}
	if rec, _ := t.get(RootID); rec.refs != 1 {
		r.Errorf("%s: the root has %d references, want 1", what, rec.refs)
	}
}

// find looks a path up, name by name. Its inode is held until drop.
func (r *rig) find(path string) (ID, Attr, error) {
	id, a := RootID, Attr{}
	if path == "" || path == "." {
		return id, a, r.u.GetAttr(id, &a)
	}
	for _, name := range strings.Split(path, "/") {
		next, err := r.u.Lookup(id, name, &a)
		if err != nil {
			return 0, a, err
		}
		r.held = append(r.held, next)
		id = next
	}
	return id, a, nil
}

func (r *rig) id(path string) ID {
	r.Helper()
	id, _, err := r.find(path)
	if err != nil {
		r.Fatalf("look up %s: %v", path, err)
	}
	return id
}

func (r *rig) attr(path string) Attr {
	r.Helper()
	_, a, err := r.find(path)
	if err != nil {
		r.Fatalf("look up %s: %v", path, err)
	}
	return a
}

func (r *rig) absent(path string) {
	r.Helper()
	if _, _, err := r.find(path); !errors.Is(err, unix.ENOENT) {
		r.Fatalf("look up %s: %v, want ENOENT", path, err)
	}
}

// split returns the inode of a path's directory, held until drop, and its last name.
func (r *rig) split(path string) (ID, string) {
	r.Helper()
	return r.id(filepath.Dir(path)), filepath.Base(path)
}

func (r *rig) write(path, content string) {
	r.Helper()
	id, _, err := r.find(path)
	if errors.Is(err, unix.ENOENT) {
		id = r.create(path)
		err = nil
	}
	r.ok(err)
	size := int64(0)
	var a Attr
	r.ok(r.u.SetAttr(id, &SetAttr{Size: &size}, &a))
	n, err := r.u.Write(id, []byte(content), 0, false)
	r.ok(err)
	if n != len(content) {
		r.Fatalf("wrote %d bytes of %d", n, len(content))
	}
}

func (r *rig) create(path string) ID {
	r.Helper()
	dir, name := r.split(path)
	var a Attr
	id, err := r.u.Mknod(dir, name, Cred{}, unix.S_IFREG|0o644, 0, &a)
	r.ok(err)
	r.held = append(r.held, id)
	return id
}

func (r *rig) mkdir(path string) ID {
	r.Helper()
	dir, name := r.split(path)
	var a Attr
	id, err := r.u.Mkdir(dir, name, Cred{}, 0o755, &a)
	r.ok(err)
	r.held = append(r.held, id)
	return id
}

func (r *rig) unlink(path string) {
	r.Helper()
	dir, name := r.split(path)
	r.ok(r.u.Unlink(dir, name))
}

func (r *rig) rename(from, to string, flags uint32) error {
	r.Helper()
	fd, fn := r.split(from)
	td, tn := r.split(to)
	return r.u.Rename(fd, fn, td, tn, flags)
}

func (r *rig) link(from, to string) {
	r.Helper()
	id := r.id(from)
	dir, name := r.split(to)
	var a Attr
	got, err := r.u.Link(id, dir, name, &a)
	r.ok(err)
	r.held = append(r.held, got)
	if got != id {
		r.Fatalf("link %s %s: inode %d, want %d", from, to, got, id)
	}
}

func (r *rig) chmod(path string, mode uint32) {
	r.Helper()
	var a Attr
	r.ok(r.u.SetAttr(r.id(path), &SetAttr{Mode: &mode}, &a))
}

// readID returns a file's content.
func (r *rig) readID(id ID) (string, error) {
	var out []byte
	for {
		run, err := r.u.Data(id, int64(len(out)))
		if err != nil {
			return "", err
		}
		b := make([]byte, min(run.Len, 64<<10))
		n := len(b)
		if run.FD >= 0 {
			n, err = unix.Pread(run.FD, b, run.Pos)
		}
		if run.Ref != nil {
			run.Ref.Release()
		}
		if n <= 0 || err != nil {
			return string(out), err
		}
		out = append(out, b[:n]...)
	}
}

func (r *rig) read(path string) string {
	r.Helper()
	s, err := r.readID(r.id(path))
	if err != nil {
		r.Fatalf("read %s: %v", path, err)
	}
	return s
}

func (r *rig) reads(path, want string) {
	r.Helper()
	if got := r.read(path); got != want {
		r.Fatalf("%s reads %.40q, want %.40q", path, got, want)
	}
}

// list returns a directory's names but "." and "..".
func (r *rig) list(path string) []string {
	r.Helper()
	var names []string
	err := r.u.ReadDir(r.id(path), CookieDotDot, func(e *ListEntry) bool {
		names = append(names, e.Name)
		return true
	})
	r.ok(err)
	return names
}

// smallFS mounts a tmpfs with so many bytes and inodes until the test ends, to run out of.
func smallFS(t *testing.T, opts string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, opts); err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// sums describes directories on the host: what no union may change below it.
func sums(t *testing.T, roots []string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(p, &st); err != nil {
				return err
			}
			out[p] = fmt.Sprint(st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim, st.Ctim)
			if d.Type().IsRegular() {
				b, err := os.ReadFile(p) // #nosec G304 -- a test's own
				if err != nil {
					return err
				}
				out[p] += fmt.Sprintf(" %x", sha256.Sum256(b))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}
