package overlay

import "errors"

// ErrCorrupt says that a layer's own data contradicts itself.
var ErrCorrupt = errors.New("layer is damaged")
