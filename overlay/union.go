package overlay

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Errors that New returns, wrapped with the path concerned.
var (
	// ErrOtherFilesystem says that upper and work directory do not lie on one filesystem.
	ErrOtherFilesystem = errors.New("upper and work directory must be on one filesystem")
	// ErrUpperUnsuitable says that the upper directory's filesystem lacks what an upper layer needs.
	ErrUpperUnsuitable = errors.New("filesystem cannot hold an upper layer")
	// ErrOwners says that who mounts may not give files the owners that the lower layers' files have, which takes root,
	// or root of a user namespace that has those owners.
	ErrOwners = errors.New("only root can keep the owners of changed files; mount read-only, or as root")
	// ErrTooManyLayers says that there are more lower layers than inode numbers have room for.
	ErrTooManyLayers = errors.New("too many layers")
)

// MaxLayers is how many lower layers a union may have: what 16 bits of an inode number tell apart, less the values
// kept for the upper layer.
const MaxLayers = 0xff00

// Config says what a Union is made of.
type Config struct {
	Lowers []Layer  // top first; the Union closes them
	Names  []string // of the lowers, as XattrLayer shows them; those missing are shown by their IDs
	Upper  string   // directory that takes the changes; "" for a read-only union
	Work   string   // empty directory on Upper's filesystem for what is not yet in place; "" with Upper ""
	// AdoptRoot gives a fresh upper directory the attributes of the lowers' root, once.
	AdoptRoot bool
	// Modes say how what is written is kept.
	Modes Modes
	// MaxFDs bounds the descriptors of upper files kept open for later use; 0 means 1024.
	MaxFDs int
}

// Union is the merged tree. Its methods may be called from any goroutine. They return errnos of the kernel
// (golang.org/x/sys/unix.Errno), or errors that wrap ErrCorrupt.
type Union struct {
	lowers []Layer
	modes  Modes
	names  []string       // of the lowers, for people
	byID   map[uint64]int // topmost of the lowers with an ID
	up     *upper         // nil: read-only
	tab    *table
	fds    *fdCache

	copyMu   sync.Mutex // guards copies and what is in them
	copies   map[ID]*copyUp
	admitted atomic.Int32 // how many of them take writes, or did

	faceMu sync.Mutex // guards faces
	faces  map[ID]lowerItem

	stampMu sync.Mutex // guards stamps
	stamps  map[ID]*stamping

	adoptMu sync.Mutex // one at a time goes on with what kernel overlayfs has in its index

	aliasMu sync.Mutex // guards aliases
	aliases map[ID]alias

	pinMu sync.Mutex // guards pins
	pins  map[ID]*openFile
}

// dir is what is kept of a directory besides its record.
type dir struct {
	mu sync.RWMutex // see the package comment

	lowers []lowerRef // the directories of lower layers that show through, top first; never changed
	attrs  int        // index in lowers of the one whose attributes show while there is no upper one
	// redirect is the absolute path of lowers in their layers, nil when it is that of the directory itself.
	redirect atomic.Pointer[string]

	subdirs  atomic.Int32  // subdirectories + 1, 0 when they were not counted yet
	impure   atomic.Bool   // the upper directory has the impure mark
	inherit  atomic.Uint32 // inherit… bits
	version  atomic.Uint64 // of the upper directory's names: raised by each change
	snapshot atomic.Pointer[snapshot]
}

const (
	inheritKnown uint32 = 1 << iota
	inheritGroup        // setgid: what is created belongs to the directory's group
	inheritACL          // has a default ACL: the umask does not count
	appendOnly          // chattr +a: no name may go, which the host keeps from alone that are in the upper layer
)

// lowerRef is a directory of a lower layer.
type lowerRef struct {
	layer int // index in Union.lowers
	entry Entry
}

// New puts a union together. It does no work that grows with the layers' contents.
func New(cfg Config) (*Union, error) {
	if len(cfg.Lowers) > MaxLayers {
		return nil, fmt.Errorf("%w: %d, at most %d", ErrTooManyLayers, len(cfg.Lowers), MaxLayers)
	}
	u := &Union{
		lowers: cfg.Lowers,
		modes:  cfg.Modes,
		names:  cfg.Names,
		byID:   map[uint64]int{},
		copies: map[ID]*copyUp{},
		faces:  map[ID]lowerItem{},
		pins:   map[ID]*openFile{},

		aliases: map[ID]alias{},
		stamps:  map[ID]*stamping{},
	}
	tellApart(u.lowers)
	for i := len(u.lowers) - 1; i >= 0; i-- {
		u.byID[u.lowers[i].ID()] = i
	}
	limit := cfg.MaxFDs
	if limit == 0 {
		limit = 1024
	}
	u.fds = newFDCache(limit)
	root := record{mode: unix.S_IFDIR, flags: flagDir}
	d := &dir{}
	if cfg.Upper != "" {
		up, err := openUpper(cfg.Upper, cfg.Work, &cfg.Modes)
		if err != nil {
			return nil, err
		}
		u.up = up
		root.flags |= flagUpper
	}
	if err := u.initRoot(&root, d, cfg.AdoptRoot); err != nil {
		u.up.close()
		return nil, err
	}
	u.tab = newTable(root, d)
	return u, nil
}

// initRoot finds what the root directory merges.
func (u *Union) initRoot(root *record, d *dir, adopt bool) error {
	opaque := false
	if u.up != nil {
		var st unix.Stat_t
		p := at(u.up.root)
		if err := p.stat(&st); err != nil {
			return err
		}
		m, err := u.readMarks(p, unix.S_IFDIR)
		if err != nil {
			return err
		}
		opaque = m.opaque
		if u.up.plain = adopt; !opaque && !u.up.plain {
			if opaque, err = dotOpaqueIn(p); err != nil {
				return err
			}
		}
		d.impure.Store(m.impure)
		root.upIno, root.ino = st.Ino, upperIno(st.Ino)
		adopt = adopt && !m.hasOrigin
	}
	for i := range u.lowers {
		if opaque {
			break
		}
		d.lowers = append(d.lowers, lowerRef{i, RootEntry})
		if x, ok := u.lowers[i].(interface{ RootOpaque() bool }); ok {
			opaque = x.RootOpaque()
		}
	}
	if len(d.lowers) == 0 {
		return nil
	}
	d.attrs = u.attrsOf(d.lowers)
	var a Attr
	if err := u.lowers[0].Attr(RootEntry, &a); err != nil {
		return err
	}
	root.ino, root.layer = u.lowerIno(0, a.Ino), 1
	if u.up == nil || !adopt {
		return nil
	}
	if err := u.lowers[d.attrs].Attr(RootEntry, &a); err != nil {
		return err
	}
	return u.adoptRoot(d.attrs, &a)
}

// attrsOf chooses whose attributes a directory shows: those of the topmost layer that says something of them. A tar may
// hold something below a directory without an entry of the directory itself.
func (u *Union) attrsOf(refs []lowerRef) int {
	for i, r := range refs {
		l, ok := u.lowers[r.layer].(interface{ Implied(e Entry) bool })
		if !ok || !l.Implied(r.entry) {
			return i
		}
	}
	return 0
}

// adoptRoot makes a fresh upper directory look like the lowers' root. The origin mark comes last and says that it is
// done.
func (u *Union) adoptRoot(layer int, a *Attr) error {
	p := at(u.up.root)
	err := u.copyAttrs(p, layer, RootEntry, a, true)
	if isPermission(err) {
		return fmt.Errorf("%w (%w)", ErrOwners, err)
	}
	if err != nil {
		return fmt.Errorf("upper directory: take over the root's attributes: %w", err)
	}
	return p.setxattr(u.up.overlay+xattrOrigin, u.origin(layer, a.Ino), 0)
}

// Close lets go of all layers and descriptors. No other method may run or be called then.
func (u *Union) Close() error {
	u.fds.close()
	for _, f := range u.pins {
		f.Release()
	}
	u.up.close()
	var errs []error
	for _, l := range u.lowers {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// ReadOnly reports whether the union has no upper layer.
func (u *Union) ReadOnly() bool { return u.up == nil }

const (
	inoBits    = 48 // of an inode number tell inodes of one layer apart, the 16 above them tell the layer
	inoMask    = 1<<inoBits - 1
	inoUpper   = 0xffff // layer number of upper inodes whose own number does not fit
	inoBesides = 0xfffe // …of upper inodes whose origin another inode has as well
)

// lowerIno is the inode number shown for an inode of u.lowers[i]. Layers count from the bottom, so that a layer on top
// does not change the numbers below it; 0 is the upper layer.
func (u *Union) lowerIno(i int, ino uint64) uint64 {
	return uint64(len(u.lowers)-i)<<inoBits | ino&inoMask // #nosec G115 -- i is below len
}

func upperIno(ino uint64) uint64 {
	if ino <= inoMask {
		return ino
	}
	return inoUpper<<inoBits | (ino^ino>>inoBits)&inoMask
}

// Forget gives back n references to an inode.
func (u *Union) Forget(id ID, n uint64) {
	for id != 0 && n > 0 {
		gone, last := u.tab.forget(id, n)
		if !last {
			return
		}
		u.release(id, &gone)
		u.tab.free(id)
		id, n = gone.parent, 1
	}
}

// release lets go of what an inode held that is no longer in the table.
func (u *Union) release(id ID, gone *dead) {
	if gone.flags&flagUpper != 0 {
		u.fds.forget(id)
	}
	if gone.flags&flagPinned != 0 {
		u.unpin(id)
	}
	if gone.flags&flagFaced != 0 {
		u.dropFace(id)
	}
	if gone.flags&flagAliased != 0 {
		if a, ok := u.takeAlias(id, nil); ok {
			u.Forget(a.parent, 1)
		}
	}
	if gone.dir != nil {
		u.forgetLowers(gone.dir.lowers)
	} else if gone.layer != 0 {
		u.lowers[gone.layer-1].Forget(gone.entry)
	}
}

func (u *Union) forgetLowers(refs []lowerRef) {
	for _, r := range refs {
		if r.entry != RootEntry {
			u.lowers[r.layer].Forget(r.entry)
		}
	}
}

// Generation tells an ID from an earlier use of the same ID.
func (u *Union) Generation(id ID) uint64 {
	r, _ := u.tab.get(id)
	return uint64(r.gen)
}
