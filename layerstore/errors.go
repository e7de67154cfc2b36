package layerstore

import (
	"errors"

	"github.com/plyfs/plyfs/overlay"
)

// The errors that callers tell apart, with errors.Is. Each comes wrapped in a sentence that names the thing, the cause
// and what to do.
var (
	// ErrNotFound: no such blob, layer, image or container.
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous: a short ID stands for more than one image or container.
	ErrAmbiguous = errors.New("ambiguous")
	// ErrExists: BeginLayer found the layer complete, perhaps after waiting for another process that fetched it.
	ErrExists = errors.New("already in the store")
	// ErrNotWritable: the store cannot be made, opened or written for want of permission or on a read-only file system.
	ErrNotWritable = errors.New("store not writable")
	// ErrNoSpace: the file system of the store is full, or a quota is used up.
	ErrNoSpace = errors.New("no space left")
	// ErrDigestMismatch: bytes are not those that their digest names.
	ErrDigestMismatch = errors.New("digest mismatch")
	// ErrTooLarge: something is longer than its descriptor or a limit says.
	ErrTooLarge = errors.New("too large")
	// ErrPartial comes together with ErrDigestMismatch, ErrTooLarge or ErrCorrupt when the layer was carried on from the
	// bytes of an earlier try: they may be what is wrong, they are thrown away, so try once more from the start.
	ErrPartial = errors.New("bytes of an earlier try were damaged")
	// ErrCorrupt: content that is damaged or breaks its format: a layer's compression or tar, a manifest, the store itself.
	ErrCorrupt = overlay.ErrCorrupt
	// ErrInvalid: a manifest, config, name or argument that breaks its format.
	ErrInvalid = errors.New("invalid")
	// ErrInUse: a container uses the image.
	ErrInUse = errors.New("in use")
	// ErrParent: another image was made from this one.
	ErrParent = errors.New("image has dependent child images")
	// ErrMultipleNames: an image given by its ID has several names, and its removal was not forced.
	ErrMultipleNames = errors.New("image is referenced in multiple repositories")
	// ErrNameTaken: another container has the name.
	ErrNameTaken = errors.New("name already in use")
	// ErrBusy: another process holds the lock, as the server of a mounted container does.
	ErrBusy = errors.New("busy")
	// ErrClosed: the session or the store was closed before.
	ErrClosed = errors.New("closed")
)
