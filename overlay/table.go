package overlay

import "sync"

// ID names an inode of a Union while it is held: from the Lookup (or Create…) that returned it until Forget.
type ID uint32

// RootID is the root directory; it is always held.
const RootID ID = 1

const (
	shardBits = 5
	shards    = 1 << shardBits
	chunkLen  = 256 // records of a chunk
	bucketsLo = 64  // buckets that a shard begins with
)

// State bits of a record.
const (
	flagUpper    uint16 = 1 << iota // it has an inode in the upper layer
	flagMetacopy                    // …whose data is still that of (layer, entry)
	flagIndexed                     // …found in the index directory: a lower hard link that was copied up
	flagPinned                      // …reachable only by its descriptor in Union.pins
	flagUnlinked                    // no name is left
	flagLinked                      // the lower file has several names
	flagFaced                       // its attributes are those of Union.faces, its data those of (layer, entry)
	flagAliased                     // it has an entry in Union.aliases
	flagDir
	flagLost // writes were answered that a copy-up which failed took with it
	flagKept // one of refs is the table's own (Modes.KeepNodes)
)

// record is what is kept of an inode. It holds no pointers, so that the garbage collector has nothing to follow and a
// million inodes stay below 150 bytes each.
type record struct {
	ino    uint64 // key: the inode number shown
	entry  Entry  // the lower inode, when layer is not 0
	upIno  uint64 // st_ino in the upper layer, when flagUpper
	refs   uint64 // lookups of the caller and records that name it as their parent
	parent ID     // directory by which it is known; 0 for the root
	name   nameRef
	next   ID // next of the bucket, or of the free list
	gen    uint32
	mode   uint32 // S_IFMT
	layer  uint16 // 1 and the index in Union.lowers; 0: none
	flags  uint16
}

// hasData reports whether the data are in the upper layer.
func (r *record) hasData() bool { return r.flags&(flagUpper|flagMetacopy) == flagUpper }

// table holds all inodes, by ID and by inode number.
type table struct {
	shard [shards]tableShard
}

type tableShard struct {
	mu      sync.Mutex // guards everything below
	chunks  []*chunk   // nil: all its inodes are gone
	avail   []int      // chunks that have room
	gen     uint32     // of the inode made last: an ID used again has another generation
	buckets []ID
	count   int
	dirs    map[ID]*dir
}

// chunk is the memory of some inodes; it is given back when the last of them is gone.
type chunk struct {
	recs  *[chunkLen]record
	names nameArena
	used  int // records ever handed out
	live  int
	free  ID
}

func (t *table) of(id ID) *tableShard { return &t.shard[id&(shards-1)] }

func newChunk() *chunk { return &chunk{recs: new([chunkLen]record)} }

// at returns the chunk and the record of an ID, nil when it was never handed out or its chunk is gone.
func (s *tableShard) at(id ID) (*chunk, *record) {
	i := int(id >> shardBits)
	if i/chunkLen >= len(s.chunks) || s.chunks[i/chunkLen] == nil {
		return nil, nil
	}
	c := s.chunks[i/chunkLen]
	return c, &c.recs[i%chunkLen]
}

// rec returns the record of an ID that is in use, nil otherwise.
func (s *tableShard) rec(id ID) *record {
	if _, r := s.at(id); r != nil && r.refs > 0 {
		return r
	}
	return nil
}

// get returns a copy of a record.
func (t *table) get(id ID) (record, bool) {
	s := t.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rec(id); r != nil {
		return *r, true
	}
	return record{}, false
}

// getNamed returns a copy of a record and its name.
func (t *table) getNamed(id ID) (record, string, bool) {
	s := t.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	c, r := s.at(id)
	if r == nil || r.refs == 0 {
		return record{}, "", false
	}
	return *r, c.names.get(r.name), true
}

// dir returns the directory state of an ID, nil when it is not a directory in use.
func (t *table) dir(id ID) *dir {
	s := t.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dirs[id]
}

// update changes a record in place.
func (t *table) update(id ID, f func(r *record)) {
	s := t.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rec(id); r != nil {
		f(r)
	}
}

// move makes an inode known by another name and returns the directory that it was known by, whose reference now is the
// caller's; that of the new parent is taken.
func (t *table) move(id, parent ID, name string) ID {
	t.hold(parent)
	s := t.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	c, r := s.at(id)
	if r == nil || r.refs == 0 {
		return parent
	}
	old := r.parent
	c.names.drop(r.name)
	r.parent, r.name = parent, c.names.put(name)
	r.flags &^= flagUnlinked
	return old
}

// hold adds a reference to an ID, and reports whether it is in use.
func (t *table) hold(id ID) bool {
	s := t.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rec(id)
	if r == nil {
		return false
	}
	r.refs++
	return true
}

const hashMul = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio: Fibonacci hashing

func shardOf(ino uint64) ID { return ID((ino * hashMul) >> (64 - shardBits)) }

func (s *tableShard) bucket(ino uint64) *ID {
	return &s.buckets[(ino*hashMul>>20)&uint64(len(s.buckets)-1)]
}

// find returns the ID that has the inode number, 0 for none.
func (s *tableShard) find(ino uint64) ID {
	for id := *s.bucket(ino); id != 0; {
		_, r := s.at(id)
		if r.ino == ino {
			return id
		}
		id = r.next
	}
	return 0
}

// acquire returns the ID of an inode number with one more reference. When there is none it makes one from r, which
// holds all but refs, gen and name; made reports that, and that a reference to the parent was taken. same decides
// whether a record found is the inode meant; when it is not, acquire returns 0.
func (t *table) acquire(r record, name string, d *dir, same func(old *record) bool) (id ID, made bool) {
	t.hold(r.parent) // before the shard's lock: two shards are never locked at once
	n := shardOf(r.ino)
	s := &t.shard[n]
	s.mu.Lock()
	id = s.find(r.ino)
	switch {
	case id == 0:
		id, made = s.insert(r, name, n, d), true
	case same(s.rec(id)):
		s.rec(id).refs++
	default:
		id = 0
	}
	s.mu.Unlock()
	if !made {
		t.drop(r.parent)
	}
	return id, made
}

// drop takes back a reference that is known not to be the last.
func (t *table) drop(id ID) {
	t.update(id, func(r *record) { r.refs-- })
}

func (s *tableShard) insert(r record, name string, shard ID, d *dir) ID {
	if s.count >= len(s.buckets) {
		s.resize(2 * len(s.buckets))
	}
	id, c := s.alloc(shard)
	s.gen++
	b := s.bucket(r.ino)
	r.refs, r.gen, r.name, r.next = 1, s.gen, c.names.put(name), *b
	if r.flags&flagKept != 0 {
		r.refs++
	}
	*b = id
	_, p := s.at(id)
	*p = r
	s.count++
	if d != nil {
		s.dirs[id] = d
	}
	return id
}

// alloc hands out a record.
func (s *tableShard) alloc(shard ID) (ID, *chunk) {
	if len(s.avail) == 0 {
		s.avail = append(s.avail, len(s.chunks))
		s.chunks = append(s.chunks, nil)
	}
	i := s.avail[len(s.avail)-1]
	if s.chunks[i] == nil {
		s.chunks[i] = newChunk()
	}
	c := s.chunks[i]
	id := c.free
	if id != 0 {
		_, r := s.at(id)
		c.free = r.next
	} else {
		id = ID(i*chunkLen+c.used)<<shardBits | shard
		c.used++
	}
	c.live++
	if c.free == 0 && c.used == chunkLen {
		s.avail = s.avail[:len(s.avail)-1]
	}
	return id, c
}

func (s *tableShard) resize(n int) {
	old := s.buckets
	s.buckets = make([]ID, n)
	for _, id := range old {
		for id != 0 {
			_, r := s.at(id)
			next := r.next
			b := s.bucket(r.ino)
			r.next, *b = *b, id
			id = next
		}
	}
}

// dead is what is left of an inode that nobody holds.
type dead struct {
	record
	dir *dir
}

// keep adds a reference of the table's own.
func (t *table) keep(id ID) {
	t.update(id, func(r *record) {
		if r.flags&flagKept == 0 {
			r.flags |= flagKept
			r.refs++
		}
	})
}

// unkeep says that the table need not keep an inode any longer, and reports whether the reference that it had is the
// caller's now.
func (t *table) unkeep(id ID) (held bool) {
	t.update(id, func(r *record) {
		held = r.flags&flagKept != 0
		r.flags &^= flagKept
	})
	return held
}

// forget gives back n references. It returns the inode when they were the last, whose ID is then the caller's to free
// once all that is kept under it elsewhere is gone. The root's last reference is never given back.
func (t *table) forget(id ID, n uint64) (dead, bool) {
	s := t.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rec(id)
	switch {
	case r == nil:
		return dead{}, false
	case id == RootID:
		r.refs = max(r.refs-min(n, r.refs), 1)
		return dead{}, false
	case r.refs > n:
		r.refs -= n
		if r.refs > 1 || r.flags&(flagKept|flagPinned) != flagKept|flagPinned {
			return dead{}, false
		}
		// It is reached by a descriptor alone, which is not to stay open.
	}
	gone := dead{record: *r, dir: s.dirs[id]}
	s.remove(id)
	return gone, true
}

func (s *tableShard) remove(id ID) {
	c, r := s.at(id)
	for p := s.bucket(r.ino); *p != 0; {
		if *p == id {
			*p = r.next
			break
		}
		_, q := s.at(*p)
		p = &q.next
	}
	delete(s.dirs, id)
	s.count--
	c.names.drop(r.name)
	*r = record{}
	if n := len(s.buckets); n > bucketsLo && s.count < n/8 {
		s.resize(n / 2)
	}
}

// free lets an ID be used again that forget returned the inode of.
func (t *table) free(id ID) {
	s := t.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	c, r := s.at(id)
	i := int(id>>shardBits) / chunkLen
	if c.free == 0 && c.used == chunkLen {
		s.avail = append(s.avail, i)
	}
	r.next, c.free = c.free, id
	if c.live--; c.live == 0 {
		s.chunks[i] = nil
	}
}

// isGen reports whether an ID is in use for the inode that it had the generation for.
func (t *table) isGen(id ID, gen uint32) bool {
	r, ok := t.get(id)
	return ok && r.gen == gen
}

func newTable(root record, d *dir) *table {
	t := &table{}
	for i := range t.shard {
		s := &t.shard[i]
		s.buckets = make([]ID, bucketsLo)
		s.dirs = map[ID]*dir{}
	}
	// ID 0 means none, and 1 is the root: the first records of shards 0 and 1 are never free. The root is not found by
	// number.
	for id := range ID(2) {
		s := t.of(id)
		s.alloc(id)
		_, r := s.at(id)
		r.refs = 1
	}
	s := t.of(RootID)
	_, r := s.at(RootID)
	root.refs = 1
	*r = root
	s.dirs[RootID] = d
	// Record 0 is not in use, though it is taken.
	_, z := t.of(0).at(0)
	z.refs = 0
	return t
}
