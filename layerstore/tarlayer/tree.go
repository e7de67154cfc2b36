package tarlayer

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"

	"github.com/plyfs/plyfs/overlay"
)

// dentry is a name in a directory. Its name lies in the index that is being written.
type dentry struct {
	cookie  uint64
	parent  uint32 // inode
	inode   uint32 // noEntry when only whiteouts of the name came
	name    uint32 // offset
	nameLen uint8
	hides   bool // the name hides its namesakes below: a whiteout, or something other than a directory, stood here
}

// Bits of an inode's state beside its type, S_IFMT >> 12.
const (
	stateType    = 0x0f
	stateImplied = 0x10
	stateOpaque  = 0x20
	stateLive    = 0x40
)

const typeDirectory = 4 // S_IFDIR >> 12

// tree is what the archive built so far: the names, found by parent and name, and one byte of state an inode. A name
// that is replaced keeps its dentry; what lay below a replaced directory is unreachable from then on, because the
// inode that stands for it is.
type tree struct {
	out     *output
	dentrys vector[dentry]
	state   vector[uint8]
	slots   []uint32 // hash table of dentry numbers + 1, a power of two long
	seed    [2]uint64
	most    int // dentries and inodes together
	cmp     [256]byte
	cur     struct { // the directory of the last entry
		path path
		inos []uint32
	}
}

// free may be called more than once.
func (t *tree) free() {
	t.dentrys.free()
	t.state.free()
	unmapSlice(t.slots)
	t.slots = nil
}

func (t *tree) isDir(ino uint32) bool { return *t.state.at(ino)&stateType == typeDirectory }

// slot is where the search for a name begins. The seed keeps archives from choosing names that all meet.
func (t *tree) slot(parent uint32, cookie uint64) uint32 {
	hi, lo := bits.Mul64(cookie^t.seed[0], uint64(parent)*0x9e3779b97f4a7c15^t.seed[1])
	hi, lo = bits.Mul64(hi^t.seed[1], lo^t.seed[0]^cookie)
	return uint32(hi^lo) & uint32(len(t.slots)-1) //nolint:gosec // at most 2^30 slots
}

// find returns the number of the dentry of a name, if there is one.
func (t *tree) find(parent uint32, cookie uint64, name []byte) (uint32, bool, error) {
	if len(t.slots) == 0 {
		return 0, false, nil
	}
	mask := uint32(len(t.slots) - 1) //nolint:gosec // see slot
	for i := t.slot(parent, cookie); t.slots[i] != 0; i = (i + 1) & mask {
		n := t.slots[i] - 1
		d := t.dentrys.at(n)
		if d.cookie != cookie || d.parent != parent || int(d.nameLen) != len(name) {
			continue
		}
		b := t.cmp[:d.nameLen]
		if err := t.out.read(b, int64(d.name)); err != nil {
			return 0, false, err
		}
		if bytes.Equal(b, name) {
			return n, true, nil
		}
	}
	return 0, false, nil
}

// obtain returns the dentry of a name, made if there is none.
func (t *tree) obtain(parent uint32, name []byte) (uint32, error) {
	cookie := overlay.Cookie(alias(name))
	n, ok, err := t.find(parent, cookie, name)
	if ok || err != nil {
		return n, err
	}
	if err := t.count(); err != nil {
		return 0, err
	}
	if (t.dentrys.n+1)*4 > len(t.slots)*3 {
		if err := t.grow(); err != nil {
			return 0, err
		}
	}
	at, err := t.out.append(name)
	if err != nil {
		return 0, err
	}
	n = uint32(t.dentrys.n)                                                                          //nolint:gosec // MaxEntries bounds it
	d := dentry{cookie: cookie, parent: parent, inode: noEntry, name: at, nameLen: uint8(len(name))} //nolint:gosec // at most 255
	if err := t.dentrys.push(d); err != nil {
		return 0, err
	}
	t.insert(n, &d)
	return n, nil
}

// count fails when the limit of names and inodes is reached.
func (t *tree) count() error {
	if max(t.dentrys.n, t.state.n) >= t.most {
		return fmt.Errorf("%w: it has more than %d entries", ErrTooLarge, t.most)
	}
	return nil
}

func (t *tree) insert(n uint32, d *dentry) {
	mask := uint32(len(t.slots) - 1) //nolint:gosec // see slot
	i := t.slot(d.parent, d.cookie)
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = n + 1
}

// grow doubles the hash table.
func (t *tree) grow() error {
	slots, err := mapSlice[uint32](max(1024, 2*len(t.slots)))
	if err != nil {
		return err
	}
	unmapSlice(t.slots)
	t.slots = slots
	t.seed = [2]uint64{rand.Uint64(), rand.Uint64()} //nolint:gosec // against collisions, not for secrecy
	for n := range t.dentrys.n {
		t.insert(uint32(n), t.dentrys.at(uint32(n)))
	}
	return nil
}

// errNotDir says that an entry lies below something that is no directory.
var errNotDir = errors.New("no directory")

// enter walks to the directory that holds p's last component, by way of the directory of the entry before. make is
// called for a directory that is missing; without it a missing one is reported as false.
func (t *tree) enter(p *path, mk func(dentry uint32) (uint32, error)) (dir uint32, ok bool, err error) {
	cur, depth := &t.cur, p.len()-1
	k := 0
	for k < depth && k < cur.path.len() && bytes.Equal(p.comp(k), cur.path.comp(k)) {
		k++
	}
	t.leave(k)
	if k > 0 {
		dir = cur.inos[k-1]
	}
	for ; k < depth; k++ {
		name := p.comp(k)
		var n uint32
		if mk != nil {
			n, err = t.obtain(dir, name)
		} else if n, ok, err = t.find(dir, overlay.Cookie(alias(name)), name); err == nil && !ok {
			return 0, false, nil
		}
		if err != nil {
			return 0, false, err
		}
		ino := t.dentrys.at(n).inode
		switch {
		case ino == noEntry && mk == nil:
			return 0, false, nil
		case ino == noEntry:
			if ino, err = mk(n); err != nil {
				return 0, false, err
			}
		case !t.isDir(ino):
			return 0, false, fmt.Errorf("it lies below %s, which is %w in this layer", quote(p.upTo(k)), errNotDir)
		}
		cur.path.push(name)
		cur.inos = append(cur.inos, ino)
		dir = ino
	}
	return dir, true, nil
}

// leave forgets all but the first k components of the current directory.
func (t *tree) leave(k int) {
	t.cur.path.truncate(k)
	t.cur.inos = t.cur.inos[:k]
}

// upTo returns the path's components 0 to k, for a message.
func (p *path) upTo(k int) []byte {
	var b []byte
	for i := range k + 1 {
		if i > 0 {
			b = append(b, '/')
		}
		b = append(b, p.comp(i)...)
	}
	return b
}
