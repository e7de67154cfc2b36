package fs

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime/debug"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

var (
	// ErrBusy says that a mount is in use.
	ErrBusy = errors.New("in use")
	// ErrNotMounted says that nothing is mounted at a path.
	ErrNotMounted = errors.New("not mounted")
	// ErrNoFUSE says that this machine lets no one, or not this user, mount FUSE filesystems.
	ErrNoFUSE = errors.New("FUSE cannot be mounted")
)

// Config says what to mount, and where.
type Config struct {
	Lowers     []overlay.Layer // top first; the Server closes them
	Names      []string        // of the lowers, for people
	Upper      string          // directory that takes the changes; "" mounts read-only
	Work       string          // directory beside Upper for what is being prepared
	Mountpoint string          // absolute path of an existing directory
	Source     string          // what df and /proc/mounts show as the device
	ReadOnly   bool            // refuse changes though there is an upper layer
	AllowOther bool            // let users other than the one who mounts in; root's mounts want it
	Modes      overlay.Modes
	Options    Options
	// KeepRoot has the root show what the upper directory itself says. Otherwise a fresh one takes over the attributes
	// of the lowers' root.
	KeepRoot bool
	Log      *logrus.Logger
}

// Server serves one mount.
type Server struct {
	union  *overlay.Union
	server *fuse.Server
	done   chan struct{}
}

const (
	subtype       = "plyfs"
	maxWrite      = 1 << 20 // bytes of a WRITE or READ; what the kernel's default of 256 pages allows
	maxBackground = 64      // readahead and writeback requests under way at once
)

// Mount mounts a union and returns when the mount answers. The caller calls Wait.
func Mount(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = logrus.New()
		cfg.Log.SetOutput(io.Discard)
	}
	if err := cfg.Options.checkContext(); err != nil {
		return nil, errors.Join(err, closeAll(cfg.Lowers))
	}
	unix.Umask(0) // modes come from the kernel with the caller's umask applied or beside them
	u, err := overlay.New(overlay.Config{
		Lowers: cfg.Lowers, Names: cfg.Names, Upper: cfg.Upper, Work: cfg.Work,
		AdoptRoot: !cfg.KeepRoot, Modes: cfg.unionModes(), MaxFDs: upperFDs(),
	})
	if err != nil {
		return nil, errors.Join(err, closeAll(cfg.Lowers))
	}
	s := &Server{union: u, done: make(chan struct{})}
	if s.server, err = serve(newRaw(u, &cfg), &cfg); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	setReadAhead(cfg.Mountpoint, cfg.Options.MaxReadAhead)
	go s.run()
	return s, nil
}

func closeAll(layers []overlay.Layer) error {
	var err error
	for _, l := range layers {
		err = errors.Join(err, l.Close())
	}
	return err
}

func (s *Server) run() {
	defer close(s.done)
	s.server.Serve()
}

// Wait returns when the filesystem is unmounted and its layers are closed.
func (s *Server) Wait() error {
	<-s.done
	return s.union.Close()
}

// serve mounts and answers the kernel's INIT.
func serve(r *raw, cfg *Config) (*fuse.Server, error) {
	o := options(cfg)
	fd, err := mountDirect(cfg)
	switch {
	case err == nil:
		s, err := fuse.NewServer(r, fmt.Sprintf("/dev/fd/%d", fd), o)
		if err != nil {
			_ = unix.Unmount(cfg.Mountpoint, unix.MNT_DETACH) // the first error is the one to tell
		}
		return s, err
	case !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES):
		return nil, err
	}
	names, oerr := cfg.Options.fusermountOptions()
	if oerr != nil {
		return nil, oerr
	}
	o.Options = append(o.Options, names...)
	s, merr := fuse.NewServer(r, cfg.Mountpoint, o)
	if merr != nil {
		return nil, fmt.Errorf("%w: %w (mount(2): %w)", ErrNoFUSE, merr, err)
	}
	return s, nil
}

// options are what is asked of the kernel at INIT. CAP_ATOMIC_O_TRUNC must not be among them: OPEN is not sent, and
// with it truncations would be lost.
func options(cfg *Config) *fuse.MountOptions {
	o := &fuse.MountOptions{
		Name: subtype, FsName: cfg.Source,
		MaxWrite: maxWrite, MaxReadAhead: maxWrite, MaxBackground: maxBackground,
		EnableAcl: true, EnableSymlinkCaching: true, ExplicitDataCacheControl: true,
		AllowOther: cfg.AllowOther, IDMappedMount: true,
		Options: []string{"default_permissions"},
		ExtraCapabilities: fuse.CAP_WRITEBACK_CACHE | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_NO_OPENDIR_SUPPORT |
			fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_DONT_MASK | fuse.CAP_SETXATTR_EXT | fuse.CAP_ASYNC_DIO |
			fuse.CAP_EXPORT_SUPPORT,
		Logger: log.New(lines{cfg.Log}, "", 0),
		PanicHandler: func(v any) fuse.Status {
			cfg.Log.Errorf("panic while serving a request: %v\n%s", v, debug.Stack())
			return fuse.EIO
		},
	}
	cfg.Options.apply(o)
	if cfg.readOnly() {
		o.Options = append(o.Options, "ro")
		o.ExtraCapabilities &^= fuse.CAP_WRITEBACK_CACHE
	}
	return o
}

// lines passes on what go-fuse logs.
type lines struct{ log *logrus.Logger }

func (l lines) Write(b []byte) (int, error) {
	l.log.Warn(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (cfg *Config) readOnly() bool { return cfg.ReadOnly || cfg.Upper == "" }

// mountDirect opens /dev/fuse and mounts it with mount(2), which takes root, or root in the user namespace that owns
// the mount namespace. It returns the device's descriptor.
func mountDirect(cfg *Config) (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(cfg.Mountpoint, &st); err != nil {
		return -1, fmt.Errorf("mountpoint %s: %w", cfg.Mountpoint, err)
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: /dev/fuse: %w", ErrNoFUSE, err)
	}
	opts := []string{
		fmt.Sprintf("fd=%d", fd), fmt.Sprintf("rootmode=%o", st.Mode&unix.S_IFMT),
		fmt.Sprintf("user_id=%d", os.Geteuid()), fmt.Sprintf("group_id=%d", os.Getegid()),
		"default_permissions", fmt.Sprintf("max_read=%d", cfg.Options.maxRead()),
	}
	opts = append(opts, cfg.Options.Context...)
	if cfg.AllowOther {
		opts = append(opts, "allow_other")
	}
	flags := cfg.Options.Flags
	if cfg.readOnly() {
		flags |= unix.MS_RDONLY
	}
	source := cfg.Source
	if source == "" {
		source = subtype
	}
	if err := unix.Mount(source, cfg.Mountpoint, "fuse."+subtype, flags, strings.Join(opts, ",")); err != nil {
		_ = unix.Close(fd) // nothing was done with it
		return -1, fmt.Errorf("mount on %s: %w", cfg.Mountpoint, err)
	}
	return fd, nil
}

// Unmount writes what the kernel holds to the upper layer and unmounts. lazy takes the mount out of the tree at once
// though it is in use, and ends it with its last user.
func Unmount(mountpoint string, lazy bool) error {
	// What is dirty goes to the upper layer first, while an error can still be told.
	fd, err := unix.Open(mountpoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Syncfs(fd)
		_ = unix.Close(fd) // a directory: nothing to report
		if err != nil {
			return fmt.Errorf("write back %s: %w", mountpoint, err)
		}
	}
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err = unix.Unmount(mountpoint, flags)
	if errors.Is(err, unix.EPERM) {
		err = fusermount(mountpoint, lazy)
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s: %w", mountpoint, ErrBusy)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: %w", mountpoint, ErrNotMounted)
	case err != nil:
		return fmt.Errorf("unmount %s: %w", mountpoint, err)
	}
	return nil
}
