package image

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxRedirects = 10
	maxErrorBody = 64 << 10 // bytes of an answer that is an error
)

// newTransport makes the connections of one pull. It speaks HTTP/1.1 alone: each layer then has a connection of its own,
// and dropping a stalled one touches no other.
func newTransport(verify bool, dialTimeout time.Duration, connections int) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: !verify, MinVersion: tls.VersionTLS12}, //nolint:gosec // --tls-verify=false asks for it
		TLSHandshakeTimeout: dialTimeout,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost: connections + 1,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true, // digests are of the bytes as they are
		ReadBufferSize:      64 << 10,
	}
}

// wire is the lowest transport, below authentication: it keeps plain http away from registries that must not be spoken
// to so, drops silent connections, bounds the bodies of errors, and notes how long an answer asks to wait.
type wire struct {
	base      http.RoundTripper
	registry  string // host[:port] on the wire
	allowHTTP bool
	stall     time.Duration
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	// ggcr takes private addresses for plain-http registries; docker does not.
	if req.URL.Scheme == "http" && req.URL.Host == w.registry && !w.allowHTTP {
		return nil, errPlainHTTP
	}
	ctx, cancel := context.WithCancel(req.Context())
	dog := newWatchdog(w.stall, cancel)
	resp, err := w.base.RoundTrip(req.WithContext(ctx))
	dog.stop()
	if err != nil {
		cancel()
		return nil, dog.judge(err)
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, dog: dog, cancel: cancel}
	if resp.StatusCode >= http.StatusBadRequest {
		noteRetryAfter(req.Context(), resp.Header.Get("Retry-After"))
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxErrorBody), resp.Body}
	}
	return resp, nil
}

// watchdog cancels a request when nothing came for a while.
type watchdog struct {
	limit time.Duration
	timer *time.Timer
	fired atomic.Bool
}

func newWatchdog(limit time.Duration, cancel func()) *watchdog {
	d := &watchdog{limit: limit}
	d.timer = time.AfterFunc(limit, func() {
		d.fired.Store(true)
		cancel()
	})
	return d
}

func (d *watchdog) start() { d.timer.Reset(d.limit) }
func (d *watchdog) stop()  { d.timer.Stop() }

// judge turns the error of a cancelled request into a stallError if the watchdog cancelled it.
func (d *watchdog) judge(err error) error {
	if err != nil && err != io.EOF && d.fired.Load() { //nolint:errorlint // io.EOF comes bare from a body that is complete
		return stallError{d.limit}
	}
	return err
}

// watchedBody watches while a Read waits for the network, not while the reader is busy with what it got.
type watchedBody struct {
	io.ReadCloser
	dog    *watchdog
	cancel func()
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.dog.start()
	n, err := b.ReadCloser.Read(p)
	b.dog.stop()
	return n, b.dog.judge(err)
}

// Close ends the request too.
func (b *watchedBody) Close() error {
	b.dog.stop()
	err := b.ReadCloser.Close()
	b.cancel()
	return err
}

type retryAfterKey struct{}

// withRetryAfter makes a context whose requests leave in the int64 how many nanoseconds they were asked to wait.
func withRetryAfter(ctx context.Context) (context.Context, *atomic.Int64) {
	var v atomic.Int64
	return context.WithValue(ctx, retryAfterKey{}, &v), &v
}

func noteRetryAfter(ctx context.Context, header string) {
	v, ok := ctx.Value(retryAfterKey{}).(*atomic.Int64)
	if !ok || header == "" {
		return
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(header), 10, 32); err == nil && n >= 0 {
		v.Store(int64(time.Duration(n) * time.Second))
	} else if t, err := http.ParseTime(header); err == nil {
		v.Store(int64(max(time.Until(t), 0)))
	}
}

// checkRedirect follows registries to where they keep blobs, without taking the login there, and not from a public host
// into this machine or its link (where clouds keep their metadata).
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("%w: more than %d of them", errRedirect, maxRedirects)
	}
	from := via[len(via)-1].URL
	if req.URL.Host != via[0].URL.Host {
		req.Header.Del("Authorization")
	}
	req.Header.Del("Referer") // it would tell the next host a signed URL
	addr, err := netip.ParseAddr(req.URL.Hostname())
	if err != nil || isLoopback(from.Host) || from.Hostname() == req.URL.Hostname() {
		return nil
	}
	if addr = addr.Unmap(); addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() {
		return fmt.Errorf("%w: it points into this machine, at %s", errRedirect, addr)
	}
	return nil
}
