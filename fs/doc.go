// Package fs is the kernel's side of plyfs: it answers FUSE requests from an overlay.Union, says what the kernel may keep
// and for how long, and mounts and unmounts.
//
// The server is stateless: OPEN, OPENDIR and FLUSH are refused with ENOSYS, so that the kernel stops sending them, and
// all that a request needs is in its node id, which is the overlay.ID. A node id is held by the kernel's lookup count.
package fs
