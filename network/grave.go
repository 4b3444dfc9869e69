package network

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"strake/network/link"
)

// Removing one interface takes the kernel some twenty milliseconds of waiting (netdev_run_todo,
// rcu_barrier), but namespaces that nobody holds it removes many at a time, with all that is in
// them. So a namespace is not taken apart but let go, and what its pair had, above all its
// addresses, is given back once the pair is seen to be gone. A pair that stays, because somebody
// else holds the namespace, is removed by hand.

// remains are a pair that is about to go.
type remains struct {
	net   *network
	wire  wire
	use   usage
	since time.Time
}

const (
	graveInterval = 20 * time.Millisecond // how often one looks
	gravePatience = 2 * time.Second       // how long a pair may stay
)

// graveyard keeps remains until their pairs are gone.
type graveyard struct {
	mu      sync.Mutex
	graves  []remains   // guarded by mu
	timer   *time.Timer // guarded by mu; nil while nothing is to be looked at
	closed  bool        // guarded by mu
	looking sync.Mutex  // one look at a time
}

// bury lets a namespace go, with the pairs that lead into it.
func (m *Manager) bury(sb *sandbox, use usage, nets []*network, wires []wire) error {
	m.cfg.Fault("bury: close namespace")
	var err error
	if sb.ns != nil {
		err = sb.ns.Close()
		sb.ns = nil
	}
	m.yard.mu.Lock()
	defer m.yard.mu.Unlock()
	for i := range wires {
		m.yard.graves = append(m.yard.graves, remains{nets[i], wires[i], use, now()})
	}
	m.schedule()
	return err
}

// schedule sees to it that somebody looks again. Precondition: m.yard.mu is held.
func (m *Manager) schedule() {
	if m.yard.timer == nil && len(m.yard.graves) > 0 && !m.yard.closed {
		m.yard.timer = time.AfterFunc(graveInterval, func() {
			m.bg.add(func(*link.Thread) {
				m.yard.mu.Lock()
				m.yard.timer = nil
				m.yard.mu.Unlock()
				if err := m.visit(gravePatience); err != nil {
					m.cfg.Logger.Warn("remove network interfaces", "error", err)
				}
			})
		})
	}
}

// visit gives back what pairs had that are gone, and removes those that have stayed for longer than
// patience.
func (m *Manager) visit(patience time.Duration) error {
	m.yard.looking.Lock()
	defer m.yard.looking.Unlock()
	m.yard.mu.Lock()
	graves := m.yard.graves
	m.yard.graves = nil
	m.yard.mu.Unlock()
	if len(graves) == 0 {
		return nil
	}
	there := map[string]bool{}
	links, err := m.rt.Links()
	if err == nil {
		var late []link.Request
		for _, l := range links {
			there[l.Name] = true
		}
		for _, g := range graves {
			if there[g.wire.host] && now().Sub(g.since) >= patience {
				there[g.wire.host] = false
				late = append(late, link.DeleteName(g.wire.host))
			}
		}
		err = m.deleteAll(late)
	}
	var left, gone []remains
	var spentAddrs []netip.Addr
	for _, g := range graves {
		if err != nil || there[g.wire.host] {
			left = append(left, g)
			continue
		}
		gone = append(gone, g)
		if g.use == spent {
			spentAddrs = append(spentAddrs, g.wire.v4.Addr(), g.wire.v6.Addr())
		}
	}
	// Before the addresses may go to others.
	if len(spentAddrs) > 0 {
		err = errors.Join(err, m.forgetFlows(spentAddrs...))
	}
	for _, g := range gone {
		m.unallot(g.net, &g.wire, g.use)
	}
	m.yard.mu.Lock()
	defer m.yard.mu.Unlock()
	m.yard.graves = append(left, m.yard.graves...)
	m.schedule()
	return err
}

// deleteAll removes interfaces, several at a time: most of it is waiting.
func (m *Manager) deleteAll(reqs []link.Request) error {
	const atOnce = 16
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
		work = make(chan link.Request)
	)
	fail := func(err error) {
		mu.Lock()
		errs = append(errs, err)
		mu.Unlock()
	}
	for range min(atOnce, len(reqs)) {
		wg.Go(func() {
			var rt *link.Socket
			err := link.Enter(m.cfg.NetNS, func() (err error) {
				rt, err = link.Open()
				return err
			})
			for r := range work {
				if err != nil {
					fail(err)
					continue
				}
				if err := rt.Do(r); err != nil && !errors.Is(err, unix.ENODEV) {
					fail(err)
				}
			}
			if rt != nil {
				rt.Close()
			}
		})
	}
	for _, r := range reqs {
		work <- r
	}
	close(work)
	wg.Wait()
	return errors.Join(errs...)
}

// settle waits for everything that goes on in the background, and removes by hand what is waited
// for.
func (m *Manager) settle() error {
	m.bg.idle()
	err := m.visit(0)
	m.bg.idle()
	return err
}

// close forgets all remains; what stays of them, the next Reconcile removes.
func (y *graveyard) close() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.closed, y.graves = true, nil
	if y.timer != nil {
		y.timer.Stop()
	}
}
