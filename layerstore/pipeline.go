package layerstore

import (
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// chunkSize is what passes from one stage of a pipeline to the next at once, bytes: big enough that handing it over
	// costs nothing, small enough to stay in the processor's cache.
	chunkSize = 256 << 10
	// chunkDepth is how many chunks may wait before a stage. A session holds at most about 20 chunks, 5 MiB.
	chunkDepth = 4
	// writebackStep is after how many written bytes the kernel is asked to begin writing them to disk, so that the fsync
	// at the end finds little left to do and dirty pages do not pile up.
	writebackStep = 8 << 20
)

// chunk is a buffer that several stages read at once; the last to release it gives it back.
type chunk struct {
	buf  [chunkSize]byte
	n    int
	refs atomic.Int32
}

var chunks sync.Pool // of *chunk

func getChunk() *chunk {
	c, ok := chunks.Get().(*chunk)
	if !ok {
		c = new(chunk)
	}
	c.n = 0
	return c
}

func (c *chunk) bytes() []byte { return c.buf[:c.n] }

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		chunks.Put(c)
	}
}

// pipeline is a set of goroutines that pass chunks on. The first error of any stops all.
type pipeline struct {
	wg   sync.WaitGroup
	once sync.Once
	done chan struct{} // closed by fail
	err  error         // set before done is closed
}

func newPipeline() *pipeline { return &pipeline{done: make(chan struct{})} }

func (p *pipeline) fail(err error) {
	p.once.Do(func() {
		p.err = err
		close(p.done)
	})
}

// failure is the first error, nil while there is none.
func (p *pipeline) failure() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// stage runs fn in a goroutine; an error fails the pipeline, and so does a panic, which must not end the process.
func (p *pipeline) stage(fn func() error) {
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		defer func() {
			if r := recover(); r != nil {
				p.fail(panicError(r))
			}
		}()
		if err := fn(); err != nil {
			p.fail(err)
		}
	}()
}

// fan hands each chunk to every stage behind it.
type fan struct {
	p    *pipeline
	outs []chan *chunk
}

func (p *pipeline) newFan(n int) *fan {
	f := &fan{p: p}
	for range n {
		f.outs = append(f.outs, make(chan *chunk, chunkDepth))
	}
	return f
}

// send passes c on, which is no longer the caller's then. It reports false when the pipeline has failed.
func (f *fan) send(c *chunk) bool {
	c.refs.Store(int32(len(f.outs))) //nolint:gosec // three at most
	for _, out := range f.outs {
		select {
		case out <- c:
		case <-f.p.done:
			return false
		}
	}
	return true
}

func (f *fan) close() {
	for _, out := range f.outs {
		close(out)
	}
}

// each calls fn with the bytes of every chunk until the channel is closed or the pipeline fails.
func (p *pipeline) each(in <-chan *chunk, fn func(b []byte) error) error {
	for {
		select {
		case c, ok := <-in:
			if !ok {
				return nil
			}
			err := fn(c.bytes())
			c.release()
			if err != nil {
				return err
			}
		case <-p.done:
			return nil
		}
	}
}

// chunkReader reads what comes through a channel of chunks.
type chunkReader struct {
	p   *pipeline
	in  <-chan *chunk
	cur *chunk
	off int
}

// next makes cur a chunk with bytes left.
func (r *chunkReader) next() error {
	for r.cur == nil || r.off == r.cur.n {
		if r.cur != nil {
			r.cur.release()
			r.cur = nil
		}
		select {
		case c, ok := <-r.in:
			if !ok {
				return io.EOF
			}
			r.cur, r.off = c, 0
		case <-r.p.done:
			return r.p.err
		}
	}
	return nil
}

func (r *chunkReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := r.next(); err != nil {
		return 0, err
	}
	n := copy(b, r.cur.bytes()[r.off:])
	r.off += n
	return n, nil
}

// Discard skips n bytes without copying them. It returns less than n only with an error, io.EOF at the end.
func (r *chunkReader) Discard(n int64) (int64, error) {
	var skipped int64
	for skipped < n {
		if err := r.next(); err != nil {
			return skipped, err
		}
		m := min(n-skipped, int64(r.cur.n-r.off))
		r.off += int(m)
		skipped += m
	}
	return skipped, nil
}

// appender writes a file from front to back, leaves holes for zeros if asked, and starts writeback as it goes.
type appender struct {
	f      *os.File
	off    int64
	synced int64 // up to where writeback was started
	sparse bool
}

func (a *appender) write(b []byte) error {
	const block = 32 << 10
	for len(b) > 0 {
		n := len(b)
		if a.sparse {
			n = min(n, block)
			if isZero(b[:n]) {
				a.off += int64(n)
				b = b[n:]
				continue
			}
			for n < len(b) && !isZero(b[n:min(n+block, len(b))]) {
				n = min(n+block, len(b))
			}
		}
		m, err := a.f.WriteAt(b[:n], a.off)
		a.off += int64(m)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	if a.off-a.synced >= writebackStep {
		// Only a hint: file systems that refuse it pay at the fsync.
		_ = unix.SyncFileRange(int(a.f.Fd()), a.synced, a.off-a.synced, unix.SYNC_FILE_RANGE_WRITE)
		a.synced = a.off
	}
	return nil
}

// finish gives the file its length, which a hole at its end has not.
func (a *appender) finish() error { return a.f.Truncate(a.off) }

func isZero(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
