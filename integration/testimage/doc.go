// Package testimage makes the images that the integration tests and the benchmark work on, and serves them from a real
// registry. Images are made once by Debian's own tools (mmdebstrap, umoci, GNU tar, skopeo) and kept in a cache outside
// the repository, so that a second run is quick. Nothing of plyfs takes part in making them: they are its oracle.
package testimage
