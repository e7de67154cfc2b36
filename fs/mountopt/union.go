package mountopt

import (
	"fmt"

	"github.com/plyfs/plyfs/overlay"
)

// overlayOptions are those of kernel overlayfs (Documentation/filesystems/overlayfs.rst, fs/overlayfs/params.c).
var overlayOptions = map[string]setter{
	"lowerdir": text(func(o *Options, v string) (err error) {
		o.Lowers, err = splitLowers(v)
		return err
	}),
	"lowerdir+": text(func(o *Options, v string) error {
		o.Lowers = append(o.Lowers, Unescape(v))
		return nil
	}),
	"datadir+": refused("there are no layers of data alone"),
	"upperdir": text(func(o *Options, v string) error {
		o.Upper = Unescape(v)
		return nil
	}),
	"workdir": text(func(o *Options, v string) error {
		o.Work = Unescape(v)
		return nil
	}),
	"upperdir+": refused("there is one upper directory"),
	"redirect_dir": choice("on|follow|nofollow|off", func(o *Options, v string) error {
		// With off the kernel follows redirects all the same, unless its module parameter redirect_always_follow was
		// changed.
		o.Union.Redirect = map[string]overlay.RedirectMode{
			"on": overlay.RedirectOn, "follow": overlay.RedirectFollow, "off": overlay.RedirectFollow,
			"nofollow": overlay.RedirectNoFollow,
		}[v]
		return nil
	}),
	"metacopy": choice("on|off", func(o *Options, v string) error {
		o.Union.NoMetacopy = v == "off"
		return nil
	}),
	"index": choice("on|off", func(o *Options, v string) error {
		o.Union.NoIndex, o.Union.KernelIndex = v == "off", v == "on"
		return nil
	}),
	"nfs_export": choice("on|off", func(o *Options, v string) error {
		o.Union.KeepNodes = v == "on"
		return nil
	}),
	"uuid": choice("on|off|null|auto", func(_ *Options, v string) error {
		if v == "on" {
			return fmt.Errorf("mount option uuid=on %w: a FUSE filesystem has no UUID", ErrUnsupported)
		}
		return nil
	}),
	"verity": choice("on|off|require", func(_ *Options, v string) error {
		if v != "off" {
			return fmt.Errorf("mount option verity=%s %w: digests of lower files are not checked", v, ErrUnsupported)
		}
		return nil
	}),
	"userxattr": word(func(o *Options) {
		o.Union.UserXattr = true
		o.set["userxattr"] = ""
	}),
	"volatile": word(func(o *Options) {
		o.Union.Volatile = true
		o.FS.NoSync = true
	}),
	"override_creds":   nothing(),
	"nooverride_creds": refused("the server reads and writes the layers as who started it"),
}

// settle checks what options mean together, in the way of the kernel's ovl_fs_params_verify.
func (o *Options) settle() error {
	switch {
	case len(o.Lowers) == 0:
		return fmt.Errorf("%w: lowerdir= is missing", ErrInvalid)
	case len(o.Lowers) > overlay.MaxLayers:
		return fmt.Errorf("%w: %d lower directories, at most %d", ErrInvalid, len(o.Lowers), overlay.MaxLayers)
	case o.Upper != "" && o.Work == "":
		return fmt.Errorf("%w: upperdir=%s needs a workdir= on the same filesystem", ErrInvalid, o.Upper)
	case o.Upper == "" && o.Work != "":
		return fmt.Errorf("%w: workdir=%s is of no use without upperdir=", ErrInvalid, o.Work)
	case o.Upper == "" && o.Union.Volatile:
		return fmt.Errorf("%w: volatile is of no use without upperdir=", ErrInvalid)
	}
	redirect, metacopy := o.set["redirect_dir"], o.set["metacopy"]
	if _, ok := o.set["userxattr"]; ok {
		if redirect == "on" || redirect == "follow" {
			return conflict("userxattr", "redirect_dir="+redirect)
		}
		if metacopy == "on" {
			return conflict("userxattr", "metacopy=on")
		}
		o.Union.Redirect, o.Union.NoMetacopy = overlay.RedirectNoFollow, true
	}
	if metacopy == "on" && o.Upper != "" && redirect != "" && redirect != "on" {
		return conflict("metacopy=on", "redirect_dir="+redirect)
	}
	return nil
}

func conflict(a, b string) error {
	return fmt.Errorf("%w: %s and %s contradict each other", ErrInvalid, a, b)
}
