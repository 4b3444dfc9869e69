package image

import "sync"

// Event is one step of a pull, push or load in dockerd's words (Docker Engine API, POST
// /images/create: "status", "id", "progressDetail").
type Event struct {
	// ID is the abbreviated layer the event is about, or the tag; empty for the whole operation.
	ID     string
	Status string
	// Current and Total are bytes; Total is 0 when there is nothing to measure.
	Current, Total int64
}

// Progress receives events. It is never called concurrently and must return soon.
type Progress func(Event)

// reporter serialises events.
type reporter struct {
	mu sync.Mutex
	fn Progress
}

func (r *reporter) send(e Event) {
	if r.fn == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fn(e)
}

// meter turns byte counts into events, one per step of a hundredth or 512 KiB, whichever is larger.
// One goroutine at a time.
type meter struct {
	r              *reporter
	id, status     string
	total, current int64
	sent           int64
}

func (m *meter) add(n int64) {
	m.current += n
	step := max(m.total/100, 512<<10)
	if m.current-m.sent < step && m.current < m.total {
		return
	}
	m.sent = m.current
	m.r.send(Event{ID: m.id, Status: m.status, Current: m.current, Total: m.total})
}
