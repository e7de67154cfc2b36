package container

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/fs"
	"github.com/plyfs/plyfs/fs/mountopt"
	"github.com/plyfs/plyfs/layerstore"
	"github.com/plyfs/plyfs/overlay"
)

// ServeCommand is the hidden command by which [Mount] has this binary run [ServeMain] in the background.
const ServeCommand = "serve-mount"

// gcPercent trades a little garbage collection for memory: one machine runs a server for every mounted container. There
// is no memory limit beside it. What a server holds grows with the files that the kernel holds, and a heap that outgrows
// a limit makes the collector run without pause, just when the server has most to do.
const gcPercent = 50

// ServeOptions say where [Serve] mounts and whom it tells.
type ServeOptions struct {
	Mountpoint string                  // absolute
	Options    string                  // mount options, as mountopt.Image reads them
	Ready      func(mountpoint string) // called once when the mount answers; may be nil
}

// Serve mounts a container and serves it until it is unmounted. When ctx ends, Serve unmounts it; programs that still use
// it keep it, detached, until the last of them ends. It returns ErrMounted when the container is served already,
// ErrMountpoint when it cannot be mounted there.
func Serve(ctx context.Context, st *layerstore.Store, id string, o ServeOptions) (err error) {
	c, err := st.Container(ctx, id)
	if err != nil {
		return err
	}
	options, _, err := mountopt.Image([]string{o.Options}, true) // whoever gave them was told what they are worth
	if err != nil {
		return err
	}
	lock, err := lockContainer(st, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if err := detachDead(c.ID); err != nil {
		return err
	}
	mountpoint, err := checkMountpoint(o.Mountpoint)
	if err != nil {
		return err
	}
	layers, err := openLayers(ctx, st, c)
	if err != nil {
		return err
	}
	server, err := fs.Mount(config(st, c, layers, mountpoint, &options)) // which closes the layers, also with an error
	if err != nil {
		return explainMount(c, mountpoint, err)
	}
	if o.Ready != nil {
		o.Ready(mountpoint)
	}
	remember(ctx, st, c, mountpoint)
	debug.FreeOSMemory() // mounting leaves garbage that a server which idles would never collect
	defer context.AfterFunc(ctx, func() { unmountOwn(mountpoint) })()
	return server.Wait()
}

// config describes a container's mount.
func config(st *layerstore.Store, c layerstore.Container, layers []overlay.Layer, mountpoint string, o *mountopt.Options) fs.Config {
	cfg := fs.Config{
		Lowers:     layers,
		Mountpoint: mountpoint,
		Source:     mountSource(c.ID),
		ReadOnly:   c.ReadOnly || o.ReadOnly,
		AllowOther: o.AllowOther || os.Geteuid() == 0,
		Modes:      o.Union,
		Options:    o.FS,
		Log:        logrus.StandardLogger(),
	}
	for _, diffID := range slices.Backward(c.Layers) {
		cfg.Names = append(cfg.Names, diffID.String())
	}
	if !c.ReadOnly {
		dir := st.ContainerDir(c.ID)
		cfg.Upper = filepath.Join(dir, "upper")
		cfg.Work = filepath.Join(dir, "work")
		if !mayGiveAway() {
			cfg.Modes.Owners = overlay.OwnersUser
		}
	}
	return cfg
}

// mayGiveAway reports whether this process may give files to the owners that images know: 16 bits of them, for a root
// whose user namespace has them.
func mayGiveAway() bool {
	const owners = 1 << 16
	if os.Geteuid() != 0 {
		return false
	}
	for _, name := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		text, err := os.ReadFile(name) // #nosec G304 -- one of two
		if err != nil {
			return true // a kernel without user namespaces
		}
		count := uint64(0) // owners from 0 on, whose ranges are in order
		for line := range strings.Lines(string(text)) {
			var first, host, n uint64
			if _, err := fmt.Sscan(line, &first, &host, &n); err == nil && first == count {
				count += n
			}
		}
		if count < owners {
			return false
		}
	}
	return true
}

// openLayers opens a container's layers, top first: all or none.
func openLayers(ctx context.Context, st *layerstore.Store, c layerstore.Container) ([]overlay.Layer, error) {
	layers := make([]overlay.Layer, 0, len(c.Layers))
	for _, diffID := range slices.Backward(c.Layers) {
		l, err := st.OpenLayer(ctx, diffID)
		if err != nil {
			err = fmt.Errorf("container %s: %w", c.Name, err)
			for _, l := range layers {
				err = errors.Join(err, l.Close())
			}
			return nil, err
		}
		layers = append(layers, l)
	}
	return layers, nil
}

// remember records where a container is mounted. That is for people to read: failing to is no reason to unmount.
func remember(ctx context.Context, st *layerstore.Store, c layerstore.Container, mountpoint string) {
	if c.Mountpoint == mountpoint || c.Mountpoint == "" && mountpoint == defaultMountpoint(st, c.ID) {
		return
	}
	c.Mountpoint = mountpoint
	if err := st.UpdateContainer(ctx, c); err != nil {
		logrus.WithError(err).Warn("The container's last mountpoint is not recorded")
	}
}

// unmountOwn unmounts what this process serves, at once or, while programs use it, once they have ended.
func unmountOwn(mountpoint string) {
	err := fs.Unmount(mountpoint, false)
	if errors.Is(err, fs.ErrBusy) {
		logrus.Warnf("%s is in use: detached, and served until its last program ends", mountpoint)
		err = fs.Unmount(mountpoint, true)
	}
	if err != nil && !errors.Is(err, fs.ErrNotMounted) {
		logrus.WithError(err).Errorf("%s cannot be unmounted", mountpoint)
	}
}

// serveArgs is the command line of a server in the background, which [ServeMain] parses.
func serveArgs(root, id, mountpoint string, o MountOptions) []string {
	args := []string{ServeCommand, "-root", root, "-id", id, "-mountpoint", mountpoint, "-log-level", o.LogLevel}
	if o.Options != "" {
		args = append(args, "-options", o.Options)
	}
	return args
}

// ServeMain is the process of a server in the background: it runs [Serve] and tells the process that started it whether
// the mount answers. args follow [ServeCommand]. It returns the exit status.
func ServeMain(args []string) int {
	debug.SetGCPercent(gcPercent)
	syscall.CloseOnExec(notifyFD)
	notify := os.NewFile(notifyFD, "notify")
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	told := false
	tell := func(word, text string) {
		if told {
			return
		}
		told = true
		// A starter that has died in the meantime leaves the mount to whoever finds it.
		_, _ = io.WriteString(notify, word+" "+strconv.Quote(text)+"\n")
		_ = notify.Close()
	}
	err := serveFlags(ctx, args, func(mountpoint string) { tell(wordReady, mountpoint) })
	if err != nil {
		logrus.Error(err)
		tell(wordFor(err), err.Error())
		return 1
	}
	return 0
}

func serveFlags(ctx context.Context, args []string, ready func(string)) error {
	flags := flag.NewFlagSet(ServeCommand, flag.ContinueOnError)
	root := flags.String("root", "", "")
	id := flags.String("id", "", "")
	mountpoint := flags.String("mountpoint", "", "")
	level := flags.String("log-level", "", "")
	options := flags.String("options", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if parsed, err := logrus.ParseLevel(*level); err == nil {
		logrus.SetLevel(parsed)
	}
	st, err := layerstore.Open(*root)
	if err != nil {
		return err
	}
	err = Serve(ctx, st, *id, ServeOptions{Mountpoint: *mountpoint, Options: *options, Ready: ready})
	return errors.Join(err, st.Close())
}
