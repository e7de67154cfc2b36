package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestForeground serves in the foreground until Ctrl-C, after which nothing is mounted and the changes are kept.
func TestForeground(t *testing.T) {
	needMount(t)
	s, ref := pulled(t)
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM} {
		server, mountpoint := startForeground(t, s, "mount", "--foreground", "--name", fmt.Sprintf("fg%d", sig), ref)
		if err := os.WriteFile(filepath.Join(mountpoint, "kept"), []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := server.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := server.Wait(); err != nil {
			t.Errorf("after %v: %v", sig, err)
		}
		if mounts := mountsBelow(t, mountpoint); len(mounts) > 0 {
			t.Errorf("after %v, still mounted: %v", sig, mounts)
		}
		mountpoint = s.mount(fmt.Sprintf("fg%d", sig))
		if data, err := os.ReadFile(filepath.Join(mountpoint, "kept")); err != nil || string(data) != "kept" {
			t.Errorf("after %v, the change is lost: %q %v", sig, data, err)
		}
		s.ok("umount", mountpoint)
	}
}

// TestForegroundUmount ends a server in the foreground by unmounting.
func TestForegroundUmount(t *testing.T) {
	needMount(t)
	s, ref := pulled(t)
	server, mountpoint := startForeground(t, s, "mount", "--foreground", "--name", "fg", ref)
	s.ok("umount", mountpoint)
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
	s.ok("rm", "fg")
}

// TestForegroundBusy interrupts a server in the foreground that a program still uses: the mount leaves the tree at once,
// the program goes on, and the server ends with it.
func TestForegroundBusy(t *testing.T) {
	needMount(t)
	s, ref := pulled(t)
	server, mountpoint := startForeground(t, s, "mount", "--foreground", "--name", "fg", ref)
	user, err := os.Open(filepath.Join(mountpoint, "etc"))
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	if err := server.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	await(t, "the mount to be detached", func() bool { return len(mountsBelow(t, mountpoint)) == 0 })
	s.fails([]string{"container fg is mounted where this process cannot see it, or programs still use"}, "rm", "fg")
	names, err := user.Readdirnames(-1)
	if err != nil || len(names) != 2 {
		t.Errorf("a program that uses the detached mount reads %v, %v", names, err)
	}
	if err := user.Close(); err != nil {
		t.Error(err)
	}
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
	s.ok("rm", "fg")
}

// startForeground starts a server in the foreground and returns once it has printed its mountpoint.
func startForeground(t *testing.T, s *store, args ...string) (*exec.Cmd, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	t.Cleanup(cancel)
	cmd := s.command(ctx, args...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			t.Error("a server in the foreground is left")
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("no mountpoint from plyfs %s: %v", strings.Join(args, " "), err)
	}
	return cmd, strings.TrimSuffix(line, "\n")
}

// await waits for what no event tells of.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestServerKilled kills a server: its dead mount is unmounted, removed or mounted over by whichever command comes next.
func TestServerKilled(t *testing.T) {
	needMount(t)
	s, ref := pulled(t)
	kill := func(mountpoint string) {
		t.Helper()
		pid := s.server(mountpoint)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := awaitExit(pid); err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadDir(mountpoint); err == nil {
			t.Fatalf("%s answers without its server", mountpoint)
		}
	}

	mountpoint := s.mount("--name", "victim", ref)
	if err := os.WriteFile(filepath.Join(mountpoint, "kept"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	syncMount(t, mountpoint)
	kill(mountpoint)
	s.ok("umount", "victim")
	s.fails([]string{"victim is not mounted"}, "umount", "victim")

	kill(s.mount("victim"))
	if again := s.mount("victim"); again != mountpoint {
		t.Errorf("mounted at %s, want %s", again, mountpoint)
	}
	if data, err := os.ReadFile(filepath.Join(mountpoint, "kept")); err != nil || string(data) != "kept" {
		t.Errorf("the change is lost: %q %v", data, err)
	}
	kill(mountpoint)
	s.ok("umount", mountpoint)

	other := t.TempDir()
	kill(s.mount("victim", other))
	s.fails([]string{other, "lost its server", "plyfs umount"}, "mount", ref, other)
	s.ok("rm", "victim")
	if mounts := mountsBelow(t, other); len(mounts) > 0 {
		t.Errorf("rm left %v mounted", mounts)
	}
}

func syncMount(t *testing.T, mountpoint string) {
	t.Helper()
	dir, err := os.Open(mountpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		t.Fatal(err)
	}
}

// TestUmountBusy refuses to unmount what is in use, and says what to do.
func TestUmountBusy(t *testing.T) {
	needMount(t)
	s, ref := pulled(t)
	mountpoint := s.mount("--name", "used", ref)
	user, err := os.Open(filepath.Join(mountpoint, "etc"))
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	s.fails([]string{"used is in use", "fuser -vm " + mountpoint}, "umount", "used")
	s.fails([]string{"container used is mounted at " + mountpoint}, "rm", "used")
	if _, err := os.Stat(filepath.Join(mountpoint, "etc/motd")); err != nil {
		t.Errorf("a refused umount did damage: %v", err)
	}
	if err := user.Close(); err != nil {
		t.Fatal(err)
	}
	s.ok("umount", "used")
	s.ok("rm", "used")
}

// TestInterruptPull ends a pull from a registry that hangs: 130, one line, and a store without a trace of the image.
func TestInterruptPull(t *testing.T) {
	s := newStore(t)
	asked := make(chan struct{}, 100)
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-hang:
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hang) })

	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := s.command(ctx, "pull", strings.TrimPrefix(server.URL, "http://")+"/image:1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(stderr)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its status is looked at below
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit status %d, want 130", code)
	}
	if err := oneError(string(said)); err != nil || !strings.HasSuffix(string(said), "plyfs: interrupted\n") {
		t.Errorf("%v: %q", err, said)
	}
	if list := s.ok("images", "-q"); list != "" {
		t.Errorf("images: %s", list)
	}
}

// TestMountConcurrently mounts one container from several processes at once: one succeeds, the others say who did.
func TestMountConcurrently(t *testing.T) {
	needMount(t)
	s, ref := pulled(t)
	s.mount("--name", "one", ref)
	s.ok("umount", "one")
	const tries = 6
	results := make(chan result)
	for range tries {
		go func() { results <- s.run("mount", "one") }()
	}
	mounted := 0
	for range tries {
		r := <-results
		if r.code == 0 {
			mounted++
		} else if err := oneError(r.stderr); err != nil || !strings.Contains(r.stderr, "is mounted") {
			t.Errorf("%v: %q", err, r.stderr)
		}
	}
	if mounted != 1 {
		t.Errorf("%d of %d mounted it", mounted, tries)
	}
	if mounts := mountsBelow(t, s.root); len(mounts) != 1 {
		t.Errorf("mounts: %v", mounts)
	}
	s.ok("umount", "one")
	s.ok("rm", "one")
}

// TestMountFails mounts an image whose layers are damaged: the container made for it goes again.
func TestMountFails(t *testing.T) {
	s, ref := pulled(t)
	files, err := filepath.Glob(filepath.Join(s.root, "layers", "sha256", "*.tar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no layers: %v", err)
	}
	for _, file := range files {
		if err := os.Truncate(file, 10); err != nil {
			t.Fatal(err)
		}
	}
	s.fails([]string{"container cc", "cut off"}, "mount", "--name", "cc", ref)
	s.fails([]string{"container cc", "cut off"}, "mount", "--name", "cc", "--foreground", ref)
	if left, err := os.ReadDir(filepath.Join(s.root, "containers")); err != nil || len(left) > 0 {
		t.Errorf("containers left: %v, %v", left, err)
	}
}
