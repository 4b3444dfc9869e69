package network

import (
	"errors"
	"sync"

	"strake/network/link"
)

// background runs jobs on a fixed number of threads, in the order in which they came. The queue is
// unbounded, but what puts jobs into it is bounded by the number of containers.
type background struct {
	mu      sync.Mutex
	changed *sync.Cond
	jobs    []func(*link.Thread) // guarded by mu
	running int                  // guarded by mu
	stopped bool                 // guarded by mu
	done    sync.WaitGroup
}

func newBackground(workers int) (*background, error) {
	b := &background{}
	b.changed = sync.NewCond(&b.mu)
	started := make(chan error)
	for range workers {
		b.done.Go(func() {
			t, err := link.NewThread()
			started <- err
			if err == nil {
				b.work(t)
				t.Close() // a thread that cannot go home ends here; nothing depends on it
			}
		})
	}
	var errs []error
	for range workers {
		errs = append(errs, <-started)
	}
	return b, errors.Join(errs...)
}

func (b *background) work(t *link.Thread) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		for len(b.jobs) == 0 && !b.stopped {
			b.changed.Wait()
		}
		if len(b.jobs) == 0 {
			return
		}
		job := b.jobs[0]
		b.jobs = b.jobs[1:]
		b.running++
		b.mu.Unlock()
		job(t)
		b.mu.Lock()
		b.running--
		b.changed.Broadcast()
	}
}

// add queues a job. It says no after stop.
func (b *background) add(job func(*link.Thread)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return false
	}
	b.jobs = append(b.jobs, job)
	b.changed.Signal()
	return true
}

// idle waits until there is nothing to do.
func (b *background) idle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.jobs) > 0 || b.running > 0 {
		b.changed.Wait()
	}
}

// stop waits until the queued jobs are done and ends the goroutines.
func (b *background) stop() {
	b.mu.Lock()
	b.stopped = true
	b.changed.Broadcast()
	b.mu.Unlock()
	b.done.Wait()
}
