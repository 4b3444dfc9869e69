package userland

import (
	"os"
	gosync "sync"
	"time"
)

// programs are those that an interactive shell waits for. The terminal sends its interrupt to them
// as well as to the shell, but for a program that did not exist yet when the interrupt came.
type programs struct {
	mu       gosync.Mutex
	starting int                       // guarded by mu; how many are being started
	early    bool                      // guarded by mu; an interrupt came meanwhile
	since    map[*os.Process]time.Time // guarded by mu; when each was started
}

// interruptDelay bounds the time from the interrupt to the moment at which the shell's goroutine
// sees it. A program that is younger may have missed the interrupt, and gets it again.
const interruptDelay = 100 * time.Millisecond

// begin says that a program is about to be started; started is called in any case then.
func (r *programs) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starting++
}

// started says that a program runs, or, with nil, that it could not be started. It returns whether
// an interrupt came since begin.
func (r *programs) started(p *os.Process, now time.Time) (early bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	early = r.early
	if r.starting--; r.starting == 0 {
		r.early = false
	}
	if p != nil {
		if r.since == nil {
			r.since = map[*os.Process]time.Time{}
		}
		r.since[p] = now
	}
	return early
}

func (r *programs) ended(p *os.Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.since, p)
}

// interrupted returns the programs that may have missed an interrupt which was seen now, and
// whether the shell waits for none at all.
func (r *programs) interrupted(now time.Time) (missed []*os.Process, none bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.starting > 0 {
		r.early = true
	}
	for p, since := range r.since {
		if now.Sub(since) < interruptDelay {
			missed = append(missed, p)
		}
	}
	return missed, r.starting == 0 && len(r.since) == 0
}
