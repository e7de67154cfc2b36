package overlay

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// lowerItem is an inode of u.lowers[layer]; layer is -1 for none.
type lowerItem struct {
	layer int
	Item
}

func newFound() found { return found{layer: -1, face: lowerItem{layer: -1}} }

// shown is the lower inode whose attributes and number are shown.
func (f *found) shown() (int, Item) {
	if f.face.layer >= 0 {
		return f.face.layer, f.face.Item
	}
	return f.layer, f.item
}

// keepFace remembers whose attributes an inode shows that has its data elsewhere.
func (u *Union) keepFace(id ID, f *found) {
	if f.face.layer < 0 {
		return
	}
	u.faceMu.Lock()
	u.faces[id] = f.face
	u.faceMu.Unlock()
	u.tab.update(id, func(r *record) { r.flags |= flagFaced })
}

func (u *Union) dropFace(id ID) {
	u.faceMu.Lock()
	f, ok := u.faces[id]
	delete(u.faces, id)
	u.faceMu.Unlock()
	if ok {
		u.lowers[f.layer].Forget(f.Entry)
	}
}

// descent goes down the lower layers after one name. It follows a name within the directories that the parent merges,
// until a redirect leads it to an absolute path, which it follows from the root of each further layer.
type descent struct {
	u    *Union
	f    *found
	name string
	abs  string // absolute path, "" while name counts
	want bool   // a file's data are wanted: what came before is metadata alone
}

// resolveLower adds what the lower layers have to what was found in the upper one.
func (u *Union) resolveLower(parent ID, d *dir, name string, f *found) error {
	s := descent{u: u, f: f, name: name}
	switch {
	case !f.upper:
	case f.mode == unix.S_IFDIR && f.marks.opaque, f.mode != unix.S_IFDIR && !f.marks.metacopy:
		return nil
	default:
		s.want = f.marks.metacopy
		if err := s.turnUpper(parent); err != nil {
			return err
		}
	}
	if err := s.run(d); err != nil {
		return err
	}
	if s.want && f.layer < 0 {
		return unix.EIO // its data are lost: the layers are not those that it was made over
	}
	return nil
}

// turnUpper follows the redirect of the upper inode.
func (s *descent) turnUpper(parent ID) error {
	to := s.f.marks.redirect
	if to == "" {
		return nil
	}
	if s.u.modes.Redirect == RedirectNoFollow {
		return unix.EPERM // as kernel overlayfs says it
	}
	if err := checkRedirect(to); err != nil {
		return err
	}
	if s.f.mode == unix.S_IFDIR {
		s.f.redir = to
		if to[0] != '/' {
			base, err := s.u.lowerPath(parent)
			if err != nil {
				return err
			}
			s.f.redir = path.Join(base, to)
		}
	}
	s.turn(to)
	return nil
}

// turn goes on under the name or path that a redirect tells.
func (s *descent) turn(to string) {
	if strings.HasPrefix(to, "/") {
		s.abs = to
	} else {
		s.name = to
	}
}

// checkRedirect refuses what is neither a name nor an absolute path of names, which anyone may have written, as kernel
// overlayfs does (fs/overlayfs/namei.c: ovl_get_redirect_xattr).
func checkRedirect(to string) error {
	rest, _ := strings.CutPrefix(to, "/")
	if rest == to && strings.Contains(to, "/") {
		return unix.EINVAL
	}
	for _, part := range strings.Split(rest, "/") {
		if checkName(part) != nil {
			return unix.EINVAL
		}
	}
	return nil
}

func (s *descent) run(d *dir) error {
	next := 0
	for _, ref := range d.lowers {
		if s.abs != "" {
			break
		}
		next = ref.layer + 1
		it, err := s.u.lowers[ref.layer].Lookup(ref.entry, s.name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		if last, err := s.stack(ref.layer, it); last || err != nil {
			return err
		}
	}
	if s.abs == "" {
		return nil
	}
	for i := next; i < len(s.u.lowers); i++ {
		if last, err := s.walk(i); last || err != nil {
			return err
		}
	}
	return nil
}

// stack adds an item of a layer to what was found above it, and reports whether it hides all below.
func (s *descent) stack(layer int, it Item) (last bool, err error) {
	f := s.f
	have := f.upper || len(f.lowers) > 0 || f.face.layer >= 0
	dirs := f.upper && f.mode == unix.S_IFDIR || len(f.lowers) > 0
	switch {
	case it.IsWhiteout():
		return true, nil
	case it.Mode == unix.S_IFDIR && (dirs || !have):
		f.mode = it.Mode
		if len(f.lowers) == 0 {
			f.item, f.layer = it, layer
		}
		f.lowers = append(f.lowers, lowerRef{layer, it.Entry})
		if it.Flags&FlagOpaque != 0 {
			return true, nil
		}
		return false, s.turnLower(layer, it)
	case it.Mode == unix.S_IFREG && it.Flags&FlagMetacopy != 0 && (s.want || !have):
		err := s.turnLower(layer, it)
		if f.upper || f.face.layer >= 0 {
			s.u.lowers[layer].Forget(it.Entry)
		} else {
			f.mode, f.face = it.Mode, lowerItem{layer, it}
		}
		s.want = true
		return false, err
	case !have, s.want && it.Mode == unix.S_IFREG:
		f.mode, f.item, f.layer = it.Mode, it, layer
	default:
		s.u.lowers[layer].Forget(it.Entry)
	}
	return true, nil
}

// turnLower follows the redirect of an item of a layer.
func (s *descent) turnLower(layer int, it Item) error {
	to, err := s.redirectOf(layer, it)
	if to == "" || err != nil {
		return err
	}
	if s.abs != "" && !strings.HasPrefix(to, "/") {
		to = path.Join(path.Dir(s.abs), to)
	}
	s.turn(to)
	return nil
}

// walk follows the absolute path in one layer and stacks what it finds there. A redirect on the way changes the path
// for the layers below.
func (s *descent) walk(layer int) (last bool, err error) {
	l := s.u.lowers[layer]
	e, hidden, below := RootEntry, false, "/"
	parts := strings.Split(strings.Trim(s.abs, "/"), "/")
	for n, part := range parts {
		it, err := l.Lookup(e, part)
		if e != RootEntry {
			l.Forget(e)
		}
		if errors.Is(err, unix.ENOENT) {
			s.abs = path.Join(append([]string{below}, parts[n:]...)...)
			return hidden, nil
		}
		if err != nil {
			return false, err
		}
		if n == len(parts)-1 {
			s.abs = path.Join(below, part)
			last, err := s.stack(layer, it)
			return last || hidden, err
		}
		if it.Mode != unix.S_IFDIR {
			if !it.IsWhiteout() {
				l.Forget(it.Entry)
			}
			return true, nil
		}
		if below, err = s.pass(layer, it, path.Join(below, part)); err != nil {
			l.Forget(it.Entry)
			return false, err
		}
		hidden = hidden || it.Flags&FlagOpaque != 0
		e = it.Entry
	}
	return hidden, nil
}

// pass returns where the layers below have a directory on the way.
func (s *descent) pass(layer int, it Item, below string) (string, error) {
	to, err := s.redirectOf(layer, it)
	switch {
	case to == "" || err != nil:
		return below, err
	case strings.HasPrefix(to, "/"):
		return to, nil
	}
	return path.Join(path.Dir(below), to), nil
}

// redirectOf returns the redirect of an item of a layer, "" when it has none.
func (s *descent) redirectOf(layer int, it Item) (string, error) {
	if it.Flags&FlagRedirect == 0 {
		return "", nil
	}
	if s.u.modes.Redirect == RedirectNoFollow {
		return "", unix.EPERM
	}
	l, ok := s.u.lowers[layer].(Redirecter)
	if !ok {
		return "", nil
	}
	to, err := l.Redirect(it.Entry)
	if err == nil {
		err = checkRedirect(to)
	}
	return to, err
}
