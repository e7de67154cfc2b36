// Package daemon runs this binary again in the background and hears from it whether it is ready. It owns the pipe
// between the two.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// ErrFailed says that the process in the background ended without a word.
var ErrFailed = errors.New("the server ended before the mount answered")

// notifyFD is the descriptor at which the process in the background finds the pipe.
const notifyFD = 3

const (
	wordReady = "ready"
	maxError  = 64 << 10 // bytes of an error that are read
)

// Start runs this binary with args, in a session of its own with neither input nor output, and returns once it called
// Ready or has ended. Its working directory is this one's. When ctx ends first, it is killed.
func Start(ctx context.Context, args ...string) error {
	answer, notify, err := os.Pipe()
	if err != nil {
		return err
	}
	defer answer.Close() //nolint:errcheck // only read from
	// The server outlives this process, hence not exec.CommandContext. /proc/self/exe is this very binary even if its
	// file was replaced meanwhile.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "plyfs"
	cmd.ExtraFiles = []*os.File{notify}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	notify.Close() //nolint:errcheck // the server has its own
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // an error means that it is gone
	said, err := io.ReadAll(io.LimitReader(answer, maxError))
	if !stop() {
		_ = cmd.Wait() // it was killed
		return ctx.Err()
	}
	text := strings.TrimSpace(string(said))
	switch {
	case err != nil:
		return err
	case text == wordReady:
		return cmd.Process.Release()
	}
	_ = cmd.Wait() // how it ended is told below
	if text == "" {
		return fmt.Errorf("%w (%s)", ErrFailed, cmd.ProcessState)
	}
	return errors.New(text)
}

// Parent is the process that called Start, as the one in the background sees it. Its methods may be called once, one of
// them. A parent that has died in the meantime leaves the mount to whoever finds it.
type Parent struct{ pipe *os.File }

// FromParent takes the pipe over. It must be called before any file is opened.
func FromParent() *Parent {
	syscall.CloseOnExec(notifyFD)
	return &Parent{os.NewFile(notifyFD, "notify")}
}

// Ready lets Start return.
func (p *Parent) Ready() { p.say(wordReady) }

// Fail has Start return an error with this text.
func (p *Parent) Fail(err error) { p.say(err.Error()) }

func (p *Parent) say(text string) {
	_, _ = io.WriteString(p.pipe, text)
	_ = p.pipe.Close()
}
