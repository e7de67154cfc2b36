package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
)

// login is a keychain of one name.
type login struct{ user, password string }

func (l login) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: l.user, Password: l.password}, nil
}

// useLogin makes a docker config file the only one there is, in which host has the login of "me".
func useLogin(t *testing.T, host, password string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("XDG_CONFIG_HOME", dir)
	auth := base64.StdEncoding.EncodeToString([]byte("me:" + password))
	b, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"auth": auth}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// defaultLogins are options with the keychain that users have.
func defaultLogins() PullOptions {
	o, _ := options()
	o.Keychain = nil
	return o
}

func TestPullBasicAuth(t *testing.T) {
	s := newServer(t)
	want := s.pushImage("secret", "latest", testImage{layers: []testLayer{newLayer(t, 1, 100)}})
	s.breaks(-1, func(r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		return user != "me" || password != "right"
	}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
	})
	st := newStore(t)
	useLogin(t, s.host(), "right")
	img, err := Pull(t.Context(), st, s.ref("secret"), defaultLogins())
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, want)

	st = newStore(t)
	useLogin(t, s.host(), "wrong")
	_, err = Pull(t.Context(), st, s.ref("secret"), defaultLogins())
	requireLine(t, err, "access denied for "+s.ref("secret:latest"), "is wrong", "docker login "+s.host())
	useLogin(t, "elsewhere.example.com", "right")
	_, err = Pull(t.Context(), st, s.ref("secret"), defaultLogins())
	requireLine(t, err, "access denied for "+s.ref("secret:latest"), "needs a login", "docker login "+s.host())
	if !errors.Is(err, ErrDenied) {
		t.Error(err)
	}
	requireEmpty(t, st)
}

// TestPullAuthFiles: podman's auth.json, and a config file that cannot be read.
func TestPullAuthFiles(t *testing.T) {
	s := newServer(t)
	s.pushImage("secret", "latest", testImage{})
	s.breaks(-1, func(r *http.Request) bool { u, _, _ := r.BasicAuth(); return u != "me" }, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	useLogin(t, s.host(), "right")
	file := filepath.Join(os.Getenv("HOME"), "config.json")
	auth := filepath.Join(os.Getenv("HOME"), "auth.json")
	if err := os.Rename(file, auth); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REGISTRY_AUTH_FILE", auth)
	if _, err := Pull(t.Context(), newStore(t), s.ref("secret"), defaultLogins()); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Pull(t.Context(), newStore(t), s.ref("secret"), defaultLogins())
	requireLine(t, err, s.host(), "config file")
}

// TestPullTokenAuth: the registry sends the client for tokens, which expire in the midst of the pull.
func TestPullTokenAuth(t *testing.T) {
	s := newServer(t)
	l := newLayer(t, 1, 1000)
	want := s.pushImage("team/secret", "latest", testImage{layers: []testLayer{l}})
	valid, issued := "", 0
	var scopes []string
	s.mu.Lock()
	s.fault = func(w http.ResponseWriter, r *http.Request) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.URL.Path == "/token" {
			if u, p, _ := r.BasicAuth(); u != "me" || p != "right" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			scopes = append(scopes, r.URL.Query().Get("scope"))
			issued++
			valid = fmt.Sprintf("token%d", issued)
			_ = json.NewEncoder(w).Encode(map[string]string{"token": valid})
			return true
		}
		if isBlob(l.digest())(r) && issued == 1 {
			valid = "expired"
		}
		if r.Header.Get("Authorization") == "Bearer "+valid {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test",scope="repository:team/secret:pull"`, s.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	s.mu.Unlock()
	useLogin(t, s.host(), "right")
	st := newStore(t)
	img, err := Pull(t.Context(), st, s.ref("team/secret"), defaultLogins())
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, want)
	if issued != 2 || scopes[0] != "repository:team/secret:pull" {
		t.Errorf("%d tokens for scopes %q", issued, scopes)
	}
	useLogin(t, s.host(), "wrong")
	_, err = Pull(t.Context(), newStore(t), s.ref("team/secret"), defaultLogins())
	if requireLine(t, err, "access denied"); !errors.Is(err, ErrDenied) {
		t.Error(err)
	}
}

func TestPullTLS(t *testing.T) {
	s := newHandler(t)
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	s.Config.ErrorLog = nil
	want := s.pushImage("x", "latest", testImage{layers: []testLayer{newLayer(t, 1, 100)}})
	st := newStore(t)
	o, clock := options()
	_, err := Pull(t.Context(), st, s.ref("x"), o)
	requireLine(t, err, "certificate", "--tls-verify=false")
	if len(clock.waits) != 0 {
		t.Error("a certificate was asked for again")
	}
	o.TLSVerify = false
	img, err := Pull(t.Context(), st, s.ref("x"), o)
	if err != nil {
		t.Fatal(err)
	}
	requireStored(t, st, img, want)
}

// TestNeedsPlainHTTP: a registry that speaks plain http under a name that may not, and one that ggcr alone would.
func TestNeedsPlainHTTP(t *testing.T) {
	s := newServer(t)
	for _, domain := range []string{"registry.example.com", "192.168.7.7:5000"} {
		ref, err := ParseReference(domain + "/x")
		if err != nil {
			t.Fatal(err)
		}
		o, clock := options()
		o = o.withDefaults()
		c, err := newClient(t.Context(), ref, o)
		if err != nil {
			t.Fatal(err)
		}
		c.base.Proxy = nil
		c.base.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.host())
		}
		err = c.connect(t.Context(), &retrier{tries: 5, sleep: o.sleep})
		c.close()
		requireLine(t, err, domain, "plain http", "--tls-verify=false")
		if len(clock.waits) != 0 {
			t.Error("it was tried again")
		}
	}
	if seen := s.seen(); len(seen) != 0 {
		t.Errorf("plain http was spoken: %+v", seen)
	}
}
