package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	defaultRetries = 5
	firstDelay     = 500 * time.Millisecond
	maxDelay       = 20 * time.Second
	// maxRetryAfter is how long a Retry-After header can make us wait; a registry that asks for more gets an error at once.
	maxRetryAfter = 60 * time.Second
)

var (
	// errPlainHTTP: the registry would have been spoken to without TLS.
	errPlainHTTP = errors.New("plain http is not allowed")
	errRedirect  = errors.New("bad redirect")
	// errRange: the registry did not send the part of a layer that it was asked for; the whole may do.
	errRange = errors.New("it sent another part of the layer than it was asked for")
)

// stallError: no byte came for the time a connection may be silent.
type stallError struct{ limit time.Duration }

func (e stallError) Error() string {
	return fmt.Sprintf("the connection stalled: nothing came for %s", e.limit)
}

// retrier counts the failed tries since the last progress and waits between them.
type retrier struct {
	tries  int // of these without progress the last one fails for good
	failed int
	sleep  func(context.Context, time.Duration) error
}

func (r *retrier) progress() { r.failed = 0 }

// wait returns nil when another try may start, else err or the context's error. tell is called before it waits.
func (r *retrier) wait(ctx context.Context, err error, tell func(time.Duration)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.failed++
	if !temporary(err) || r.failed >= r.tries {
		return err
	}
	after := retryAfter(err)
	if after > maxRetryAfter {
		return err
	}
	delay := min(firstDelay<<min(r.failed-1, 16), maxDelay)
	delay = max(delay/2+rand.N(delay/2+1), after) //nolint:gosec // jitter needs no secrets
	if tell != nil {
		tell(delay)
	}
	return r.sleep(ctx, delay)
}

// do calls f until it succeeds or fails for good.
func (r *retrier) do(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		if err = r.wait(ctx, err, nil); err != nil {
			return err
		}
	}
}

func sleepContext(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// afterError carries the Retry-After of the answer that err is about.
type afterError struct {
	error
	after time.Duration
}

func (e *afterError) Unwrap() error { return e.error }

func retryAfter(err error) time.Duration {
	var a *afterError
	if errors.As(err, &a) {
		return a.after
	}
	return 0
}

// status is the HTTP status that a registry answered, 0 when err is something else.
func status(err error) int {
	var te *transport.Error
	if errors.As(err, &te) {
		return te.StatusCode
	}
	return 0
}

// temporary reports whether the same request may succeed later. Of a registry that may be spoken to by https and by http
// err can hold both failures, hence the order.
func temporary(err error) bool {
	if certProblem(err) != nil || errors.Is(err, context.Canceled) || errors.Is(err, errRedirect) {
		return false
	}
	switch status(err) {
	case 0:
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	default:
		return false
	}
	var stall stallError
	if errors.As(err, &stall) {
		return true
	}
	for _, e := range []error{errRange, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	if needsPlainHTTP(err) {
		return false
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary || dns.IsTimeout
	}
	var ne net.Error
	return errors.As(err, &ne)
}

// certProblem finds what is wrong with a server's certificate, nil when that is not the trouble.
func certProblem(err error) error {
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		return verify.Err
	}
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return unknown
	case errors.As(err, &host):
		return host
	case errors.As(err, &invalid):
		return invalid
	}
	return nil
}

// needsPlainHTTP reports whether the server does not speak TLS. net/http has no type for its own finding.
func needsPlainHTTP(err error) bool {
	var record tls.RecordHeaderError
	return errors.Is(err, errPlainHTTP) || errors.As(err, &record) ||
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// cause says in one phrase what went wrong with a request. URLs are left out: those of redirects can carry secrets.
func cause(err error) string {
	if p := certProblem(err); p != nil {
		return "its certificate is not trusted (" + clean(p.Error()) + "): trust its CA, or use --tls-verify=false"
	}
	var te *transport.Error
	if errors.As(err, &te) {
		s := fmt.Sprintf("it answered %d %s", te.StatusCode, http.StatusText(te.StatusCode))
		if len(te.Errors) > 0 && te.Errors[0].Message != "" {
			s += " (" + clean(te.Errors[0].Message) + ")"
		}
		if after := retryAfter(err); after > 0 {
			s += fmt.Sprintf(" and asks to wait %s", after)
		}
		return s
	}
	var dns *net.DNSError
	var stall stallError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("there is no host %q: check the name and the network", clean(dns.Name))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "the connection ended early"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was reset"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused: is it running?"
	case errors.As(err, &stall):
		return stall.Error()
	case needsPlainHTTP(err):
		return "it speaks plain http, not https: use --tls-verify=false if that is meant"
	}
	return clean(withoutURL(err).Error())
}

// withoutURL takes the URLs of http.Client off an error.
func withoutURL(err error) error {
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	return err
}
