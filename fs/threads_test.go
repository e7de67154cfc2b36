package fs_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var threadsTime = flag.Duration("threads.time", 5*time.Second, "how long the test of several threads runs")

// TestModelInThreads has threads change subtrees of one mount, each its own, which must stay like those of a plain
// directory, and one that has the kernel forget what it can.
func TestModelInThreads(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) // #nosec G115 -- any number will do
	}
	t.Logf("seed %d", seed)
	end := time.Now().Add(*threadsTime)
	for round := uint64(0); time.Now().Before(end) && !t.Failed(); round++ {
		threadsRound(t, seed+round)
	}
}

func threadsRound(t *testing.T, seed uint64) {
	const threads, parts, steps = 6, 4, 80
	base := newStage(t, 2)
	plain := filepath.Join(t.TempDir(), "plain")
	var models []*model
	var makers []*maker
	for i := range threads {
		sub := fmt.Sprint("thread", i)
		m := &model{t: t, stage: &stage{t: t, mnt: filepath.Join(base.mnt, sub)}, plain: filepath.Join(plain, sub)}
		low := &model{t: t, stage: &stage{t: t, mnt: filepath.Join(base.lowers[i%2], sub)}, plain: m.plain}
		for _, d := range []string{m.plain, low.stage.mnt} {
			if err := os.MkdirAll(d, 0o755); err != nil { // #nosec G301 -- as the mount's root
				t.Fatal(err)
			}
		}
		k := &maker{rand.New(rand.NewPCG(seed, uint64(i)))} // #nosec G404 G115 -- repeatable, small
		for range steps {
			if diff := low.step(k.op()); diff != "" {
				t.Fatalf("two plain directories differ: %s", diff)
			}
		}
		models, makers = append(models, m), append(makers, k)
	}
	base.mount()
	defer base.unmount()
	for range parts {
		var wg sync.WaitGroup
		for i, m := range models {
			wg.Go(func() { run(t, seed, m, makers[i], steps) })
		}
		wg.Go(func() { forgetAll(t) })
		wg.Wait()
		for _, m := range models {
			if diff := m.compare("after a part"); diff != "" {
				t.Errorf("seed %d: %s: %s", seed, m.plain, diff)
			}
		}
		if t.Failed() {
			return
		}
		base.remount()
	}
	for _, m := range models {
		if diff := m.compare("after all"); diff != "" {
			t.Errorf("seed %d: %s: %s", seed, m.plain, diff)
		}
	}
}

func run(t *testing.T, seed uint64, m *model, k *maker, steps int) {
	var log []op
	for range steps {
		o := k.op()
		log = append(log, o)
		if diff := m.step(o); diff != "" {
			t.Errorf("seed %d: %s: %s\nafter these:\n%s", seed, m.plain, diff, names(log))
			return
		}
	}
}

// forgetAll has the kernel drop the inodes that no one uses, so that it asks for them again.
func forgetAll(t *testing.T) {
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		t.Logf("the kernel forgets nothing: %v", err)
	}
}
