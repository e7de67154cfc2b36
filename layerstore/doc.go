// Package layerstore owns the store on disk: blobs and index.json as a valid OCI image layout, layers (the uncompressed
// tar and its index), images, containers, the locks between processes, and the collection of garbage.
//
// Everything in it appears by write, fsync and rename, so a reader needs no lock and a process killed at any instant
// leaves a whole store. Writers of index.json and of containers/ take the flock of <root>/lock exclusively for
// milliseconds; who fetches a layer holds the flock of that layer alone; who will need digests that no image names yet
// holds a [Lease]. docs/store.md describes the layout, the order of the locks and every state a crash can leave.
package layerstore
