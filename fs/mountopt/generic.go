package mountopt

import (
	"golang.org/x/sys/unix"
)

// on and off are options that set and clear flags of mount(2).
func on(flags uintptr) setter  { return word(func(o *Options) { o.FS.Flags |= flags }) }
func off(flags uintptr) setter { return word(func(o *Options) { o.FS.Flags &^= flags }) }

const another = "that is done to a mount that exists: use mount(8) without a type"

// genericOptions are those that mount(8) documents for every filesystem.
var genericOptions = map[string]setter{
	"defaults": word(func(o *Options) {
		o.FS.Flags &^= unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_SYNCHRONOUS
		o.ReadOnly = false
	}),
	"ro":            word(func(o *Options) { o.ReadOnly = true }),
	"rw":            word(func(o *Options) { o.ReadOnly = false }),
	"suid":          off(unix.MS_NOSUID),
	"nosuid":        on(unix.MS_NOSUID),
	"dev":           off(unix.MS_NODEV),
	"nodev":         on(unix.MS_NODEV),
	"exec":          off(unix.MS_NOEXEC),
	"noexec":        on(unix.MS_NOEXEC),
	"sync":          on(unix.MS_SYNCHRONOUS),
	"async":         off(unix.MS_SYNCHRONOUS),
	"dirsync":       on(unix.MS_DIRSYNC),
	"atime":         off(unix.MS_NOATIME),
	"noatime":       on(unix.MS_NOATIME),
	"diratime":      off(unix.MS_NODIRATIME),
	"nodiratime":    on(unix.MS_NODIRATIME),
	"relatime":      on(unix.MS_RELATIME),
	"norelatime":    off(unix.MS_RELATIME),
	"strictatime":   refused("the server is not told of reads from the page cache; use relatime"),
	"nostrictatime": nothing(),
	"lazytime":      refused("times are the upper filesystem's: mount that with lazytime"),
	"nolazytime":    nothing(),
	"symfollow":     off(unix.MS_NOSYMFOLLOW),
	"nosymfollow":   on(unix.MS_NOSYMFOLLOW),
	"silent":        on(unix.MS_SILENT),
	"loud":          off(unix.MS_SILENT),
	"mand":          refused("Linux has no mandatory locks since 5.15"),
	"nomand":        nothing(),
	"iversion":      refused("a FUSE filesystem counts no versions"),
	"noiversion":    nothing(),

	"context":     context,
	"fscontext":   context,
	"defcontext":  context,
	"rootcontext": context,
	"seclabel":    refused("the kernel shows it, it is not asked for"),

	// For mount(8), umount(8) and systemd.
	"auto": nothing(), "noauto": nothing(), "nofail": nothing(), "_netdev": nothing(),
	"nogroup": nothing(), "noowner": nothing(), "nouser": nothing(), "nousers": nothing(),
	"user":    implying(unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV),
	"users":   implying(unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV),
	"group":   implying(unix.MS_NOSUID | unix.MS_NODEV),
	"owner":   implying(unix.MS_NOSUID | unix.MS_NODEV),
	"comment": ignored(), "helper": ignored(), "uhelper": ignored(),

	"remount": refused("unmount and mount again"),
	"bind":    refused(another), "rbind": refused(another), "move": refused(another),
	"shared": refused(another), "rshared": refused(another), "slave": refused(another), "rslave": refused(another),
	"private": refused(another), "rprivate": refused(another),
	"unbindable": refused(another), "runbindable": refused(another),
	"loop": refused("layers are directories"), "offset": refused("layers are directories"),
	"sizelimit": refused("layers are directories"),
}

func isContext(name string) bool {
	return name == "context" || name == "fscontext" || name == "defcontext" || name == "rootcontext"
}

// context passes a label on to the security module, quotes and all.
func context(o *Options, opt Option) error {
	return text(func(o *Options, _ string) error {
		o.FS.Context = append(o.FS.Context, opt.String())
		return nil
	})(o, opt)
}

// implying is an option that implies others unless they follow it. mount(8) gives user= the name of who mounts.
func implying(flags uintptr) setter {
	return func(o *Options, _ Option) error {
		o.FS.Flags |= flags
		return nil
	}
}
