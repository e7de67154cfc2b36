package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/integration/testimage"
)

// TestRealChroot runs programs in a writable mount as a user would: apt-get, gcc, git and nginx under chroot. What they
// change is kept over umount and mount, and stays out of the layers.
func TestRealChroot(t *testing.T) {
	_, ref := needDebian(t)
	needTools(t, "unshare", "curl", "git", "gcc")
	s := newStore(t)
	s.ok("pull", "--quiet", ref)
	before := s.files()
	m := s.mount("--name", "work", ref)

	t.Run("apt-get", func(t *testing.T) { installPackage(t, m) })
	t.Run("gcc", func(t *testing.T) {
		writeFile(t, filepath.Join(m, "root/hi.c"), "#include <stdio.h>\n#include <sys/stat.h>\n"+
			"int main(void){struct stat s; return printf(\"compiled %d\\n\", stat(\"/root/hi.c\", &s)) < 0;}\n")
		if out := inRoot(t, m, "cd /root && gcc -O2 -o hi hi.c && ./hi"); out != "compiled 0\n" {
			t.Errorf("the compiled program printed %q", out)
		}
	})
	t.Run("python", func(t *testing.T) {
		if out := inRoot(t, m, `python3 -c 'import json, sqlite3, ssl, email; print(json.dumps({"a": 1}))'`); out != "{\"a\": 1}\n" {
			t.Errorf("python3 printed %q", out)
		}
	})
	t.Run("git clone", func(t *testing.T) { cloneRepository(t, m) })
	t.Run("nginx", func(t *testing.T) { servePage(t, m) })

	s.ok("umount", "work")
	s.unchanged(before, func(name string) bool { return strings.HasPrefix(name, "containers/") })
	if again := s.mount("work"); again != m {
		t.Errorf("mounted again at %s, first at %s", again, m)
	}
	out := inRoot(t, m, "/root/hi && /usr/bin/hello && git -C /root/clone log --format=%s && cat /var/www/html/page.html && dpkg --verify hello")
	if want := "compiled 0\nHello, world!\nsecond\nfirst\na page\n"; out != want {
		t.Errorf("after umount and mount: %q, want %q", out, want)
	}
	s.ok("umount", m)
	s.ok("rm", "work")
	s.unchanged(before, nil)
	s.whole()
}

// inRoot runs a shell command in a root filesystem and returns what it printed to stdout. /proc is mounted in a mount
// namespace that goes with the command; everything else is the image's, its device nodes too.
func inRoot(t *testing.T, root, command string) string {
	t.Helper()
	return tool(t, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc",
		`mount -t proc proc "$1/proc" && exec env -i HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin `+
			`chroot "$1" /bin/sh -euc "$2"`, "sh", root, command)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// installPackage lets apt fetch and install a package from the mirror that the machine uses.
func installPackage(t *testing.T, m string) {
	sources, suite, err := testimage.AptSources(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if sources == "" {
		sources = "deb http://deb.debian.org/debian " + suite + " main\n"
	}
	resolver, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(m, "etc/resolv.conf"), string(resolver))
	writeFile(t, filepath.Join(m, "etc/apt/sources.list"), sources)
	inRoot(t, m, "apt-get update && apt-get install -y --no-install-recommends hello tree")
	if out := inRoot(t, m, "hello && dpkg-query -W -f '${Status}' tree && dpkg --verify hello tree"); out != "Hello, world!\ninstall ok installed" {
		t.Errorf("the installed packages say %q", out)
	}
	inRoot(t, m, "apt-get purge -y tree && test ! -e /usr/bin/tree && apt-get clean")
}

// cloneRepository clones a repository of the host, seen below the mount, in the root filesystem.
func cloneRepository(t *testing.T, m string) {
	source := filepath.Join(t.TempDir(), "source")
	for i, message := range []string{"first", "second"} {
		if i == 0 {
			tool(t, "git", "init", "--quiet", source)
		}
		for f := range 200 {
			writeFile(t, filepath.Join(source, fmt.Sprintf("f%d", f)), fmt.Sprintf("%s %d\n", message, f))
		}
		tool(t, "git", "-C", source, "add", ".")
		tool(t, "git", "-C", source, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", message)
	}
	tool(t, "cp", "-r", source, filepath.Join(m, "root/source"))
	out := inRoot(t, m, "cd /root && git clone --quiet /root/source clone && git -C clone status --porcelain && git -C clone fsck && cat clone/f7")
	if out != "second 7\n" {
		t.Errorf("the clone says %q", out)
	}
	inRoot(t, m, "rm -rf /root/source")
}

// servePage runs nginx in the root filesystem and fetches a page from it.
func servePage(t *testing.T, m string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(m, "var/www/html/page.html"), "a page\n")
	writeFile(t, filepath.Join(m, "etc/nginx/nginx.conf"), "user www-data;\npid /run/nginx.pid;\nevents {}\n"+
		"http { sendfile on; server { listen "+addr+"; root /var/www/html; } }\n")
	// The foreground shell ends nginx by ending the process namespace that both live in.
	out := tool(t, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc",
		`mount -t proc proc "$1/proc"
		chroot "$1" /usr/sbin/nginx
		curl --silent --show-error --fail --retry 20 --retry-delay 1 --retry-connrefused "http://$2/page.html"
		chroot "$1" /usr/sbin/nginx -s quit`, "sh", m, addr)
	if out != "a page\n" {
		t.Errorf("nginx served %q", out)
	}
	log, err := os.ReadFile(filepath.Join(m, "var/log/nginx/access.log"))
	if err != nil || !strings.Contains(string(log), "GET /page.html") {
		t.Errorf("the access log says %q, %v", log, err)
	}
}
