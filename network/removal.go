package network

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"strake/network/link"
)

// Removing one interface takes the kernel some twenty milliseconds of waiting (netdev_run_todo,
// rcu_barrier), but namespaces that no process holds it removes many at a time, with their
// interfaces. So a namespace is closed and left to the kernel, and what its pair had, above all its
// addresses, is given back once the pair is seen to be gone. A pair that stays, because a process
// still holds the namespace, is deleted by name.

// removal is a pair that is about to go.
type removal struct {
	net   *network
	veth  vethPair
	use   addressUse
	since time.Time
}

const (
	removalInterval = 20 * time.Millisecond // between two looks at the host's interfaces
	removalPatience = 2 * time.Second       // how long a pair may stay before it is deleted
)

// removals is the queue of pairs that are about to go.
type removals struct {
	cfg  *Config
	host *host
	reg  *registry
	jobs *workers

	// collecting is held during a look at the host's interfaces. It is acquired before mu.
	collecting sync.Mutex

	mu     sync.Mutex
	queue  []removal   // guarded by mu
	active []removal   // guarded by mu; taken from the queue by the collection that is running
	timer  *time.Timer // guarded by mu; nil while no collection is due
	closed bool        // guarded by mu
}

// add closes a namespace and queues the pair that leads into it.
func (q *removals) add(sb *sandbox, use addressUse, n *network, p *vethPair) error {
	return q.addAll(sb, []removal{{net: n, veth: *p, use: use}})
}

// addAll closes a namespace, if it is known, and queues the pairs that lead into it.
func (q *removals) addAll(sb *sandbox, pairs []removal) error {
	q.cfg.Fault("remove: close namespace")
	var err error
	if sb.ns != nil {
		err = sb.ns.Close()
		sb.ns = nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range pairs {
		r.since = now()
		q.queue = append(q.queue, r)
	}
	q.schedule()
	return err
}

// schedule sets the timer of the next collection. Precondition: q.mu is held.
func (q *removals) schedule() {
	if q.timer != nil || len(q.queue) == 0 || q.closed {
		return
	}
	q.timer = time.AfterFunc(removalInterval, func() {
		q.jobs.add(func(*link.Thread) {
			q.mu.Lock()
			q.timer = nil
			q.mu.Unlock()
			err := q.collect(func(r *removal) bool { return now().Sub(r.since) >= removalPatience })
			if err != nil {
				q.cfg.Logger.Warn("remove network interfaces", "error", err)
			}
		})
	})
}

// collect gives back what pairs had that are gone. Those that are still there and for which due
// says yes it deletes first.
func (q *removals) collect(due func(*removal) bool) error {
	q.collecting.Lock()
	defer q.collecting.Unlock()
	q.mu.Lock()
	q.active, q.queue = q.queue, nil
	pairs := q.active
	q.mu.Unlock()
	if len(pairs) == 0 {
		return nil
	}
	there, err := q.remaining(pairs, due)
	var left, gone []removal
	var used []netip.Addr
	for _, r := range pairs {
		if err != nil || there[r.veth.host] {
			left = append(left, r)
			continue
		}
		gone = append(gone, r)
		if r.use == wasUsed {
			used = append(used, r.veth.v4.Addr(), r.veth.v6.Addr())
		}
	}
	// Before the addresses may go to others.
	if len(used) > 0 {
		err = errors.Join(err, q.host.forgetFlows(used...))
	}
	for _, r := range gone {
		q.reg.free(r.net, &r.veth, r.use)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.active, q.queue = nil, append(left, q.queue...)
	q.schedule()
	return err
}

// remaining deletes the pairs that are due and returns the names of the interfaces that are left.
func (q *removals) remaining(
	pairs []removal, due func(*removal) bool,
) (map[string]bool, error) {
	links, err := q.host.rt.Links()
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, l := range links {
		there[l.Name] = true
	}
	var late []link.Request
	for i := range pairs {
		if name := pairs[i].veth.host; there[name] && due(&pairs[i]) {
			there[name] = false
			late = append(late, link.DeleteName(name))
		}
	}
	return there, q.host.deleteAll(late)
}

// expedite deletes the queued pairs of a network that match and gives back what they had. It
// returns false when there was none.
func (q *removals) expedite(n *network, match func(*vethPair) bool) (bool, error) {
	hit := func(r *removal) bool { return r.net == n && match(&r.veth) }
	q.mu.Lock()
	found := slices.ContainsFunc(q.queue, func(r removal) bool { return hit(&r) }) ||
		slices.ContainsFunc(q.active, func(r removal) bool { return hit(&r) })
	q.mu.Unlock()
	if !found {
		return false, nil
	}
	return true, q.collect(hit)
}

// settle waits until no job runs in the background, and deletes all queued pairs.
func (q *removals) settle() error {
	q.jobs.idle()
	err := q.flush()
	q.jobs.idle()
	return err
}

// flush deletes all queued pairs.
func (q *removals) flush() error { return q.collect(func(*removal) bool { return true }) }

// close drops the queue. What is left of the pairs the next Reconcile removes.
func (q *removals) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.queue = true, nil
	if q.timer != nil {
		q.timer.Stop()
	}
}
