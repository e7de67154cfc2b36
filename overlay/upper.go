package overlay

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Names of the marks in an upper directory. Those of kernel overlayfs (Documentation/filesystems/overlayfs.rst,
// fs/overlayfs/overlayfs.h) stand behind upper.overlay, where others hide plyfs's own, too.
const (
	xattrOpaque   = "opaque"       // "y": hides what lies below
	xattrImpure   = "impure"       // "y": holds entries whose inode number is that of a lower inode
	xattrRedirect = "redirect"     // where a directory's (or metacopy file's) lower is found
	xattrMetacopy = "metacopy"     // the file's data is still in the lower
	xattrNlink    = "nlink"        // "U+n": links shown, relative to those in the upper layer
	xattrOrigin   = "plyfs.origin" // plyfs's own: see Union.origin. The kernel's "origin" is a file handle
	xattrNumber   = "plyfs.number" // the inode number shown, 8 bytes, of what took the place of another inode
	xattrShown    = "plyfs.shown"  // "y": a 0/0 device that a program made, which hides nothing
)

// indexDir lies in the work directory. It is not called "index", where kernel overlayfs with index=on refuses to mount
// over names that it did not make.
const indexDir = "plyfs-index"

// upper is the writable directory and the directories beside it.
type upper struct {
	root  *openFile // the upper directory, never released before close
	work  int       // …of the directory in which inodes are prepared
	index int       // …of the directory of copied-up hard links

	kernelIndex int // …of kernel overlayfs's own such directory, -1 when there is none

	noAtime int // what files are opened with beside, to leave their times of access alone

	overlay string // prefix of kernel overlayfs's marks: "trusted.overlay." or "user.overlay."
	plain   bool   // no one but plyfs has written it: no whiteout is a file
	over    overrides

	temp      atomic.Uint64 // number of the temporary name used last
	whiteouts atomic.Uint64 // number of the whiteout in work that is linked where one is needed, 0: none yet
}

func openDir(dirfd int, name string) (int, error) {
	return openRetry(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// openUpper opens an upper layer and clears what a crash left in the work directory.
func openUpper(dir, work string, m *Modes) (up *upper, err error) {
	up = &upper{work: -1, index: -1, kernelIndex: -1}
	defer func() {
		if err != nil {
			up.close()
		}
	}()
	fd, base, own := openUpperDirs(dir, work, m)
	if up.noAtime = 0; !own && m.NoAtime {
		up.noAtime = unix.O_NOATIME
	}
	if !own {
		if fd, err = openRetry(unix.AT_FDCWD, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("upper directory %s: %w", dir, err)
		}
	}
	up.root = newOpenFile(fd)
	if !own {
		if base, err = openRetry(unix.AT_FDCWD, work, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("work directory %s: %w", work, err)
		}
	}
	defer unix.Close(base) //nolint:errcheck // nothing was written through it
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &a), unix.Fstat(base, &b)); err != nil {
		return nil, err
	}
	if a.Dev != b.Dev {
		return nil, fmt.Errorf("%w: %s and %s", ErrOtherFilesystem, dir, work)
	}
	if up.work, err = subdir(base, "work"); err != nil {
		return nil, fmt.Errorf("work directory %s: %w", work, err)
	}
	if up.index, err = subdir(base, indexDir); err != nil {
		return nil, fmt.Errorf("work directory %s: %w", work, err)
	}
	if m.KernelIndex {
		up.kernelIndex, err = subdir(base, kernelIndexDir)
	} else {
		up.kernelIndex, err = openDir(base, kernelIndexDir)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !isPermission(err) {
		return nil, fmt.Errorf("work directory %s: %w", work, err)
	}
	if err := up.checkIncompat(work); err != nil {
		return nil, err
	}
	if err := removeChildren(up.work); err != nil {
		return nil, fmt.Errorf("clear work directory %s: %w", work, err)
	}
	if m.Volatile {
		if err := up.markVolatile(); err != nil {
			return nil, fmt.Errorf("work directory %s: %w", work, err)
		}
	}
	if err := up.probe(dir, m.UserXattr); err != nil {
		return nil, err
	}
	return up, up.initOwners(dir, m.Owners)
}

func subdir(base int, name string) (int, error) {
	if err := unix.Mkdirat(base, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return openDir(base, name)
}

// probe finds out which marks the filesystem takes.
func (up *upper) probe(dir string, user bool) error {
	p := place{fd: up.work}
	up.overlay = "trusted.overlay."
	err := error(unix.EPERM)
	if !user {
		err = p.setxattr(up.overlay+xattrOpaque, []byte("n"), 0)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) {
		up.overlay = "user.overlay."
		err = p.setxattr(up.overlay+xattrOpaque, []byte("n"), 0)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: extended attributes: %w", ErrUpperUnsuitable, dir, err)
	}
	if err := p.removexattr(up.overlay + xattrOpaque); err != nil {
		return err
	}
	if err := up.newWhiteout(); err != nil {
		return fmt.Errorf("%w: %s: whiteouts: %w", ErrUpperUnsuitable, dir, err)
	}
	return nil
}

func (up *upper) close() {
	if up == nil {
		return
	}
	up.root.Release()
	for _, fd := range []int{up.work, up.index, up.kernelIndex} {
		if fd >= 0 {
			_ = unix.Close(fd) // directories: nothing to report
		}
	}
}

// tempName returns a name in work that was not used since work was cleared.
func (up *upper) tempName() string { return "#" + strconv.FormatUint(up.temp.Add(1), 16) }

// marks are what the xattrs of an upper inode say about it.
type marks struct {
	opaque, impure, metacopy bool
	redirect                 string
	hasOrigin                bool
	number                   uint64 // inode number to show, 0: made of the others
	originLayer, originIno   uint64
	nlink                    string
}

// readMarks reads the marks of an upper inode of the given type.
func (u *Union) readMarks(p place, mode uint32) (m marks, err error) {
	for range 3 {
		// A mark may go after it was listed: that of a file whose data come up.
		if m, err = u.tryMarks(p, mode); !errors.Is(err, unix.ENODATA) {
			break
		}
	}
	return m, err
}

func (u *Union) tryMarks(p place, mode uint32) (marks, error) {
	var m marks
	if mode != unix.S_IFDIR && mode != unix.S_IFREG && u.up.overlay[0] == 'u' {
		return m, nil // user.* xattrs exist on files and directories alone
	}
	var buf [1024]byte
	n, err := p.listxattr(buf[:])
	list := buf[:max(n, 0)]
	if errors.Is(err, unix.ERANGE) {
		var names []string
		names, err = p.names()
		list = []byte(strings.Join(names, "\x00") + "\x00")
	}
	if errors.Is(err, unix.ENOTSUP) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	return m, u.parseMarks(&m, p, list)
}

func (u *Union) parseMarks(m *marks, p place, list []byte) error {
	for start, i := 0, 0; i < len(list); i++ {
		if list[i] != 0 {
			continue
		}
		name := list[start:i]
		start = i + 1
		if n := string(name); n == "user.overlay.opaque" || n == "user.fuseoverlayfs.opaque" {
			if err := m.set(p, n, xattrOpaque); err != nil {
				return err
			}
			continue
		}
		if len(name) <= len(u.up.overlay) || name[0] != u.up.overlay[0] {
			continue
		}
		key, ours := strings.CutPrefix(string(name), u.up.overlay)
		if !ours {
			continue
		}
		if err := m.set(p, string(name), key); err != nil {
			return err
		}
	}
	return nil
}

func (m *marks) set(p place, name, key string) error {
	if key == xattrMetacopy {
		m.metacopy = true
		return nil
	}
	v, err := p.value(name)
	if err != nil {
		return err
	}
	switch key {
	case xattrOpaque:
		m.opaque = m.opaque || string(v) == "y"
	case xattrImpure:
		m.impure = string(v) == "y"
	case xattrRedirect:
		m.redirect = string(v)
	case xattrNlink:
		m.nlink = string(v)
	case xattrNumber:
		if len(v) == 8 {
			m.number = binary.LittleEndian.Uint64(v)
		}
	case xattrOrigin:
		if len(v) == originLen && v[0] == originVersion {
			m.hasOrigin = true
			m.originLayer = binary.LittleEndian.Uint64(v[1:])
			m.originIno = binary.LittleEndian.Uint64(v[9:])
		}
	}
	return nil
}

const (
	originVersion = 1
	originLen     = 17
)

// origin is the value of the origin mark for an inode of u.lowers[i]: a version byte, the layer's ID and the inode
// number in the layer, little-endian.
func (u *Union) origin(i int, ino uint64) []byte { return originValue(u.lowers[i].ID(), ino) }

func originValue(layer, ino uint64) []byte {
	v := make([]byte, originLen)
	v[0] = originVersion
	binary.LittleEndian.PutUint64(v[1:], layer)
	binary.LittleEndian.PutUint64(v[9:], ino&inoMask)
	return v
}

// indexName is the name in the index directory of the lower inode that has the given origin.
func indexName(origin []byte) string { return hex.EncodeToString(origin) }
