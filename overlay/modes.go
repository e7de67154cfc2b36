package overlay

import (
	"errors"
	"fmt"
	"hash/fnv"

	"golang.org/x/sys/unix"
)

// ErrIncompatible says that an upper layer was left in a state that must be judged before it is mounted again.
var ErrIncompatible = errors.New("upper layer was used in a way that forbids mounting it again")

// RedirectMode says what a union makes of redirects: marks of a directory that was renamed, which tell where its lower
// contents lie. The words are those of kernel overlayfs (Documentation/filesystems/overlayfs.rst).
type RedirectMode uint8

const (
	// RedirectOn renames a directory that has lower contents by leaving a redirect, and follows redirects.
	RedirectOn RedirectMode = iota
	// RedirectFollow follows redirects, but makes none: such a rename is EXDEV.
	RedirectFollow
	// RedirectNoFollow makes none either, and a directory that has one is EPERM.
	RedirectNoFollow
)

// Modes say how a union keeps what is written. The zero value is what images are mounted with: nothing is copied that
// need not be, and every name and number stays what it was.
type Modes struct {
	// NoMetacopy copies a file's data up together with its attributes. Data left in a lower layer by others are found
	// all the same.
	NoMetacopy bool
	Redirect   RedirectMode
	// NoIndex lets the names of a lower hard link come apart: each becomes a file of its own once it is written.
	NoIndex bool
	// KernelIndex makes the directory in which kernel overlayfs with index=on finds hard links, if it is not there.
	KernelIndex bool
	// StaticNlink shows every directory with one link, which spares counting its subdirectories.
	StaticNlink bool
	// UserXattr keeps the marks in user.* xattrs also where trusted.* could be had.
	UserXattr bool
	// Volatile never waits for the disk, and leaves a mark in the work directory because of which the upper layer
	// cannot be mounted again until someone has judged it whole and removed the mark.
	Volatile bool
	// Owners says where owners and modes are kept.
	Owners Owners
	// KeepNodes keeps every inode that was looked up until its last name is gone, so that a file handle of it is good for
	// as long as the union is mounted. It takes memory for each: less than half a
	// KiB, that of its layer included.
	KeepNodes bool
	// NoAtime leaves the times of access of the upper layer alone, NoDirAtime those of its directories. Otherwise what is
	// read has its time set when that is not after its last change, or a day old (relatime of mount(8)).
	NoAtime, NoDirAtime bool
}

// movable reports whether what a name stands for can be renamed: a directory with lower contents only by a redirect.
func (u *Union) movable(e *end) bool {
	if u.modes.Redirect == RedirectOn || !e.isDir() {
		return true
	}
	d := u.tab.dir(e.id)
	return d == nil || len(d.lowers) == 0
}

// apartLayer stands for the layer in the origin mark of a name that came apart from a lower hard link.
const apartLayer = 1<<64 - 1

// takeApart makes a name of a lower hard link a file of its own, whose number says which name it is.
func (u *Union) takeApart(parent ID, name string, f *found) {
	if !f.linked() {
		return
	}
	f.item.Flags &^= FlagLinked
	f.face.Flags &^= FlagLinked
	if f.upper {
		return
	}
	rec, _ := u.tab.get(parent)
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%x/%s", rec.ino, name) // a hash takes everything
	f.apart = inoBesides<<inoBits | h.Sum64()&inoMask
}

// apartOrigin is the origin mark of a name that came apart.
func apartOrigin(ino uint64) []byte { return originValue(apartLayer, ino) }

// The directory below the work directory in which kernel overlayfs says that an upper layer must not be mounted again,
// with a directory for each reason (fs/overlayfs/super.c: ovl_create_volatile_dirty, ovl_workdir_cleanup).
const incompatDir = "incompat"

// checkIncompat refuses a work directory in which a reason stands.
func (up *upper) checkIncompat(work string) error {
	fd, err := openDir(up.work, incompatDir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("work directory %s: %w", work, err)
	}
	reason := ""
	err = readNames(fd, func(name string, _ uint64, _ uint8) error {
		reason = name
		return nil
	})
	if err = errors.Join(err, unix.Close(fd)); err != nil || reason == "" {
		return err
	}
	return fmt.Errorf("%w (%s): when the files are whole, remove %s/work/%s", ErrIncompatible, reason, work, incompatDir)
}

// markVolatile leaves the mark that kernel overlayfs leaves.
func (up *upper) markVolatile() error {
	at := up.work
	for _, name := range []string{incompatDir, "volatile"} {
		fd, err := subdir(at, name)
		if at != up.work {
			err = errors.Join(err, unix.Close(at))
		}
		if err != nil {
			return err
		}
		at = fd
	}
	fd, err := openRetry(at, "dirty", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err == nil {
		err = errors.Join(unix.Fsync(fd), unix.Close(fd))
	}
	return errors.Join(err, unix.Close(at))
}
