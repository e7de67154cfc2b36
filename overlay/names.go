package overlay

// nameRef is where a name lies in a nameArena: its granule number; 0 is the empty name.
type nameRef uint32

const (
	granule      = 16  // bytes; a name takes one byte for its length and the rest in whole granules
	nameClasses  = 17  // of 1 to 17 granules: up to 271 bytes, names are at most 255
	arenaChunk   = 256 // granules of a piece of memory
	arenaChunkSz = arenaChunk * granule
)

// nameArena keeps names outside the garbage collector's sight: no pointers, freed space used again by names of the
// same size class. A zero nameArena is ready for use.
type nameArena struct {
	chunks []*[arenaChunkSz]byte
	next   uint32 // granules handed out; the first is not used
	free   [nameClasses + 1]nameRef
}

func classOf(n int) int { return (n + 1 + granule - 1) / granule }

func (a *nameArena) at(r nameRef) []byte {
	return a.chunks[r/arenaChunk][int(r%arenaChunk)*granule:]
}

// put stores a name of at most 255 bytes.
func (a *nameArena) put(name string) nameRef {
	if name == "" {
		return 0
	}
	if len(name) > 255 {
		name = name[:255]
	}
	c := classOf(len(name))
	r := a.free[c]
	if r != 0 {
		b := a.at(r)
		a.free[c] = nameRef(b[0]) | nameRef(b[1])<<8 | nameRef(b[2])<<16 | nameRef(b[3])<<24
	} else {
		r = a.extend(c)
	}
	b := a.at(r)
	b[0] = byte(len(name))
	copy(b[1:], name)
	return r
}

func (a *nameArena) extend(c int) nameRef {
	if a.next == 0 {
		a.next = 1
	}
	// A name does not cross chunks; what is left of one stays unused, at most 16 granules.
	if int(a.next%arenaChunk)+c > arenaChunk {
		a.next += arenaChunk - a.next%arenaChunk
	}
	for int(a.next/arenaChunk) >= len(a.chunks) {
		a.chunks = append(a.chunks, new([arenaChunkSz]byte))
	}
	r := nameRef(a.next)
	a.next += uint32(c)
	return r
}

func (a *nameArena) get(r nameRef) string {
	if r == 0 {
		return ""
	}
	b := a.at(r)
	return string(b[1 : 1+int(b[0])])
}

func (a *nameArena) drop(r nameRef) {
	if r == 0 {
		return
	}
	b := a.at(r)
	c := classOf(int(b[0]))
	f := a.free[c]
	b[0], b[1], b[2], b[3] = byte(f), byte(f>>8), byte(f>>16), byte(f>>24)
	a.free[c] = r
}
