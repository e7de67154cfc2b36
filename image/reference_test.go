package image

import (
	"errors"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/layerstore"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParseReference(t *testing.T) {
	for in, want := range map[string][4]string{ // full, familiar, host on the wire, what the registry is asked for
		"debian":                         {"docker.io/library/debian:latest", "debian:latest", "index.docker.io", "latest"},
		"debian:12":                      {"docker.io/library/debian:12", "debian:12", "index.docker.io", "12"},
		"docker.io/debian":               {"docker.io/library/debian:latest", "debian:latest", "index.docker.io", "latest"},
		"index.docker.io/library/debian": {"docker.io/library/debian:latest", "debian:latest", "index.docker.io", "latest"},
		"team/app:v1":                    {"docker.io/team/app:v1", "team/app:v1", "index.docker.io", "v1"},
		"ghcr.io/a/b/c":                  {"ghcr.io/a/b/c:latest", "ghcr.io/a/b/c:latest", "ghcr.io", "latest"},
		"localhost/x":                    {"localhost/x:latest", "localhost/x:latest", "localhost", "latest"},
		"localhost:5000/x":               {"localhost:5000/x:latest", "localhost:5000/x:latest", "localhost:5000", "latest"},
		"127.0.0.1:5000/x:1":             {"127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1", "127.0.0.1:5000", "1"},
		"[::1]:5000/x":                   {"[::1]:5000/x:latest", "[::1]:5000/x:latest", "[::1]:5000", "latest"},
		"debian@" + someDigest:           {"docker.io/library/debian@" + someDigest, "debian@" + someDigest, "index.docker.io", someDigest},
		"debian:12@" + someDigest:        {"docker.io/library/debian:12@" + someDigest, "debian:12@" + someDigest, "index.docker.io", someDigest},
	} {
		r, err := ParseReference(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		repo, err := r.repository(false)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := [4]string{r.String(), r.Familiar(), repo.RegistryStr(), r.identifier()}; got != want {
			t.Errorf("%s: %v, want %v", in, got, want)
		}
		if back, err := ParseReference(r.String()); err != nil || back != r {
			t.Errorf("%s: %v read again is %v (%v)", in, r, back, err)
		}
	}
	for _, in := range []string{
		"", "Debian", "a b", ":", "x:", "x@sha256:12", strings.Repeat("a", 64), "x/../y", "-x",
		"x@sha512:" + strings.Repeat("0", 128), "x\x1b[31m", strings.Repeat("long/", 60), strings.Repeat("x.com/", 1<<20),
	} {
		if _, err := ParseReference(in); !errors.Is(err, ErrReference) || strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	for domain, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "LOCALHOST:1": true, "127.0.0.1": true, "127.9.9.9:80": true, "[::1]:5000": true, "::1": true,
		"[::ffff:127.0.0.1]:1": true, "localhost.example.com": false, "10.0.0.1:5000": false, "128.0.0.1": false, "127.0.0.1.example.com": false, "docker.io": false,
	} {
		if got := isLoopback(domain); got != want {
			t.Errorf("%s: %v", domain, got)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"debian", "a.b:5/c/d:e@" + someDigest, "localhost/x", "[::1]:5000/x", "X/y", "::", "a/b:c:d", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("%q: message %q", s, err)
			}
			return
		}
		if len(r.String()) > layerstore.MaxRefLen {
			t.Errorf("%q is too long for the store", s)
		}
		back, err := ParseReference(r.String())
		if err != nil || back != r {
			t.Errorf("%q is %v, which read again is %v (%v)", s, r, back, err)
		}
		if fam, err := ParseReference(r.Familiar()); err != nil || fam != r {
			t.Errorf("%q is %s in docker's words, which is %v (%v)", s, r.Familiar(), fam, err)
		}
		_, _ = r.repository(false)
		isLoopback(r.Domain)
	})
}
