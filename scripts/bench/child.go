package main

import (
	"bufio"
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

	"golang.org/x/sys/unix"
)

// childCommand is the hidden first argument with which this binary runs a workload: its start is then not measured.
const childCommand = "child"

// workers are processes that have prepared a workload in a root and wait for the word to begin.
type workers struct {
	cmds []*exec.Cmd
	in   []io.WriteCloser
	out  []*bufio.Reader
	errs []*strings.Builder
}

// startWorkers starts processes for a workload in a root and returns once all are prepared.
func startWorkers(w *workload, root string) (*workers, error) {
	ws := &workers{}
	for i := range max(w.procs, 1) {
		cmd := exec.Command("/proc/self/exe", childCommand, w.name, root, strconv.Itoa(i))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, errors.Join(err, ws.kill())
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, errors.Join(err, ws.kill())
		}
		said := &strings.Builder{}
		cmd.Stderr = said
		if err := cmd.Start(); err != nil {
			return nil, errors.Join(err, ws.kill())
		}
		ws.cmds, ws.in = append(ws.cmds, cmd), append(ws.in, in)
		ws.out, ws.errs = append(ws.out, bufio.NewReader(out)), append(ws.errs, said)
	}
	for i, out := range ws.out {
		if line, err := out.ReadString('\n'); err != nil || line != "ready\n" {
			killed := ws.kill()
			return nil, errors.Join(fmt.Errorf("%s: not prepared: %s", w.name, strings.TrimSpace(ws.errs[i].String())), killed)
		}
	}
	return ws, nil
}

// measure lets the workers run and returns how long that took: of one worker as it says itself, of several until the last
// has ended.
func (ws *workers) measure() (time.Duration, error) {
	begin := time.Now()
	for _, in := range ws.in {
		if _, err := io.WriteString(in, "go\n"); err != nil {
			return 0, errors.Join(err, ws.kill())
		}
	}
	var own time.Duration
	for i, out := range ws.out {
		line, err := out.ReadString('\n')
		if err != nil {
			killed := ws.kill()
			return 0, errors.Join(fmt.Errorf("the workload failed: %s", strings.TrimSpace(ws.errs[i].String())), killed)
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return 0, errors.Join(err, ws.kill())
		}
		own = time.Duration(ns)
	}
	all := time.Since(begin)
	var errs []error
	for i, cmd := range ws.cmds {
		errs = append(errs, ws.in[i].Close(), cmd.Wait())
	}
	if len(ws.cmds) > 1 {
		own = all
	}
	return own, errors.Join(errs...)
}

func (ws *workers) kill() error {
	var errs []error
	for _, cmd := range ws.cmds {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
		_ = cmd.Wait() // it was killed
	}
	return errors.Join(errs...)
}

// runChild is the process of a worker: args are the workload, the root and the worker's number.
func runChild(args []string) error {
	if len(args) != 3 {
		return errors.New("child: want WORKLOAD ROOT NUMBER")
	}
	w := findWorkload(args[0])
	if w == nil {
		return fmt.Errorf("child: no workload %q", args[0])
	}
	if err := os.Chdir(args[1]); err != nil {
		return err
	}
	if w.chroot {
		if err := unix.Chroot("."); err != nil {
			return err
		}
		if err := os.Chdir("/"); err != nil {
			return err
		}
	}
	job := &job{dir: filepath.Join("work", args[2])}
	if err := os.MkdirAll(job.dir, 0o755); err != nil {
		return err
	}
	if w.prepare != nil {
		if err := w.prepare(job); err != nil {
			return fmt.Errorf("prepare %s: %w", w.name, err)
		}
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	begin := time.Now()
	if err := w.run(job); err != nil {
		return fmt.Errorf("run %s: %w", w.name, err)
	}
	fmt.Println(time.Since(begin).Nanoseconds())
	return nil
}

// dropCaches empties the kernel's caches: 1 pages, 2 names and inodes, 3 both.
func dropCaches(what int) error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte(strconv.Itoa(what)), 0)
}
