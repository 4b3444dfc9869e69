package supervisor

import (
	"sync"
	"time"

	"strake/engine"
)

const (
	// eventHistory is how many events a late subscriber may still see, eventBacklog how far a slow
	// one may fall behind.
	eventHistory = 256
	eventBacklog = 1024
)

// eventBus hands events to subscribers. A subscriber that does not keep up is cut off: its channel
// is closed, and the other subscribers do not wait for it.
type eventBus struct {
	mu   sync.Mutex
	ring []engine.Event       // guarded by mu
	next int                  // guarded by mu; where the ring goes on once it is full
	subs map[*subscriber]bool // guarded by mu
	last time.Time            // guarded by mu; times never go backwards, so that "since the last one seen" works
}

type subscriber struct {
	ch    chan engine.Event
	match func(engine.Event) bool
}

// publish gives the event its time and hands it out.
func (b *eventBus) publish(ev engine.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ev.Time = time.Now()
	if !ev.Time.After(b.last) {
		ev.Time = b.last.Add(1)
	}
	b.last = ev.Time
	if len(b.ring) < eventHistory {
		b.ring = append(b.ring, ev)
	} else {
		b.ring[b.next] = ev
		b.next = (b.next + 1) % eventHistory
	}
	for s := range b.subs {
		if s.match != nil && !s.match(ev) {
			continue
		}
		select {
		case s.ch <- ev:
		default:
			delete(b.subs, s)
			close(s.ch)
		}
	}
}

// subscribe returns the remembered events that the query asks for, and those that follow without a
// gap. The channel is closed by cancel, or when the subscriber falls too far behind. cancel may be
// called more than once.
func (b *eventBus) subscribe(q engine.EventQuery) (past []engine.Event, live <-chan engine.Event, cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !q.Since.IsZero() {
		for i := range b.ring {
			ev := b.ring[(b.next+i)%len(b.ring)]
			if ev.Time.Before(q.Since) || !q.Until.IsZero() && ev.Time.After(q.Until) ||
				q.Match != nil && !q.Match(ev) {
				continue
			}
			past = append(past, ev)
		}
	}
	s := &subscriber{ch: make(chan engine.Event, eventBacklog), match: q.Match}
	if b.subs == nil {
		b.subs = map[*subscriber]bool{}
	}
	b.subs[s] = true
	return past, s.ch, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.subs[s] {
			delete(b.subs, s)
			close(s.ch)
		}
	}
}

// Events returns remembered events and a channel of those that follow. The caller must call cancel;
// the channel is closed then, or when the caller reads so slowly that 1024 events wait. Events of
// all types pass here: front ends publish theirs with PublishEvent.
func (k *core) Events(q engine.EventQuery) (past []engine.Event, live <-chan engine.Event, cancel func()) {
	return k.events.subscribe(q)
}

// PublishEvent adds an event of something that the engine does not do itself (image, network and
// volume events of a front end). Time is set by the engine.
func (k *core) PublishEvent(ev engine.Event) { k.events.publish(ev) }
