package overlay

// Entry names one inode of a [Layer]. Its value means something to that layer only and stays the same for as long as
// the layer exists, over restarts and over rebuilds of an index. RootEntry is the layer's root directory. Names that are
// hard links of one file share one Entry.
type Entry uint64

// RootEntry is the root directory of every layer.
const RootEntry Entry = 0

// Timespec is a point in time: seconds since the Unix epoch (negative before it) and nanoseconds in [0, 1e9).
type Timespec struct {
	Sec  int64
	Nsec uint32
}

// Attr holds the attributes of an inode, in the units of stat(2).
type Attr struct {
	Ino     uint64 // unique in its layer, below 1<<48
	Size    uint64 // bytes; for a symlink the length of its target; for a directory 4096 from layers made of tars
	Blocks  uint64 // 512-byte units
	Mode    uint32 // type (S_IFMT) and permission bits
	Nlink   uint32 // for a directory 2 and one for each subdirectory of this layer, 1 when that is not known
	UID     uint32
	GID     uint32
	Rdev    uint32 // as the kernel encodes a dev_t of 32 bits: new_encode_dev of include/linux/kdev_t.h
	Blksize uint32 // preferred size of I/O, bytes
	Atime   Timespec
	Mtime   Timespec
	Ctime   Timespec
	Btime   Timespec // zero when not known
}

// Item is what a name in a layer's directory stands for.
type Item struct {
	Entry Entry
	Ino   uint64 // Attr.Ino of the entry
	Mode  uint32 // the S_IFMT bits of the entry; 0 for a whiteout, which hides the name in the layers below
	Flags ItemFlags
}

// ItemFlags are properties of an Item that a lookup in a stack of layers must know.
type ItemFlags uint8

const (
	// FlagOpaque marks a directory that hides the contents of its namesakes in the layers below.
	FlagOpaque ItemFlags = 1 << iota
	// FlagLinked marks a file other than a directory that has more than one name in its layer.
	FlagLinked
	// FlagRedirect marks an inode whose contents in the layers below are found under another name, which the layer's
	// method Redirect tells. Only layers that are directories of the host have it.
	FlagRedirect
	// FlagMetacopy marks a regular file whose data are in the layers below. Only layers that are directories of the
	// host have it.
	FlagMetacopy
)

// Redirecter is what a Layer must be that gives items with FlagRedirect.
type Redirecter interface {
	// Redirect returns the path, absolute in the layers below or relative to the same directory there, at which the
	// contents of an inode go on.
	Redirect(e Entry) (string, error)
}

// IsWhiteout reports whether the item hides its name in the layers below.
func (it Item) IsWhiteout() bool { return it.Mode == 0 }

// DirEntry is one name of a directory's listing.
type DirEntry struct {
	Item
	Name   string
	Cookie uint64 // Cookie(Name), by which a listing is ordered
}

// Run is a stretch of a regular file's data that lies in one piece.
type Run struct {
	FD  int   // descriptor to read from, -1 for a hole, which reads as zeros
	Pos int64 // where in FD the stretch begins, bytes
	Len int64 // how long it is, bytes; 0 only at or past the end of the file
	Ref FDRef // keeps FD open; the caller calls Ref.Release once it is done with FD, when Ref is not nil
}

// FDRef holds a descriptor open.
type FDRef interface {
	Release()
}

// Layer is a read-only tree, one of a stack. Its methods may be called from any goroutine at any time until Close.
// Strings and byte slices that they return must not be changed and are valid until Close. A name that does not exist is
// syscall.ENOENT, an xattr that does not exist syscall.ENODATA, damage in the layer's own data an error that wraps
// ErrCorrupt; other errors are errnos of the host. An Entry that this layer did not give is an error, never a crash.
type Layer interface {
	// ID is stable for the layer's content wherever it is mounted: the first 8 bytes of a digest.
	ID() uint64
	// Lookup finds a name in a directory. A whiteout is found, and says so. Each Entry that Lookup returns is held until
	// Forget is called for it.
	Lookup(dir Entry, name string) (Item, error)
	// Forget gives back an Entry got from Lookup. It does nothing for a layer whose entries cost no memory.
	Forget(e Entry)
	// Attr fills in the attributes of an inode.
	Attr(e Entry, a *Attr) error
	// ReadDir fills buf with the directory's names whose cookie is greater than after, in increasing order of cookie,
	// whiteouts included, "." and ".." excluded. It returns how many it filled in; fewer than len(buf) means the end.
	// Entries it returns are not held: Item.Entry may be used only until the next call, or not at all when 0.
	ReadDir(dir Entry, after uint64, buf []DirEntry) (int, error)
	// Readlink returns a symlink's target.
	Readlink(e Entry) (string, error)
	// Xattr returns the value of an extended attribute.
	Xattr(e Entry, name string) ([]byte, error)
	// Xattrs returns the names of all extended attributes.
	Xattrs(e Entry) ([]string, error)
	// Data tells where the data of a regular file lies that begins at byte off.
	Data(e Entry, off int64) (Run, error)
	// Close releases what the layer holds. No other method may run or be called then.
	Close() error
}
