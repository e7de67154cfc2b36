package overlay

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Names of xattrs that every path has though no listing shows them. Files other than regular ones and directories can
// have no user.* xattrs (xattr(7)); there the same names work with trusted. in front, for root.
const (
	XattrLayer  = "user.plyfs.layer"  // name of the layer that a path comes from
	XattrLayers = "user.plyfs.layers" // names of all layers that hold it, one a line, top first
)

// UpperName is what XattrLayer calls the upper layer.
const UpperName = "upper"

// layerName names a lower layer.
func (u *Union) layerName(i int) string {
	if i < len(u.names) {
		return u.names[i]
	}
	return fmt.Sprintf("%016x", u.lowers[i].ID())
}

// introspect answers a request for one of the xattrs above; ok is false for any other.
func (u *Union) introspect(id ID, rec *record, name string) (value string, ok bool, err error) {
	if rest, trusted := strings.CutPrefix(name, "trusted."); trusted {
		name = "user." + rest
	}
	if name != XattrLayer && name != XattrLayers {
		return "", false, nil
	}
	names, err := u.holders(id, rec)
	if err != nil {
		return "", true, err
	}
	if name == XattrLayer {
		names = names[:min(len(names), 1)]
	}
	return strings.Join(names, "\n"), true, nil
}

// holders names the layers that hold the name by which an inode is known, top first.
func (u *Union) holders(id ID, rec *record) ([]string, error) {
	var names []string
	if rec.flags&flagUpper != 0 {
		names = append(names, UpperName)
	}
	if rec.flags&flagDir != 0 {
		for _, r := range u.tab.dir(id).lowers {
			names = append(names, u.layerName(r.layer))
		}
		return names, nil
	}
	_, name, _ := u.tab.getNamed(id)
	d := u.tab.dir(rec.parent)
	if d == nil || rec.flags&flagUnlinked != 0 {
		return names, nil
	}
	for _, r := range d.lowers {
		it, err := u.lowers[r.layer].Lookup(r.entry, name)
		switch {
		case errors.Is(err, unix.ENOENT):
			continue
		case err != nil:
			return nil, err
		case !it.IsWhiteout():
			u.lowers[r.layer].Forget(it.Entry)
			names = append(names, u.layerName(r.layer))
		}
	}
	return names, nil
}
