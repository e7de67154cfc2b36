package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/layerstore"
)

const (
	// logName is a server's log in the container's directory.
	logName = "server.log"
	// maxLog is the size, in bytes, at which the next server starts the log anew.
	maxLog = 1 << 20
	// stopTimeout is how long a server that was told to end may take before it is killed.
	stopTimeout = 3 * time.Second
	// notifyFD is the descriptor at which a server in the background finds the pipe to the process that started it.
	notifyFD = 3
	// What a server says through that pipe: one of these words, a space and a quoted text.
	wordReady      = "ready"      // the mountpoint
	wordMounted    = "mounted"    // an ErrMounted
	wordMountpoint = "mountpoint" // an ErrMountpoint
	wordError      = "error"      // any other error
)

// reported is an error of a server in the background, as it told it to the process that started it.
type reported struct {
	text string
	kind error
}

func (r *reported) Error() string { return r.text }
func (r *reported) Unwrap() error { return r.kind }

// wordFor is the word for an error of [Serve].
func wordFor(err error) string {
	switch {
	case errors.Is(err, ErrMounted):
		return wordMounted
	case errors.Is(err, ErrMountpoint):
		return wordMountpoint
	default:
		return wordError
	}
}

// spawn starts a server in the background and returns once its mount answers.
func spawn(ctx context.Context, st *layerstore.Store, id, mountpoint string, o MountOptions) (string, error) {
	log, err := openLog(logPath(st, id))
	if err != nil {
		return "", fmt.Errorf("%w: its log: %w", ErrServer, err)
	}
	defer log.Close() //nolint:errcheck // written to by the server only
	answer, notify, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrServer, err)
	}
	defer answer.Close() //nolint:errcheck // only read from

	// The server outlives this command, hence not exec.CommandContext. /proc/self/exe is this very binary even if its file
	// was replaced meanwhile.
	cmd := exec.Command("/proc/self/exe", serveArgs(st.Root(), id, mountpoint, o)...)
	cmd.Args[0] = "plyfs"
	cmd.Dir = "/"
	cmd.Stderr = log
	cmd.ExtraFiles = []*os.File{notify}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	notify.Close() //nolint:errcheck // the server has its own
	if err != nil {
		return "", fmt.Errorf("%w to start: %w", ErrServer, err)
	}

	said := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(answer).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		said <- line
	}()
	select {
	case line := <-said:
		return hear(cmd, line, log.Name())
	case <-ctx.Done():
		stop(cmd)
		return "", ctx.Err()
	}
}

// hear makes out what a server said. A server that is not mounted has ended when hear returns.
func hear(cmd *exec.Cmd, line, log string) (string, error) {
	word, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	text, err := strconv.Unquote(quoted)
	if err != nil {
		word = ""
	}
	if word == wordReady {
		return text, cmd.Process.Release()
	}
	_ = cmd.Wait() // how it ended is told below
	switch word {
	case wordMounted:
		return "", &reported{text, ErrMounted}
	case wordMountpoint:
		return "", &reported{text, ErrMountpoint}
	case wordError:
		return "", &reported{text, ErrServer}
	}
	return "", fmt.Errorf("%w: it ended before the mount answered (%s); see %s", ErrServer, cmd.ProcessState, log)
}

// stop ends a server: it is asked to unmount and go, then killed.
func stop(cmd *exec.Cmd) {
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it was told to end: how it did says nothing
		close(gone)
	}()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = cmd.Process.Signal(sig) // an error means that it is gone
		select {
		case <-gone:
			return
		case <-time.After(stopTimeout):
		}
	}
}

// logPath is where the servers of a container write their log.
func logPath(st *layerstore.Store, id string) string {
	return filepath.Join(st.ContainerDir(id), logName)
}

// openLog opens a log to append to, and starts it anew once it has grown long.
func openLog(path string) (*os.File, error) {
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if info, err := log.Stat(); err == nil && info.Size() > maxLog {
		if err := log.Truncate(0); err != nil {
			log.Close() //nolint:errcheck // the truncation's error is the one to tell
			return nil, err
		}
	}
	return log, nil
}
