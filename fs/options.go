package fs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// ErrOption says that a mount option cannot be honoured here.
var ErrOption = errors.New("mount option cannot be honoured")

// Options say how a mount behaves. The zero value is what images are mounted with.
type Options struct {
	Flags   uintptr  // MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME… of mount(2); MS_RDONLY is Config.ReadOnly
	Context []string // options for the security module, as it takes them: "context=…"

	// How long the kernel may keep names, attributes and the absence of names; nil is for good.
	EntryTimeout, AttrTimeout, NegativeTimeout *time.Duration

	UIDs, GIDs IDMap   // how owners in the layers are shown, and owners given are kept
	SquashUID  *uint32 // whom everything is shown to belong to; takes the place of UIDs on the way out
	SquashGID  *uint32

	NoACL    bool // no POSIX ACLs
	NoXattrs bool // no xattrs at all
	NoSync   bool // fsync does not reach the disk

	Inodes       InodeNumbers
	NoWriteback  bool // each write reaches the server before it returns
	SyncRead     bool // one read of a file at a time
	SingleThread bool // one request at a time
	Debug        bool // log every request

	MaxRead, MaxWrite int // bytes of a READ or WRITE, 0 means 1 MiB
	MaxReadAhead      int // bytes, 0 means 1 MiB
	MaxBackground     int // readahead and writeback requests under way at once, 0 means 64
}

// InodeNumbers is which inode numbers are shown. Within the server they are always the same.
type InodeNumbers uint8

const (
	// InodesUnique have the layer in the upper 16 bits: no two files have the same.
	InodesUnique InodeNumbers = iota
	// InodesPlain are those of the layers' own filesystems, unique when these are one filesystem.
	InodesPlain
	// Inodes32 fit 32 bits, for programs that can take no more; two files may have the same.
	Inodes32
)

func (n InodeNumbers) show(ino uint64) uint64 {
	switch n {
	case InodesPlain:
		return ino & (1<<48 - 1)
	case Inodes32:
		return uint64(uint32(ino) ^ uint32(ino>>32)*0x9e3779b1) // #nosec G115 -- folded on purpose
	default:
		return ino
	}
}

// validity is how long the kernel may keep something, in the protocol's form.
type validity struct {
	sec  uint64
	nsec uint32
}

func validFor(d *time.Duration) validity {
	if d == nil {
		return validity{sec: forever}
	}
	return validity{uint64(*d / time.Second), uint32(*d % time.Second)} // #nosec G115 -- options are not negative
}

// apply makes go-fuse's options of ours.
func (o *Options) apply(m *fuse.MountOptions) {
	m.EnableAcl = !o.NoACL && !o.NoXattrs
	m.DisableXAttrs = o.NoXattrs
	m.SyncRead = o.SyncRead
	m.SingleThreaded = o.SingleThread
	m.Debug = o.Debug
	if o.NoWriteback {
		m.ExtraCapabilities &^= fuse.CAP_WRITEBACK_CACHE
	}
	for _, f := range []struct{ to, from *int }{
		{&m.MaxWrite, &o.MaxWrite}, {&m.MaxReadAhead, &o.MaxReadAhead}, {&m.MaxBackground, &o.MaxBackground},
	} {
		if *f.from != 0 {
			*f.to = *f.from
		}
	}
}

func (o *Options) maxRead() int {
	if o.MaxRead != 0 {
		return o.MaxRead
	}
	return maxWrite
}

// flagNames are what fusermount3 calls flags of mount(2).
var flagNames = []struct {
	flag uintptr
	name string
}{
	{unix.MS_NOSUID, "nosuid"},
	{unix.MS_NODEV, "nodev"},
	{unix.MS_NOEXEC, "noexec"},
	{unix.MS_NOATIME, "noatime"},
	{unix.MS_NODIRATIME, "nodiratime"},
	{unix.MS_SYNCHRONOUS, "sync"},
	{unix.MS_DIRSYNC, "dirsync"},
	{unix.MS_NOSYMFOLLOW, "nosymfollow"},
}

// fusermountOptions are the options that a mount by fusermount3 takes. It adds nosuid and nodev by itself.
func (o *Options) fusermountOptions() ([]string, error) {
	var names []string
	left := o.Flags &^ (unix.MS_RELATIME | unix.MS_SILENT)
	for _, f := range flagNames {
		if left&f.flag != 0 {
			names = append(names, f.name)
			left &^= f.flag
		}
	}
	if left != 0 || len(o.Context) > 0 {
		return nil, fmt.Errorf("%w by a user without privilege: mount flags %#x %s", ErrOption, left, strings.Join(o.Context, ","))
	}
	return names, nil
}

// checkContext refuses labels where no module would heed them, which the kernel does with a bare EINVAL.
func (o *Options) checkContext() error {
	if len(o.Context) == 0 {
		return nil
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		return fmt.Errorf("%w: %s: SELinux is not enabled on this machine", ErrOption, o.Context[0])
	}
	return nil
}

// unionModes are the modes of the union that follow from the mount's flags.
func (cfg *Config) unionModes() overlay.Modes {
	m := cfg.Modes
	m.NoAtime = m.NoAtime || cfg.Options.Flags&unix.MS_NOATIME != 0
	m.NoDirAtime = m.NoDirAtime || cfg.Options.Flags&unix.MS_NODIRATIME != 0
	return m
}
