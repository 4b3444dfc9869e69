// Package progress is how pulls, pushes and loads report their steps, in dockerd's words.
//
// Not for: terminals; a client draws.
package progress

import (
	"io"
	"sync"
)

// Event is one step of a pull, push or load in dockerd's words (Docker Engine API, POST
// /images/create: "status", "id", "progressDetail").
type Event struct {
	// ID is the abbreviated layer the event is about, or the tag; empty for the whole operation.
	ID     string
	Status string
	// Current and Total are bytes; Total is 0 when there is nothing to measure.
	Current, Total int64
}

// Func receives events. It is never called concurrently and must return soon.
type Func func(Event)

// Reporter serialises events. All methods may be called concurrently.
type Reporter struct {
	mu sync.Mutex
	fn Func
}

// New returns a reporter to fn, which may be nil.
func New(fn Func) *Reporter { return &Reporter{fn: fn} }

// Send passes an event on.
func (r *Reporter) Send(e Event) {
	if r.fn == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fn(e)
}

// Meter turns byte counts into events, one per step of a hundredth or 512 KiB, whichever is larger.
// One goroutine at a time.
type Meter struct {
	Reporter   *Reporter
	ID, Status string
	// Total is the number of bytes to come, Current those that were there before the first Add.
	Total, Current int64
	sent           int64
}

// Add counts n more bytes.
func (m *Meter) Add(n int64) {
	m.Current += n
	step := max(m.Total/100, 512<<10)
	if m.Current-m.sent < step && m.Current < m.Total {
		return
	}
	m.sent = m.Current
	m.Reporter.Send(Event{ID: m.ID, Status: m.Status, Current: m.Current, Total: m.Total})
}

// Restart sets the meter back to nothing, for a transfer that begins again.
func (m *Meter) Restart() { m.Current, m.sent = 0, 0 }

// CountReader tells Fn how many bytes each Read got.
type CountReader struct {
	R  io.Reader
	Fn func(n int64)
}

func (c *CountReader) Read(p []byte) (int, error) {
	n, err := c.R.Read(p)
	if n > 0 {
		c.Fn(int64(n))
	}
	return n, err
}
