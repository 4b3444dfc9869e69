package network

import (
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"strake/network/link"
)

// TestRecycling: the namespace of a container that did not use its network waits for another one;
// that of one that sent a packet, or of which more rights are known, does not.
func TestRecycling(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	// With IPv6 the kernel sends multicast listener reports in a namespace's first second; one that
	// comes during the inspection has the namespace destroyed.
	m := l.open(func(c *Config) { c.PoolSize, c.DefaultIPv6 = -1, false })
	run := func(id string, how Recycling, use func(*Attachment)) uint64 {
		t.Helper()
		a := l.attach(m, Request{ContainerID: id, Recycling: how})
		if use != nil {
			use(a)
		}
		var cookie uint64
		if err := link.Enter(a.NetNS, func() (err error) {
			cookie, err = link.Cookie()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		withoutSockets(t, a.NetNS)
		if err := m.Release(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		m.pool.jobs.idle()
		return cookie
	}
	first := run("unused", RecycleIfUnused, nil)
	if again := run("next", RecycleIfUnused, nil); again != first {
		t.Errorf("namespace of an unused one: got %d, want %d again", again, first)
	}
	if again := run("talker", RecycleIfUnused, func(a *Attachment) {
		_, _ = call(a.NetNS, "udp", a.Gateway4.String()+":9", impatient)
	}); again != first {
		t.Errorf("got %d, want %d again", again, first)
	}
	second := run("after-talker", DestroyAfterUse, nil)
	if second == first {
		t.Error("the namespace of a container that sent packets was used again")
	}
	third := run("privileged", RecycleIfUnused, func(*Attachment) {
		m.ForbidRecycling("privileged")
		m.ForbidRecycling("unknown")
	})
	if third == second {
		t.Error("a namespace that was to be destroyed was used again")
	}
	if last := run("last", RecycleIfUnused, nil); last == third {
		t.Error("the namespace of a container that got more rights was used again")
	}
}

// withoutSockets waits until the kernel has freed all sockets of a namespace. It does so some
// milliseconds after they are closed, those included by which the namespace was prepared; a
// namespace that is released before is not used again.
func withoutSockets(t *testing.T, ns *os.File) {
	t.Helper()
	var got string
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); {
		err := link.Enter(ns, func() error {
			stat, err := os.ReadFile("/proc/thread-self/net/sockstat")
			got = sockets(string(stat))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got == "0 used, 0 waiting" {
			return
		}
	}
	t.Fatalf("sockets: %s", got)
}

// TestStats: counters are the container's, and begin with it.
func TestStats(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(func(c *Config) { c.DefaultIPv6, c.PoolSize = false, -1 })
	a := l.attach(m, Request{ContainerID: "a"})
	// The namespace of a container that heard its neighbour's ARP questions, and said nothing.
	heard := l.attach(m, Request{ContainerID: "heard", Recycling: RecycleIfUnused})
	nobody := heard.IPv4.Addr().Next().Next().Next().String()
	_, _ = call(a.NetNS, "udp", nobody+":9", impatient)
	if s, err := m.Stats(t.Context(), heard.EndpointID); err != nil || s.RxPackets == 0 {
		t.Errorf("broadcasts: got %+v, %v; want some received", s, err)
	}
	withoutSockets(t, heard.NetNS)
	if err := m.Release(t.Context(), "heard"); err != nil {
		t.Fatal(err)
	}
	m.pool.jobs.idle()
	next := l.attach(m, Request{ContainerID: "next"})
	if s, err := m.Stats(t.Context(), next.EndpointID); err != nil || s != (Stats{}) ||
		next.IPv4 != heard.IPv4 {
		t.Errorf("next holder: got %+v, %v; want the same namespace and no counts", s, err)
	}
	if err := m.Release(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	a = l.attach(m, Request{ContainerID: "a"})
	// What others say to all of the network may have come already.
	if s, err := m.Stats(t.Context(), a.EndpointID); err != nil || s.TxPackets+s.TxBytes > 0 {
		t.Errorf("at first: got %+v, %v; want nothing sent", s, err)
	}
	l.serve(l.outside, 80, "outside")
	l.reaches("outside", a.NetNS, "udp", outsideAddr4+":80", "outside "+hostAddr4)
	s, err := m.Stats(t.Context(), a.EndpointID)
	// An ARP question and a datagram of five bytes went out; their answers came in.
	if err != nil || s.TxPackets < 2 || s.RxPackets < 2 || s.RxBytes <= s.TxBytes {
		t.Errorf("got %+v, %v; want more bytes in than out", s, err)
	}
	if _, err := m.Stats(t.Context(), "none"); !errdefs.IsNotFound(err) {
		t.Errorf("no such endpoint: got %v", err)
	}
}
