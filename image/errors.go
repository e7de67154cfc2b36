package image

import (
	"errors"
)

// The errors that callers tell apart, with errors.Is. Each comes wrapped in one line that names the thing, the cause and
// what to do. What the store says (layerstore.ErrNotFound, ErrAmbiguous, ErrInUse, ErrNoSpace…) is passed on as it is.
var (
	// ErrReference: not a reference that the docker CLI would take.
	ErrReference = errors.New("invalid reference")
	// ErrNoSuchImage: the registry has no such repository, tag or digest.
	ErrNoSuchImage = errors.New("no such image in the registry")
	// ErrDenied: the registry refuses: it has no such repository, or wants a login, or another one.
	ErrDenied = errors.New("access denied")
	// ErrNoPlatform: the image is not made for the platform asked for.
	ErrNoPlatform = errors.New("no such platform")
	// ErrUnsupported: a format that plyfs does not take: schema 1, a foreign layer, an artifact that is no image.
	ErrUnsupported = errors.New("not supported")
	// ErrRegistry: the registry fails, or cannot be reached, and retrying did not help.
	ErrRegistry = errors.New("registry failure")
	// ErrFilter: a filter that is no KEY=VALUE, or not one of the command's.
	ErrFilter = errors.New("invalid filter")
	// ErrContent: what the registry sent is not what its digest, size or format promised.
	ErrContent = errors.New("bad content from the registry")
)

// kindError is a one-line message that errors.Is also finds to be of a kind; the kind's own text is not repeated.
type kindError struct {
	kind  error
	msg   string
	cause error
}

func (e *kindError) Error() string { return e.msg }

func (e *kindError) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}
