package overlay

import (
	"encoding/hex"
	"errors"

	"golang.org/x/sys/unix"
)

// Kernel overlayfs with index=on keeps the hard links of lower files together by a directory of its own in the work
// directory, whose names are the file handles of the lower files in hexadecimal (fs/overlayfs/namei.c:
// ovl_get_index_name_fh), those of the origin marks of the upper ones. Where it is there, plyfs goes on with what it
// holds, and adds what it copies up itself.
const (
	kernelIndexDir = "index"
	xattrKernel    = "origin" // struct ovl_fb of fs/overlayfs/overlayfs.h
)

// handleHeader is how a struct ovl_fb begins: version, magic number, length of the whole, flags, all on a machine that
// is little-endian; then come the handle's type, the UUID of its filesystem and the handle.
const (
	handleVersion = 0
	handleMagic   = 0xfb
	handleHeader  = 5
)

// kernelOrigin is the origin mark that the kernel gives a copy of a lower inode, nil when it gives none.
func (u *Union) kernelOrigin(layer int, e Entry) []byte {
	l, ok := u.lowers[layer].(*DirLayer)
	if !ok {
		return nil
	}
	var h unix.FileHandle
	err := l.withPlace(entryID(e), func(p place) (err error) {
		h, _, err = unix.NameToHandleAt(p.fd, p.name, unix.AT_EMPTY_PATH)
		return err
	})
	if err != nil || h.Type() < 0 || h.Type() > 0xfe {
		return nil // the filesystem has no handles
	}
	uuid, _ := uuidOf(l.root.fd)
	n := handleHeader + len(uuid) + h.Size()
	b := append([]byte{handleVersion, handleMagic, byte(n), 0, byte(h.Type())}, uuid[:]...) // #nosec G115 -- below 256
	return append(b, h.Bytes()...)
}

// adoptLower looks for the copy of a lower hard link in the kernel's index, and has plyfs's own name it too. It reports
// whether there is one.
func (u *Union) adoptLower(layer int, it Item) (bool, error) {
	if u.up.kernelIndex < 0 {
		return false, nil
	}
	mark := u.kernelOrigin(layer, it.Entry)
	if mark == nil {
		return false, nil
	}
	return u.adopt(place{u.up.kernelIndex, hex.EncodeToString(mark)}, layer, it)
}

// adoptUpper does the same for an upper file of which one name was found.
func (u *Union) adoptUpper(p place, d *dir, f *found) error {
	if u.up.kernelIndex < 0 || f.marks.nlink == "" || f.marks.hasOrigin {
		return nil
	}
	mark, err := p.value(u.up.overlay + xattrKernel)
	if err != nil {
		return ignoreNoData(err)
	}
	layer, it, err := u.lowerOf(d, p.name, mark)
	if err != nil || layer < 0 {
		return err
	}
	done, err := u.adopt(place{u.up.kernelIndex, hex.EncodeToString(mark)}, layer, it)
	if err == nil && done {
		f.marks, err = u.readMarks(p, f.mode)
	}
	if err == nil {
		err = u.up.over.stat(p, &f.st)
	}
	return err
}

// lowerOf finds the lower inode that has the handle of an origin mark, -1 for none. Its Entry is not held. Most often it
// has the name that the copy has. Of one that was renamed the handle tells the filesystem alone: where several lower
// directories lie on that it is not known, until another of its names is looked up.
func (u *Union) lowerOf(d *dir, name string, mark []byte) (int, Item, error) {
	for _, r := range d.lowers {
		it, err := u.lowers[r.layer].Lookup(r.entry, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return -1, it, err
		}
		if it.IsWhiteout() {
			break
		}
		same := string(u.kernelOrigin(r.layer, it.Entry)) == string(mark)
		u.lowers[r.layer].Forget(it.Entry)
		if same {
			return r.layer, it, nil
		}
		break
	}
	const fid = handleHeader + 16
	if len(mark) <= fid {
		return -1, Item{}, nil
	}
	layer, it := -1, Item{}
	for i := range u.lowers {
		l, ok := u.lowers[i].(*DirLayer)
		if !ok {
			continue
		}
		if uuid, _ := uuidOf(l.root.fd); string(uuid[:]) != string(mark[handleHeader:fid]) {
			continue
		}
		fd, err := unix.OpenByHandleAt(l.root.fd, unix.NewFileHandle(int32(mark[4]), mark[fid:]), unix.O_PATH|unix.O_CLOEXEC)
		if err != nil {
			continue // gone, or of another filesystem
		}
		var st unix.Stat_t
		err = errors.Join(unix.Fstat(fd, &st), unix.Close(fd))
		if err != nil || st.Dev != l.dev {
			continue
		}
		if layer >= 0 {
			return -1, it, nil
		}
		layer, it = i, Item{Ino: l.ino(&st), Mode: st.Mode & unix.S_IFMT, Flags: FlagLinked}
	}
	return layer, it, nil
}

func (u *Union) adopt(p place, layer int, it Item) (bool, error) {
	u.adoptMu.Lock()
	defer u.adoptMu.Unlock()
	var st unix.Stat_t
	if err := p.stat(&st); errors.Is(err, unix.ENOENT) {
		return false, nil
	} else if err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR || isNull(&st) {
		return false, err
	}
	own := u.origin(layer, it.Ino)
	to := place{u.up.index, indexName(own)}
	if there, err := exists(to); there || err != nil {
		return there, err
	}
	v, err := p.value(u.up.overlay + xattrNlink)
	if err != nil {
		return false, ignoreNoData(err)
	}
	delta := parseNlink(string(v))
	if len(v) > 0 && v[0] == 'L' {
		return false, nil // less those of the lower file: a link was begun and not ended
	}
	if err := p.setxattr(u.up.overlay+xattrOrigin, own, 0); err != nil {
		return false, err
	}
	if err := unix.Linkat(p.fd, p.name, to.fd, to.name, 0); err != nil {
		return false, err
	}
	return true, to.setxattr(u.up.overlay+xattrNlink, formatNlink(delta-1), 0)
}

func ignoreNoData(err error) error {
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

// indexForKernel gives a lower hard link that was just put into plyfs's index a name in the kernel's, and returns how
// many links that are.
func (w *working) indexForKernel(ip place) (int, error) {
	up := w.u.up
	if up.kernelIndex < 0 {
		return 0, nil
	}
	mark := w.u.kernelOrigin(w.layer, w.entry)
	if mark == nil {
		return 0, nil
	}
	if err := ip.setxattr(up.overlay+xattrKernel, mark, 0); err != nil {
		return 0, err
	}
	err := unix.Linkat(ip.fd, ip.name, up.kernelIndex, hex.EncodeToString(mark), 0)
	if errors.Is(err, unix.EEXIST) {
		return 0, nil
	}
	return 1, err
}

// dropKernelIndexed takes a file out of the kernel's index whose last name is gone.
func (up *upper) dropKernelIndexed(p place) error {
	if up.kernelIndex < 0 {
		return nil
	}
	mark, err := p.value(up.overlay + xattrKernel)
	if err != nil {
		return ignoreMissing(ignoreNoData(err))
	}
	return ignoreMissing(unix.Unlinkat(up.kernelIndex, hex.EncodeToString(mark), 0))
}
