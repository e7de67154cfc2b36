package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
)

// client speaks to the registry of one repository. The OCI distribution spec 1.1 describes the requests.
type client struct {
	ref   Reference
	repo  name.Repository
	login bool // credentials were found
	base  *http.Transport
	auth  authn.Authenticator
	wire  *wire
	http  *http.Client // authenticated, from connect on
}

func newClient(ctx context.Context, ref Reference, o PullOptions) (*client, error) {
	repo, err := ref.repository(!o.TLSVerify)
	if err != nil {
		return nil, err
	}
	auth, err := authn.Resolve(ctx, o.Keychain, repo)
	if err != nil {
		return nil, &kindError{
			kind: ErrDenied, cause: err,
			msg: fmt.Sprintf("the login for %s cannot be read from docker's config file: %s", ref.Domain, clean(err.Error())),
		}
	}
	base := newTransport(o.TLSVerify, o.StallTimeout, o.Jobs)
	w := &wire{base: base, registry: repo.RegistryStr(), allowHTTP: !o.TLSVerify || isLoopback(ref.Domain), stall: o.StallTimeout}
	return &client{ref: ref, repo: repo, login: auth != authn.Anonymous, auth: auth, base: base, wire: w}, nil
}

func (c *client) close() { c.base.CloseIdleConnections() }

// connect finds out whether the registry speaks https and how it wants to be logged into, and gets a token if it gives one.
func (c *client) connect(ctx context.Context, r *retrier) error {
	scopes := []string{c.repo.Scope(transport.PullScope)}
	err := r.do(ctx, func() error {
		ctx, after := withRetryAfter(ctx)
		rt, err := transport.NewWithContext(ctx, c.repo.Registry, c.auth, transport.NewUserAgent(c.wire, "plyfs"), scopes)
		if err != nil {
			return &afterError{err, time.Duration(after.Load())}
		}
		c.http = &http.Client{Transport: rt, CheckRedirect: checkRedirect}
		return nil
	})
	return c.explain(ctx, err)
}

// get sends one request below the repository, once. An answer whose status is not in codes is an error. What is
// "manifests" or "blobs"; the caller closes the body.
func (c *client) get(ctx context.Context, method, what, id string, header http.Header, codes ...int) (*http.Response, error) {
	ctx, after := withRetryAfter(ctx)
	u := url.URL{Scheme: c.repo.Scheme(), Host: c.repo.RegistryStr(), Path: "/v2/" + c.repo.RepositoryStr() + "/" + what + "/" + id}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, &afterError{err, time.Duration(after.Load())}
	}
	if err := transport.CheckError(resp, codes...); err != nil {
		_ = resp.Body.Close()
		return nil, &afterError{err, time.Duration(after.Load())}
	}
	return resp, nil
}

func acceptManifests() http.Header { return http.Header{"Accept": {strings.Join(manifestTypes, ", ")}} }

// headManifest asks for the digest that the reference stands for. It is tried once: GET asks better.
func (c *client) headManifest(ctx context.Context) (digest.Digest, error) {
	resp, err := c.get(ctx, http.MethodHead, "manifests", c.ref.identifier(), acceptManifests(), http.StatusOK)
	if err != nil {
		return "", err
	}
	_ = resp.Body.Close()
	return digest.Parse(resp.Header.Get("Docker-Content-Digest"))
}

// getManifest fetches a manifest or index of at most limit bytes by tag or digest; want is its digest if known.
func (c *client) getManifest(ctx context.Context, r *retrier, id string, want digest.Digest, limit int64) (document, error) {
	raw, contentType, err := c.getBytes(ctx, r, "manifests", id, acceptManifests(), limit)
	if err != nil {
		return document{}, c.explain(ctx, err)
	}
	if got := digest.FromBytes(raw); want != "" && got != want {
		return document{}, c.wrongDigest("manifest", want, got)
	}
	d, err := newDocument(raw, contentType)
	return d, c.about(err)
}

// getConfig fetches a config blob.
func (c *client) getConfig(ctx context.Context, r *retrier, want digest.Digest, size int64) ([]byte, error) {
	raw, _, err := c.getBytes(ctx, r, "blobs", want.String(), nil, size)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if got := digest.FromBytes(raw); got != want {
		return nil, c.wrongDigest("config", want, got)
	}
	if int64(len(raw)) != size {
		return nil, &kindError{kind: ErrContent, msg: fmt.Sprintf("%s: the manifest gives the config %d bytes, it has %d", c.ref, size, len(raw))}
	}
	return raw, nil
}

func (c *client) wrongDigest(what string, want, got digest.Digest) error {
	return &kindError{kind: ErrContent, msg: fmt.Sprintf("%s: the registry sent another %s than it names: wanted %s, got %s", c.ref, what, want, got)}
}

func (c *client) getBytes(ctx context.Context, r *retrier, what, id string, h http.Header, limit int64) (b []byte, contentType string, err error) {
	err = r.do(ctx, func() error {
		resp, err := c.get(ctx, http.MethodGet, what, id, h.Clone(), http.StatusOK)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		b, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
		if err != nil {
			return err
		}
		if int64(len(b)) > limit {
			return &kindError{kind: ErrContent, msg: fmt.Sprintf("a %s is longer than its limit of %d bytes", strings.TrimSuffix(what, "s"), limit)}
		}
		contentType = resp.Header.Get("Content-Type")
		return nil
	})
	return b, contentType, err
}

// about puts the image's name before an error of its content.
func (c *client) about(err error) error {
	var k *kindError
	if errors.As(err, &k) {
		return &kindError{kind: k.kind, msg: c.ref.String() + ": " + k.msg, cause: k.cause}
	}
	return err
}

// explain says a failed request as a user of docker would understand it.
func (c *client) explain(ctx context.Context, err error) error {
	var k *kindError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &k):
		return c.about(err)
	}
	e := &kindError{kind: ErrRegistry, cause: err}
	switch status(err) {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.kind = ErrDenied
		e.msg = fmt.Sprintf("pull access denied for %s: the repository does not exist, or needs a login: run docker login %s", c.ref, c.ref.Domain)
		if c.login {
			e.msg = fmt.Sprintf("pull access denied for %s: the repository does not exist, or the login for %s in docker's config file "+
				"is wrong or may not read it: run docker login %s", c.ref, c.ref.Domain, c.ref.Domain)
		}
	case http.StatusNotFound:
		e.kind = ErrNoSuchImage
		e.msg = fmt.Sprintf("no such image: %s: the registry has no such repository or tag: check the name", c.ref)
	case http.StatusTooManyRequests:
		e.msg = fmt.Sprintf("%s: the registry %s limits requests: %s: wait, or log in for a higher limit", c.ref, c.ref.Domain, cause(err))
	default:
		e.msg = fmt.Sprintf("%s: cannot pull from %s: %s", c.ref, c.ref.Domain, cause(err))
		if temporary(err) {
			e.msg += "; run the command again"
		}
	}
	return e
}
