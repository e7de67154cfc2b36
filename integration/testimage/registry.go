package testimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Registry is Debian's docker-registry, running on loopback without TLS.
type Registry struct {
	Addr string // host:port, the host being 127.0.0.1

	cmd  *exec.Cmd
	dir  string
	log  syncBuffer
	done chan struct{}
}

// registryStart bounds how long a registry may take to answer, seconds of wall time.
const registryStart = 20 * time.Second

// StartRegistry starts a registry on a free port over the storage directory and returns once it answers. Close stops it;
// it also dies with this process. A read-only registry refuses pushes, so that many tests may share one storage.
func StartRegistry(ctx context.Context, storage string, readOnly bool) (*Registry, error) {
	dir, err := os.MkdirTemp("", "plyfs-registry")
	if err != nil {
		return nil, err
	}
	// A free port found by listening may be gone again by the time the registry wants it.
	for range 5 {
		var r *Registry
		if r, err = tryRegistry(ctx, dir, storage, readOnly); err == nil {
			return r, nil
		}
	}
	return nil, errors.Join(err, os.RemoveAll(dir))
}

func tryRegistry(ctx context.Context, dir, storage string, readOnly bool) (*Registry, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: info, accesslog: {disabled: false}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}, readonly: {enabled: %t}}
http: {addr: %q}
`, storage, readOnly, addr)
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	r := &Registry{Addr: addr, dir: dir, cmd: exec.Command("docker-registry", "serve", path), done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = r.cmd.Wait() // killed by Close: its status says nothing
		close(r.done)
	}()
	if err := r.waitReady(ctx); err != nil {
		return nil, errors.Join(err, r.stop())
	}
	return r, nil
}

// waitReady asks the registry until it answers. The registry tells nobody when it listens: asking is the only way.
func (r *Registry) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registryStart)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Addr+"/v2/", http.NoBody)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-r.done:
			return fmt.Errorf("docker-registry ended: %s", r.Log())
		case <-ctx.Done():
			return fmt.Errorf("docker-registry does not answer: %w: %s", ctx.Err(), r.Log())
		}
	}
}

// Log is what the registry has printed so far, its access log among it.
func (r *Registry) Log() string { return r.log.String() }

// Close stops the registry. Its storage stays.
func (r *Registry) Close() error { return errors.Join(r.stop(), os.RemoveAll(r.dir)) }

func (r *Registry) stop() error {
	err := r.cmd.Process.Kill()
	<-r.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// fillRegistry copies an image of a layout into a new registry storage.
func fillRegistry(ctx context.Context, layout, name, storage string) (err error) {
	r, err := StartRegistry(ctx, storage, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return run(ctx, "skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false",
		"oci:"+layout+":"+name, "docker://"+r.Addr+"/"+name+":latest")
}

func freeAddr(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// syncBuffer is a buffer that a process writes and a test reads at the same time.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
