// Package overlay is the union of read-only layers and one writable directory: which name shows what, how a file is
// brought into the writable directory before it changes, and what is left there so that the union looks the same
// tomorrow. It knows nothing of FUSE, registries or images.
//
// Locks, in the order in which they are taken; none is held over I/O of another file:
//
//  1. copy-up of one inode (Union.copies): held by whoever brings it up, others wait for that inode alone.
//     Its early.mu, held for calls on that one file, and a stamping.mu come after all others but the shards;
//  2. dir.mu of one directory, or of two in the order of their IDs: names in the directory, on disk and in the table,
//     change under the write lock and are resolved to descriptors under the read lock;
//  3. a shard of the inode table or of the descriptor cache: a few loads and stores.
//
// A descriptor of a directory follows the directory through renames, so it is fetched before dir.mu is taken.
package overlay
