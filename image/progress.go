package image

import "github.com/opencontainers/go-digest"

// Progress is told how a pull goes on. Its methods and those of the LayerProgress it gives are called from several
// goroutines at once, each LayerProgress from one at a time.
type Progress interface {
	// Layer announces a layer before anything is fetched, bottom first, each digest once; size is its compressed size in bytes.
	Layer(d digest.Digest, size int64) LayerProgress
	// Message is a line of text for the user.
	Message(text string)
}

// LayerProgress is told of one layer.
type LayerProgress interface {
	// Start says that bytes come now and that offset bytes are there: more than 0 when an earlier try is carried on. It is
	// called again after a broken connection, with a smaller offset when the layer starts anew.
	Start(offset int64)
	// Add says that n more compressed bytes have come.
	Add(n int64)
	// Status says in a word what happens: "Already exists", "Verifying", "Pull complete", "Retrying in 2s: …".
	Status(text string)
	// Done ends the layer; nothing is called after it. err is nil when the layer is in the store.
	Done(err error)
}

// noProgress is for callers who want none.
type noProgress struct{}

// Layer shows nothing.
func (noProgress) Layer(digest.Digest, int64) LayerProgress { return noLayerProgress{} }

// Message shows nothing.
func (noProgress) Message(string) {}

type noLayerProgress struct{}

// Start shows nothing.
func (noLayerProgress) Start(int64) {}

// Add shows nothing.
func (noLayerProgress) Add(int64) {}

// Status shows nothing.
func (noLayerProgress) Status(string) {}

// Done shows nothing.
func (noLayerProgress) Done(error) {}
