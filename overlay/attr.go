package overlay

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// GetAttr fills in the attributes of an inode.
func (u *Union) GetAttr(id ID, a *Attr) error {
	e := u.earlyNow(id)
	rec, ok := u.tab.get(id)
	if !ok {
		return unix.ESTALE
	}
	if err := u.getAttr(id, &rec, a); err != nil {
		return err
	}
	if e != nil && !rec.hasData() {
		e.amend(a)
	}
	return nil
}

func (u *Union) getAttr(id ID, rec *record, a *Attr) error {
	if rec.flags&flagUpper == 0 {
		return u.lowerAttr(id, rec, a)
	}
	var st unix.Stat_t
	delta := 0
	err := u.withPlace(id, func(p place) error {
		if rec.flags&flagIndexed != 0 {
			v, err := p.value(u.up.overlay + xattrNlink)
			if err == nil {
				delta = parseNlink(string(v))
			}
		}
		return u.up.over.stat(p, &st)
	})
	if err != nil {
		return err
	}
	return u.upperAttr(id, rec, &st, delta, a)
}

// fillAttr fills in the attributes of an inode that was just found.
func (u *Union) fillAttr(id ID, f *found, a *Attr) error {
	if u.earlyNow(id) != nil {
		return u.GetAttr(id, a)
	}
	rec, ok := u.tab.get(id)
	if !ok {
		return unix.ESTALE
	}
	switch {
	case rec.flags&flagUpper == 0:
		return u.lowerAttr(id, &rec, a)
	case f.upper:
		return u.upperAttr(id, &rec, &f.st, parseNlink(f.marks.nlink), a)
	}
	return u.GetAttr(id, a)
}

func (u *Union) lowerAttr(id ID, rec *record, a *Attr) error {
	l, e, err := u.lowerEntry(id, rec)
	if err != nil {
		return u.emptyRoot(a)
	}
	if err := l.Attr(e, a); err != nil {
		return err
	}
	a.Ino = rec.ino
	if rec.flags&flagUnlinked != 0 {
		a.Nlink = 0
		return nil
	}
	return u.dirNlink(id, rec, a)
}

// emptyRoot is the root of a union of nothing.
func (u *Union) emptyRoot(a *Attr) error {
	*a = Attr{Ino: 1, Mode: unix.S_IFDIR | 0o755, Nlink: 2, Size: 4096, Blksize: 4096}
	return nil
}

func (u *Union) upperAttr(id ID, rec *record, st *unix.Stat_t, nlinkDelta int, a *Attr) error {
	fromStat(a, st)
	a.Ino = rec.ino
	if nlinkDelta != 0 {
		a.Nlink = uint32(min(max(int(a.Nlink)+nlinkDelta, 1), 1<<31)) // #nosec G115 -- bounded, whatever the mark says
	}
	if rec.flags&flagMetacopy != 0 {
		a.Blocks = (a.Size + 511) / 512
	}
	return u.dirNlink(id, rec, a)
}

// dirNlink corrects the link count of a directory that is merged of several.
func (u *Union) dirNlink(id ID, rec *record, a *Attr) error {
	if rec.flags&flagDir == 0 || rec.flags&flagUnlinked != 0 {
		return nil
	}
	if u.modes.StaticNlink {
		a.Nlink = 1
		return nil
	}
	d := u.tab.dir(id)
	if d == nil || len(d.lowers) == 0 || len(d.lowers) == 1 && rec.flags&flagUpper == 0 {
		return nil
	}
	n := d.subdirs.Load()
	if n == 0 {
		v := d.version.Load()
		count, err := u.countSubdirs(id)
		if err != nil {
			return err
		}
		n = count + 1
		if d.version.Load() == v {
			d.subdirs.CompareAndSwap(0, n)
		}
	}
	a.Nlink = uint32(n) + 1 // #nosec G115 -- not negative
	return nil
}

// addSubdirs keeps the count of a directory's subdirectories.
func (d *dir) addSubdirs(n int32) {
	for {
		old := d.subdirs.Load()
		if old == 0 || d.subdirs.CompareAndSwap(old, old+n) {
			return
		}
	}
}

// parseNlink reads the nlink mark, "U+n" or "U-n": links shown less links in the upper layer.
func parseNlink(v string) int {
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimPrefix(v, "U"))
	if err != nil || !strings.HasPrefix(v, "U") {
		return 0
	}
	return n
}

func formatNlink(n int) []byte {
	if n < 0 {
		return []byte("U" + strconv.Itoa(n))
	}
	return []byte("U+" + strconv.Itoa(n))
}

// FromStat sets attributes to what stat(2) returned.
func (a *Attr) FromStat(st *unix.Stat_t) { fromStat(a, st) }

// fromStat converts what stat(2) returns. Device numbers take the form the FUSE protocol and the layers use.
func fromStat(a *Attr, st *unix.Stat_t) {
	*a = Attr{
		Ino: st.Ino, Size: uint64(max(st.Size, 0)), Blocks: uint64(max(st.Blocks, 0)),
		Mode: st.Mode, Nlink: uint32(min(st.Nlink, 1<<31)), UID: st.Uid, GID: st.Gid, // #nosec G115 -- bounded
		Rdev:    encodeDev(st.Rdev),
		Blksize: uint32(min(max(st.Blksize, 512), 1<<30)), // #nosec G115 -- bounded
		Atime:   timespec(st.Atim), Mtime: timespec(st.Mtim), Ctime: timespec(st.Ctim),
	}
}

func (t Timespec) unix() unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)} }

func timespec(t unix.Timespec) Timespec {
	return Timespec{Sec: t.Sec, Nsec: uint32(t.Nsec)} // #nosec G115 -- below 1e9
}

// encodeDev is new_encode_dev of include/linux/kdev_t.h.
func encodeDev(dev uint64) uint32 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return minor&0xff | major<<8 | (minor&^0xff)<<12
}

// decodeDev is new_decode_dev.
func decodeDev(dev uint32) uint64 {
	return unix.Mkdev(dev&0xfff00>>8, dev&0xff|dev>>12&0xfff00)
}
