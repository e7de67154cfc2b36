package overlay

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// openFile is a descriptor that is closed once neither the cache nor a user holds it.
type openFile struct {
	fd       int
	readonly bool
	path     bool // opened with O_PATH
	refs     atomic.Int32
	key      ID
	prev     *openFile
	next     *openFile
}

// Release gives back what fdCache.get, put or a method of Union returned. It does nothing for nil.
func (f *openFile) Release() {
	if f != nil && f.refs.Add(-1) == 0 {
		_ = unix.Close(f.fd) // opened for I/O whose errors were reported by the calls themselves
	}
}

func newOpenFile(fd int) *openFile {
	f := &openFile{fd: fd}
	f.refs.Store(1)
	return f
}

// fdCache keeps the descriptors used last, a bounded number, by inode. Descriptors in use may exceed the bound.
type fdCache struct {
	shard [shards]fdShard
}

type fdShard struct {
	mu    sync.Mutex // guards the fields below and the links of the files in them
	files map[ID]*openFile
	head  openFile // ring of files, the one used last first
	max   int
}

// newFDCache makes a cache of about limit descriptors.
func newFDCache(limit int) *fdCache {
	c := &fdCache{}
	for i := range c.shard {
		s := &c.shard[i]
		s.files = map[ID]*openFile{}
		s.max = max(limit/shards, 1)
		s.head.prev, s.head.next = &s.head, &s.head
	}
	return c
}

func (c *fdCache) of(id ID) *fdShard { return &c.shard[id&(shards-1)] }

func unlinkFile(f *openFile) {
	f.prev.next, f.next.prev = f.next, f.prev
}

func (s *fdShard) pushFront(f *openFile) {
	f.prev, f.next = &s.head, s.head.next
	f.prev.next, f.next.prev = f, f
}

// get returns the descriptor of an inode, held for the caller, or nil.
func (c *fdCache) get(id ID) *openFile {
	s := c.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[id]
	if f == nil {
		return nil
	}
	f.refs.Add(1)
	unlinkFile(f)
	s.pushFront(f)
	return f
}

// put adds a descriptor that the caller opened and returns the one to use, held for the caller: another goroutine's
// when it came first, unless that is read-only and this one is not. It keeps none of an inode that live says is gone:
// the inode's forget may be over, and its ID another's soon.
func (c *fdCache) put(id ID, f *openFile, live func() bool) *openFile {
	s := c.of(id)
	s.mu.Lock()
	if !live() {
		s.mu.Unlock()
		return f
	}
	var drop, evict *openFile
	if old := s.files[id]; old != nil {
		if !old.readonly || f.readonly {
			old.refs.Add(1)
			s.mu.Unlock()
			f.Release()
			return old
		}
		unlinkFile(old)
		drop = old
	}
	f.key = id
	f.refs.Add(1)
	s.files[id] = f
	s.pushFront(f)
	if len(s.files) > s.max {
		evict = s.head.prev
		unlinkFile(evict)
		delete(s.files, evict.key)
	}
	s.mu.Unlock()
	drop.Release()
	evict.Release()
	return f
}

// forget lets go of an inode's descriptor.
func (c *fdCache) forget(id ID) {
	s := c.of(id)
	s.mu.Lock()
	f := s.files[id]
	if f != nil {
		unlinkFile(f)
		delete(s.files, id)
	}
	s.mu.Unlock()
	f.Release()
}

// close lets go of all.
func (c *fdCache) close() {
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		for id, f := range s.files {
			delete(s.files, id)
			f.Release()
		}
		s.mu.Unlock()
	}
}
