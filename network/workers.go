package network

import (
	"errors"
	"sync"

	"strake/network/link"
)

// workers run jobs on a fixed number of threads, in the order in which the jobs came. The queue is
// unbounded, but what puts jobs into it is bounded by the number of containers.
type workers struct {
	mu      sync.Mutex
	changed *sync.Cond
	jobs    []func(*link.Thread) // guarded by mu
	running int                  // guarded by mu
	stopped bool                 // guarded by mu
	done    sync.WaitGroup
}

func startWorkers(n int) (*workers, error) {
	w := &workers{}
	w.changed = sync.NewCond(&w.mu)
	started := make(chan error)
	for range n {
		w.done.Go(func() {
			t, err := link.NewThread()
			started <- err
			if err == nil {
				w.work(t)
				t.Close() // on an error the thread ends; nothing depends on it
			}
		})
	}
	var errs []error
	for range n {
		errs = append(errs, <-started)
	}
	return w, errors.Join(errs...)
}

func (w *workers) work(t *link.Thread) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.jobs) == 0 && !w.stopped {
			w.changed.Wait()
		}
		if len(w.jobs) == 0 {
			return
		}
		job := w.jobs[0]
		w.jobs = w.jobs[1:]
		w.running++
		w.mu.Unlock()
		job(t)
		w.mu.Lock()
		w.running--
		w.changed.Broadcast()
	}
}

// add queues a job. It returns false after stop.
func (w *workers) add(job func(*link.Thread)) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return false
	}
	w.jobs = append(w.jobs, job)
	w.changed.Signal()
	return true
}

// idle waits until no job is queued or running.
func (w *workers) idle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.jobs) > 0 || w.running > 0 {
		w.changed.Wait()
	}
}

// stop waits until the queued jobs are done and ends the threads.
func (w *workers) stop() {
	w.mu.Lock()
	w.stopped = true
	w.changed.Broadcast()
	w.mu.Unlock()
	w.done.Wait()
}
