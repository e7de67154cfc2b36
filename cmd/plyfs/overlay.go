package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"
	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/fs"
	"github.com/plyfs/plyfs/fs/daemon"
	"github.com/plyfs/plyfs/fs/mountopt"
)

// serveOverlayCommand is the hidden command that serves a union of directories in the background. Its arguments are
// those that the union was asked for with.
const serveOverlayCommand = "serve-overlay"

// overlayGCPercent is what container.ServeMain has for the same reason.
const overlayGCPercent = 50

func overlayCommand() *cli.Command {
	return &cli.Command{
		Name:            "overlay",
		Usage:           "mount directories one over the other, as fuse-overlayfs does",
		ArgsUsage:       "MOUNTPOINT",
		UsageText:       "plyfs overlay [-f] [-d] -o lowerdir=A:B[,upperdir=U,workdir=W][,…] MOUNTPOINT",
		SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			return mountOverlay(c.Context, "plyfs overlay", c.Args().Slice(), c.App.Writer, false)
		},
	}
}

// mountOverlay mounts a union of directories as a command line asks for, and returns when the mount answers or, in the
// foreground, when it is unmounted.
func mountOverlay(ctx context.Context, name string, args []string, stdout io.Writer, helper bool) error {
	m, err := parseMountArgs(name, args, helper)
	if err != nil {
		return err
	}
	switch {
	case m.help:
		return m.printHelp(stdout)
	case m.version:
		_, err := fmt.Fprintf(stdout, "plyfs version %s\n", versionString())
		return err
	}
	u, err := m.union(os.Stderr)
	if err != nil || m.fake {
		return err
	}
	if m.foreground || u.FS.Debug {
		if u.FS.Debug {
			logrus.SetLevel(logrus.DebugLevel)
		}
		return serveUnion(ctx, m, u, func() {})
	}
	args = m.again()
	return daemon.Start(ctx, append([]string{serveOverlayCommand}, args...)...)
}

// union reads the options. What a sloppy mount leaves out is told to warn.
func (m *mountArgs) union(warn io.Writer) (mountopt.Options, error) {
	if err := m.wantMountpoint(); err != nil {
		return mountopt.Options{}, err
	}
	u, left, err := mountopt.Overlay(m.options, m.sloppy)
	for _, o := range left {
		fmt.Fprintf(warn, "plyfs: mount option %s is left out\n", o)
	}
	if err != nil {
		return u, m.usagef("%w", err)
	}
	if u.Source == "" {
		u.Source = m.source
	}
	u.FS.Debug = u.FS.Debug || m.debug
	u.FS.SingleThread = u.FS.SingleThread || m.single
	return u, nil
}

// serveUnion mounts and serves a union. ready is called once it answers.
func serveUnion(ctx context.Context, m *mountArgs, u mountopt.Options, ready func()) (err error) {
	mountpoint, err := realDir(m.mountpoint)
	if err != nil {
		return err
	}
	if u.Upper != "" {
		held, err := fs.HoldUpper(u.Upper, u.Work)
		if err != nil {
			return err
		}
		defer held.Close() //nolint:errcheck // directories
	}
	layers, err := fs.OpenDirs(u.Lowers)
	if err != nil {
		return err
	}
	server, err := fs.Mount(fs.Config{
		Lowers: layers, Names: u.Lowers, Upper: u.Upper, Work: u.Work, Mountpoint: mountpoint, Source: u.Source,
		ReadOnly: u.ReadOnly, AllowOther: u.AllowOther || os.Geteuid() == 0, KeepRoot: true,
		Modes: u.Union, Options: u.FS, Log: logrus.StandardLogger(),
	})
	if err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil { // else the server would keep a directory in use
		logrus.WithError(err).Warn("The working directory stays in use")
	}
	ready()
	debug.FreeOSMemory() // mounting leaves garbage that a server which idles would never collect
	defer context.AfterFunc(ctx, func() { endUnion(mountpoint) })()
	return server.Wait()
}

// realDir is the absolute path without symlinks of the directory to mount on.
func realDir(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", fmt.Errorf("mountpoint %s: %w", path, err)
	}
	info, err := os.Stat(abs)
	switch {
	case err != nil:
		return "", fmt.Errorf("mountpoint %s: %w", path, err)
	case !info.IsDir():
		return "", fmt.Errorf("mountpoint %s: %w", path, syscall.ENOTDIR)
	}
	return abs, nil
}

// endUnion unmounts what this process serves, at once or, while programs use it, once they have ended.
func endUnion(mountpoint string) {
	err := fs.Unmount(mountpoint, false)
	if errors.Is(err, fs.ErrBusy) {
		err = fs.Unmount(mountpoint, true)
	}
	if err != nil && !errors.Is(err, fs.ErrNotMounted) {
		logrus.WithError(err).Errorf("%s cannot be unmounted", mountpoint)
	}
}

// serveOverlayMain is the process of a union in the background. It returns the exit status.
func serveOverlayMain(args []string) int {
	debug.SetGCPercent(overlayGCPercent)
	parent := daemon.FromParent()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	logToSystem()
	m, err := parseMountArgs("plyfs overlay", args, false)
	if err == nil {
		var u mountopt.Options
		if u, err = m.union(io.Discard); err == nil {
			err = serveUnion(ctx, m, u, func() { parent.Ready(); parent = nil })
		}
	}
	if err == nil {
		return exitOK
	}
	logrus.Error(err)
	if parent != nil {
		parent.Fail(err)
	}
	return exitFailure
}

// logToSystem has what a server in the background says go to the system's log, where there is one.
func logToSystem() {
	logrus.SetFormatter(plainFormatter{})
	logrus.SetLevel(logrus.WarnLevel)
	w, err := syslog.New(syslog.LOG_WARNING|syslog.LOG_DAEMON, "plyfs")
	if err != nil {
		logrus.SetOutput(io.Discard)
		return
	}
	logrus.SetOutput(w)
}

// again is the command line with which the server in the background is asked for the same.
func (m *mountArgs) again() []string {
	var args []string
	for _, f := range []struct {
		set  bool
		flag string
	}{{m.sloppy, "--sloppy"}, {m.single, "-s"}} {
		if f.set {
			args = append(args, f.flag)
		}
	}
	if m.source != "" {
		args = append(args, "--source", m.source)
	}
	for _, o := range m.options {
		args = append(args, "-o", o)
	}
	return append(args, "--", m.mountpoint)
}

// helperStatus turns an error into the exit status that mount(8) knows.
func helperStatus(err error) int {
	const badUsage, failed = 1, 32
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return badUsage
	}
	return failed
}

// runAs carries out what the binary is asked for under another of its names. ok is false when the name is its own.
func runAs(name string, args []string, stdout, stderr io.Writer) (status int, ok bool) {
	base := filepath.Base(name)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	// containers/storage calls its mount_program with "-o" and the options, which no command of plyfs's begins with.
	case base == "fuse-overlayfs", len(args) > 0 && strings.HasPrefix(args[0], "-o"):
		err = mountOverlay(ctx, base, args, stdout, false)
		if status = report(stderr, err); status != exitOK {
			status = exitFailure
		}
		return status, true
	case base == "mount.plyfs":
		err = mountImage(ctx, args, stdout, stderr)
	case strings.HasPrefix(base, "mount.fuse"):
		err = mountOverlay(ctx, base, args, stdout, true)
	default:
		return 0, false
	}
	report(stderr, err)
	return helperStatus(err), true
}
