package image

import (
	"fmt"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// recorder is a Progress that keeps what it is told.
type recorder struct {
	mu    sync.Mutex
	lines []string
	on    func(line string) // called for each line, unlocked
}

func (r *recorder) add(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.lines = append(r.lines, line)
	r.mu.Unlock()
	if r.on != nil {
		r.on(line)
	}
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

func (r *recorder) Message(text string) { r.add("%s", text) }

func (r *recorder) Layer(d digest.Digest, _ int64) LayerProgress {
	r.add("%s announced", short(d))
	return &layerRecorder{r, short(d)}
}

type layerRecorder struct {
	*recorder
	name string
}

func (l *layerRecorder) Start(offset int64) { l.add("%s start %d", l.name, offset) }
func (l *layerRecorder) Add(n int64)        { l.add("%s add %d", l.name, n) }
func (l *layerRecorder) Status(text string) { l.add("%s %s", l.name, text) }
func (l *layerRecorder) Done(err error)     { l.add("%s done %v", l.name, err) }
