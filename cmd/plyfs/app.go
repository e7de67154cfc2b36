package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"
	"github.com/urfave/cli/v2"

	"github.com/plyfs/plyfs/layerstore"
)

// Exit statuses, as README.md documents them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130 // as a shell shows a program that SIGINT ended
)

// version is set by the linker: see the Makefile.
var version = ""

// usageError is a command line that is not understood.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// usagef makes the error of a command line, which ends in a pointer to the command's help.
func usagef(c *cli.Command, format string, args ...any) error {
	name := "plyfs"
	switch {
	case c != nil && c.HelpName != "":
		name = c.HelpName
	case c != nil: // urfave/cli has not set it yet
		name += " " + c.Name
	}
	return &usageError{fmt.Sprintf(format, args...) + "; see `" + name + " --help`"}
}

// run carries out a command line and returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	context.AfterFunc(ctx, stop) // from the first signal on the second one kills, as usual
	app := newApp(stdout, stderr)
	args, err := sortArgs(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	return report(stderr, err)
}

// report prints errors, each in one line, and returns the exit status.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	var each eachError
	if !errors.As(err, &each) {
		each = eachError{err}
	}
	status := exitFailure
	for _, err := range each {
		text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
		var usage *usageError
		var chosen *statusError
		switch {
		case errors.As(err, &chosen):
			status = chosen.status
		case errors.As(err, &usage):
			status = exitUsage
		case errors.Is(err, context.Canceled):
			status, text = exitInterrupted, "interrupted"
		}
		fmt.Fprintf(stderr, "plyfs: %s\n", text)
	}
	return status
}

// eachError holds the errors of a command that goes on with its next argument after one that failed.
type eachError []error

func (e eachError) Error() string { return errors.Join(e...).Error() }

// forEach runs f on every argument, also after one that failed, unless the user interrupts.
func forEach(ctx context.Context, args []string, f func(arg string) error) error {
	var failed eachError
	for _, arg := range args {
		err := f(arg)
		if err != nil {
			failed = append(failed, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return failed
}

// newApp describes the command line.
func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:      "plyfs",
		Usage:     "mount container images as writable root filesystems",
		UsageText: "plyfs [--root DIR] [--log-level LEVEL] COMMAND [OPTIONS] [ARGUMENTS]",
		Version:   versionString(),
		Writer:    stdout,
		ErrWriter: stderr,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "root", Usage: "keep images and containers in `DIR`", EnvVars: []string{"PLYFS_ROOT"}, DefaultText: "/var/lib/plyfs, or $XDG_DATA_HOME/plyfs for a user"},
			&cli.StringFlag{Name: "log-level", Usage: "say what is at least of `LEVEL`: debug, info, warning, error", EnvVars: []string{"PLYFS_LOG_LEVEL"}, Value: "warning"},
		},
		Commands: []*cli.Command{
			pullCommand(), imagesCommand("images"), mountCommand(), umountCommand(), rmCommand(), saveCommand(), loadCommand(), importCommand(),
			overlayCommand(),
			whichCommand(),
			rmiCommand("rmi"), tagCommand(), historyCommand(), inspectCommand(true), exportCommand(), imageCommand(), containerCommand(), systemCommand(), versionCommand(),
			completionCommand(), hiddenCompleteCommand(), manCommand(),
		},
		Before:         setUp,
		Action:         noCommand,
		ExitErrHandler: func(*cli.Context, error) {}, // run reports and chooses the status
		OnUsageError:   onUsageError,
	}
	for _, c := range app.Commands {
		finish(c)
	}
	return app
}

// finish gives a command and those below it what all have in common.
func finish(c *cli.Command) {
	c.OnUsageError = onUsageError
	c.HideHelpCommand = true // else a container called "help" could not be named
	for _, f := range c.Flags {
		if b, ok := f.(*cli.BoolFlag); ok && !b.Value {
			b.DisableDefaultText = true
		}
	}
	for _, sub := range c.Subcommands {
		sub.HelpName = "plyfs " + c.Name + " " + sub.Name
		finish(sub)
	}
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	return usagef(c.Command, "%s", strings.TrimSuffix(err.Error(), "."))
}

// noCommand is what a group of commands does by itself: it shows its help, or says that it has no such command.
func noCommand(c *cli.Context) error {
	if name := c.Args().First(); name != "" {
		return usagef(c.Command, "unknown command %q", name)
	}
	if len(c.Lineage()) > 2 { // the app's own context is below an empty one
		return cli.ShowSubcommandHelp(c)
	}
	return cli.ShowAppHelp(c)
}

// setUp makes the log ready.
func setUp(c *cli.Context) error {
	level, err := logrus.ParseLevel(logLevel(c))
	if err != nil {
		return usagef(nil, "--log-level %q: not one of debug, info, warning, error", logLevel(c))
	}
	logrus.SetLevel(level)
	logrus.SetOutput(c.App.ErrWriter)
	logrus.SetFormatter(plainFormatter{})
	return nil
}

// plainFormatter writes log entries for people: "warning: text: error".
type plainFormatter struct{}

func (plainFormatter) Format(e *logrus.Entry) ([]byte, error) {
	text := e.Level.String() + ": " + e.Message
	for _, key := range slices.Sorted(maps.Keys(e.Data)) {
		if key == logrus.ErrorKey {
			text += fmt.Sprintf(": %v", e.Data[key])
		} else {
			text += fmt.Sprintf(" %s=%v", key, e.Data[key])
		}
	}
	return []byte(strings.ReplaceAll(text, "\n", "; ") + "\n"), nil
}

func logLevel(c *cli.Context) string {
	if level := c.String("log-level"); level != "" {
		return level
	}
	return logrus.WarnLevel.String()
}

// withStore runs an action that takes from least to most arguments (any number if most < 0) on the store that the command
// line names.
func withStore(least, most int, action func(c *cli.Context, st *layerstore.Store) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := wantArgs(c, least, most); err != nil {
			return err
		}
		root, err := rootDir(c.String("root"))
		if err != nil {
			return err
		}
		st, err := layerstore.Open(root)
		if err != nil {
			return err
		}
		err = action(c, st)
		if closeErr := st.Close(); err == nil {
			err = closeErr
		}
		return err
	}
}

// rootDir is where the store is: where the user says, else the machine's or the user's own.
func rootDir(named string) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	if os.Geteuid() == 0 {
		return "/var/lib/plyfs", nil
	}
	// The XDG base directory specification has a path that is not absolute ignored.
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "plyfs"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for the store: %w; name one with --root or PLYFS_ROOT", err)
	}
	return filepath.Join(home, ".local", "share", "plyfs"), nil
}

// wantArgs checks how many arguments there are.
func wantArgs(c *cli.Context, least, most int) error {
	switch n := c.NArg(); {
	case n < least:
		return usagef(c.Command, "%s needs %s", c.Command.Name, c.Command.ArgsUsage)
	case most >= 0 && n > most:
		return usagef(c.Command, "%s takes %s: %q is too much", c.Command.Name, c.Command.ArgsUsage, c.Args().Get(most))
	}
	return nil
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version",
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 0); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.App.Writer, "plyfs version %s\n", c.App.Version)
			return err
		},
	}
}

func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
