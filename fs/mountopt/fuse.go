package mountopt

import (
	"fmt"
	"os"
	"time"

	"github.com/plyfs/plyfs/fs"
	"github.com/plyfs/plyfs/overlay"
)

const threads = "the server has as many threads as it needs"

// fuseOptions are those of fuse-overlayfs (its main.c and man page) and of libfuse (mount.fuse3(8)).
var fuseOptions = map[string]setter{
	"uidmapping": idMap(func(o *Options, m fs.IDMap) { o.FS.UIDs = m }),
	"gidmapping": idMap(func(o *Options, m fs.IDMap) { o.FS.GIDs = m }),
	"squash_to_root": word(func(o *Options) {
		if o.FS.SquashUID == nil {
			o.FS.SquashUID = new(uint32)
		}
		if o.FS.SquashGID == nil {
			o.FS.SquashGID = new(uint32)
		}
	}),
	"squash_to_uid": number(0, maxID, func(o *Options, n int64) { o.FS.SquashUID = id(n) }),
	"squash_to_gid": number(0, maxID, func(o *Options, n int64) { o.FS.SquashGID = id(n) }),
	"static_nlink":  word(func(o *Options) { o.Union.StaticNlink = true }),
	"noacl":         word(func(o *Options) { o.FS.NoACL = true }),
	"acl":           word(func(o *Options) { o.FS.NoACL = false }),
	"noxattrs":      boolean(func(o *Options, on bool) { o.FS.NoXattrs = on }),
	"fsync":         boolean(func(o *Options, on bool) { o.FS.NoSync = !on }),
	"writeback":     boolean(func(o *Options, on bool) { o.FS.NoWriteback = !on }),
	"threaded":      boolean(func(o *Options, on bool) { o.FS.SingleThread = !on }),
	"fast_ino":      refused("listings and stat show the same inode numbers in any case"),
	"plugins":       refused("there are no plugins"),
	"xattr_permissions": choice("0|1|2", func(o *Options, v string) error {
		o.Union.Owners = map[string]overlay.Owners{
			"0": overlay.OwnersInode, "1": overlay.OwnersSecurity, "2": overlay.OwnersUser,
		}[v]
		return nil
	}),
	"xino": choice("on|auto|off", func(o *Options, v string) error {
		o.FS.Inodes = fs.InodesUnique
		if v == "off" {
			o.FS.Inodes = fs.InodesPlain
		}
		return nil
	}),
	"ino32_t": word(func(o *Options) { o.FS.Inodes = fs.Inodes32 }),
	"timeout": seconds(func(o *Options, d *time.Duration) {
		o.FS.EntryTimeout, o.FS.AttrTimeout, o.FS.NegativeTimeout = d, d, d
	}),
	"entry_timeout":    seconds(func(o *Options, d *time.Duration) { o.FS.EntryTimeout = d }),
	"attr_timeout":     seconds(func(o *Options, d *time.Duration) { o.FS.AttrTimeout = d }),
	"negative_timeout": seconds(func(o *Options, d *time.Duration) { o.FS.NegativeTimeout = d }),

	"allow_other": word(func(o *Options) { o.AllowOther = true }),
	"allow_root": func(_ *Options, opt Option) error {
		if os.Geteuid() == 0 {
			return nil // who mounts is root
		}
		return fmt.Errorf("mount option %s %w: the kernel knows allow_other alone", opt, ErrUnsupported)
	},
	"default_permissions": nothing(),
	"debug":               word(func(o *Options) { o.FS.Debug = true }),
	"fsname": text(func(o *Options, v string) error {
		o.Source = Unescape(v)
		return nil
	}),
	"subtype":        choice("plyfs", func(*Options, string) error { return nil }),
	"max_read":       number(4096, 1<<20, func(o *Options, n int64) { o.FS.MaxRead = int(n) }),
	"max_write":      number(4096, 1<<20, func(o *Options, n int64) { o.FS.MaxWrite = int(n) }),
	"max_readahead":  number(1, 1<<20, func(o *Options, n int64) { o.FS.MaxReadAhead = int(n) }),
	"max_background": number(1, 1<<15, func(o *Options, n int64) { o.FS.MaxBackground = int(n) }),
	"sync_read":      word(func(o *Options) { o.FS.SyncRead = true }),
	"async_read":     word(func(o *Options) { o.FS.SyncRead = false }),
	// Locks are the kernel's own.
	"no_remote_lock":       nothing(),
	"no_remote_posix_lock": nothing(),
	"no_remote_flock":      nothing(),
	"nonempty":             nothing(), // as every mount is since libfuse 3

	"auto_unmount":         refused("unmount with umount -l what a killed server leaves"),
	"clone_fd":             refused(threads),
	"max_threads":          refused(threads),
	"max_idle_threads":     refused(threads),
	"congestion_threshold": refused("it follows max_background"),
	"splice_read":          refused("the server splices where that is quicker"),
	"splice_write":         refused("the server splices where that is quicker"),
	"splice_move":          refused("the server splices where that is quicker"),
	"no_splice_read":       refused("the server splices where that is quicker"),
	"no_splice_write":      refused("the server splices where that is quicker"),
	"no_splice_move":       refused("the server splices where that is quicker"),
	"atomic_o_trunc":       refused("files are not opened at the server"),
	"direct_io":            refused("open with O_DIRECT what is to pass by the cache"),
	"kernel_cache":         nothing(),
	"auto_cache":           refused("the layers must not change beneath a mount"),
	"hard_remove":          refused("an open file outlives its name by itself"),
	"use_ino":              nothing(),
	"readdir_ino":          nothing(),
	"umask":                refused("modes are those of the layers"),
	"uid":                  refused("use squash_to_uid="),
	"gid":                  refused("use squash_to_gid="),
	"modules":              refused("there are no modules"),
	"blkdev":               refused("there is no block device"),
	"fd":                   refused("the device is opened by plyfs"),
	"rootmode":             refused("it is that of the layers"),
	"user_id":              refused("it is that of who mounts"),
	"group_id":             refused("it is that of who mounts"),
	"intr":                 refused("requests are not interrupted"),
	"remember":             refused("the kernel keeps what it knows for as long as it needs it"),
}

func id(n int64) *uint32 {
	v := uint32(n) // #nosec G115 -- bounded by number
	return &v
}

// imageOptions are those of a mount of an image.
var imageOptions = map[string]setter{
	"name": text(func(o *Options, v string) error {
		o.Name = v
		return nil
	}),
	"root": text(func(o *Options, v string) error {
		o.Root = Unescape(v)
		return nil
	}),
}
