package overlay

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	xattrACL        = "system.posix_acl_access"
	xattrDefaultACL = "system.posix_acl_default"
)

// lowerEntry is the lower inode whose attributes an inode shows that has none in the upper layer.
func (u *Union) lowerEntry(id ID, rec *record) (Layer, Entry, error) {
	i, e, err := u.lowerShown(id, rec)
	if err != nil {
		return nil, 0, err
	}
	return u.lowers[i], e, nil
}

func (u *Union) lowerShown(id ID, rec *record) (layer int, e Entry, err error) {
	switch {
	case rec.flags&flagDir != 0:
		d := u.tab.dir(id)
		if d == nil || len(d.lowers) == 0 {
			return 0, 0, unix.ENODATA
		}
		r := d.lowers[d.attrs]
		return r.layer, r.entry, nil
	case rec.flags&flagFaced != 0:
		u.faceMu.Lock()
		defer u.faceMu.Unlock()
		f, ok := u.faces[id]
		if !ok {
			return 0, 0, unix.ESTALE
		}
		return f.layer, f.Entry, nil
	}
	return int(rec.layer) - 1, rec.entry, nil
}

// GetXattr copies the value of an xattr into dest and returns its length. An empty dest asks for the length; one that
// is too small is ERANGE. Where a filesystem has no ACLs there is none: ENOTSUP would have the kernel, which asks for them
// to check permissions, refuse the file to all but its owner.
func (u *Union) GetXattr(id ID, name string, dest []byte) (int, error) {
	n, err := u.getXattr(id, name, dest)
	if errors.Is(err, unix.ENOTSUP) && (name == xattrACL || name == xattrDefaultACL) {
		err = unix.ENODATA
	}
	return n, err
}

func (u *Union) getXattr(id ID, name string, dest []byte) (int, error) {
	rec, ok := u.tab.get(id)
	if !ok {
		return 0, unix.ESTALE
	}
	if name = escapeXattr(name); isHidden(name) {
		v, ok, err := u.introspect(id, &rec, name)
		if !ok || err != nil {
			return 0, errors.Join(err, unix.ENODATA)
		}
		return fill(dest, v)
	}
	if rec.flags&flagUpper != 0 {
		n := 0
		err := u.withPlace(id, func(p place) (err error) {
			n, err = u.up.over.getxattr(p, name, dest)
			return err
		})
		return n, err
	}
	l, e, err := u.lowerEntry(id, &rec)
	if err != nil {
		return 0, err
	}
	v, err := l.Xattr(e, name)
	if err != nil {
		return 0, err
	}
	return fill(dest, v)
}

func fill[T string | []byte](dest []byte, v T) (int, error) {
	switch {
	case len(dest) == 0:
		return len(v), nil
	case len(dest) < len(v):
		return len(v), unix.ERANGE
	}
	return copy(dest, v), nil
}

// ListXattr copies the names of all xattrs into dest, each ended by a zero byte, and returns their length as GetXattr
// does.
func (u *Union) ListXattr(id ID, dest []byte) (int, error) {
	rec, ok := u.tab.get(id)
	if !ok {
		return 0, unix.ESTALE
	}
	var names []string
	var err error
	if rec.flags&flagUpper != 0 {
		err = u.withPlace(id, func(p place) (err error) {
			names, err = p.names()
			for i, n := range names {
				names[i] = u.up.over.decode(n)
			}
			return err
		})
	} else {
		var l Layer
		var e Entry
		if l, e, err = u.lowerEntry(id, &rec); err == nil {
			names, err = l.Xattrs(e)
		}
	}
	if err != nil {
		return 0, err
	}
	var b strings.Builder
	for _, n := range names {
		if n, ok := showXattr(n); ok {
			b.WriteString(n)
			b.WriteByte(0)
		}
	}
	return fill(dest, b.String())
}

// SetXattr sets an xattr. flags are XATTR_CREATE, XATTR_REPLACE or none.
func (u *Union) SetXattr(id ID, name string, value []byte, flags int) error {
	name = escapeXattr(name)
	set := func(p place) error { return p.setxattr(u.up.over.encode(name), value, flags) }
	if u.up != nil && u.up.over != "" && name == xattrACL {
		return u.changeXattr(id, name, func(p place) error { return u.up.setACL(p, set) })
	}
	return u.changeXattr(id, name, set)
}

// RemoveXattr removes an xattr.
func (u *Union) RemoveXattr(id ID, name string) error {
	name = escapeXattr(name)
	return u.changeXattr(id, name, func(p place) error { return p.removexattr(u.up.over.encode(name)) })
}

func (u *Union) changeXattr(id ID, name string, f func(p place) error) error {
	if isHidden(name) {
		return unix.EPERM
	}
	u.awaitCopy(id) // of data, too: it would give back the capabilities that it took away
	if err := u.copyUpMeta(id); err != nil {
		return err
	}
	if err := u.withPlace(id, f); err != nil {
		return err
	}
	if d := u.tab.dir(id); d != nil {
		d.inherit.Store(0)
	}
	return nil
}
