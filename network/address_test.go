package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"strake/network/link"
)

// TestStaticAddressAgain: a chosen address is there for its next holder at once, also while a
// process still holds the namespace of the former one.
func TestStaticAddressAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(nil)
	l.network(m, Spec{
		Name: "fixed", EnableIPv6: true,
		Subnets: []Subnet{
			{Prefix: netip.MustParsePrefix("10.77.0.0/24")},
			{Prefix: netip.MustParsePrefix("fd00:77::/64")},
		},
	})
	req := Request{
		ContainerID: "a", Network: "fixed", IPv4: netip.MustParseAddr("10.77.0.50"),
		IPv6: netip.MustParseAddr("fd00:77::50"),
	}
	for i := range 3 {
		a := l.attach(m, req)
		dup, err := os.Open(a.NetNSPath)
		if err != nil {
			t.Fatal(err)
		}
		defer dup.Close()
		if _, err := m.Attach(
			t.Context(), Request{ContainerID: "b", Network: "fixed", IPv4: req.IPv4},
		); !errdefs.IsAlreadyExists(err) {
			t.Errorf("address of a container that lives: got %v", err)
		}
		if err := m.Release(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		again := l.attach(m, Request{
			ContainerID: fmt.Sprint("next", i), Network: "fixed", IPv4: req.IPv4, IPv6: req.IPv6,
		})
		if again.IPv4.Addr() != req.IPv4 || again.IPv6.Addr() != req.IPv6 {
			t.Errorf("got %v, %v; want the chosen addresses", again.IPv4, again.IPv6)
		}
		if err := m.Release(t.Context(), fmt.Sprint("next", i)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAddressOfPooled: addresses of namespaces that wait in the pool, or that are being inspected
// for it, are there for a container that chooses them, and when no other is left.
func TestAddressOfPooled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(func(c *Config) { c.PoolSize = 16 })
	// Five addresses for containers: .2 to .6.
	l.network(m, Spec{
		Name: "small", Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.78.0.0/29")}},
	})
	first := l.attach(m, Request{ContainerID: "first", Network: "small"})
	if err := m.removals.settle(); err != nil {
		t.Fatal(err)
	}
	small, err := m.find("small")
	if err != nil {
		t.Fatal(err)
	}
	m.reg.mu.Lock()
	waiting := len(small.ready)
	chosen := small.ready[0].first.v4.Addr()
	m.reg.mu.Unlock()
	if waiting != 4 {
		t.Fatalf("%d namespaces wait, want 4", waiting)
	}
	a := l.attach(m, Request{ContainerID: "chosen", Network: "small", IPv4: chosen})
	if a.IPv4.Addr() != chosen {
		t.Errorf("got %v, want %v", a.IPv4, chosen)
	}
	for i := range 3 {
		l.attach(m, Request{ContainerID: fmt.Sprint("more", i), Network: "small"})
	}
	if _, err := m.Attach(
		t.Context(), Request{ContainerID: "late", Network: "small"},
	); !errdefs.IsResourceExhausted(err) {
		t.Errorf("sixth container of a /29: got %v", err)
	}
	// The namespace of one that is gone is being inspected: its address is the only one.
	if err := m.Release(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	late := l.attach(m, Request{ContainerID: "late", Network: "small", Recycling: RecycleIfUnused})
	if late.IPv4 != first.IPv4 {
		t.Errorf("got %v, want the only one that is free, %v", late.IPv4, first.IPv4)
	}
	if err := m.Release(t.Context(), "late"); err != nil {
		t.Fatal(err)
	}
	last := l.attach(m, Request{ContainerID: "last", Network: "small", IPv4: late.IPv4.Addr()})
	if last.IPv4 != late.IPv4 {
		t.Errorf("got %v, want %v", last.IPv4, late.IPv4)
	}
}

// TestReserved: reserved addresses are not handed out, also after a restart, and are shown.
func TestReserved(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	cfg := l.config()
	m, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	router := netip.MustParseAddr("10.79.0.2")
	l.network(m, Spec{Name: "reserved", Subnets: []Subnet{{
		Prefix:   netip.MustParsePrefix("10.79.0.0/24"),
		Reserved: map[string]netip.Addr{"router": router},
	}}})
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = l.open(nil)
	n, err := m.InspectNetwork(t.Context(), "reserved")
	if err != nil || len(n.Subnets) != 1 || n.Subnets[0].Reserved["router"] != router {
		t.Errorf("got %+v, %v; want the reserved address", n.Subnets, err)
	}
	// The pool may take the first free one.
	if a := l.attach(m, Request{ContainerID: "a", Network: "reserved"}); a.IPv4.String() !=
		"10.79.0.3/24" && a.IPv4.String() != "10.79.0.4/24" {
		t.Errorf("first address: got %v", a.IPv4)
	}
	_, err = m.Attach(t.Context(), Request{ContainerID: "b", Network: "reserved", IPv4: router})
	if !errdefs.IsAlreadyExists(err) {
		t.Errorf("reserved address: got %v, want it taken", err)
	}
	_, err = m.CreateNetwork(t.Context(), Spec{Name: "bad", Subnets: []Subnet{{
		Prefix:   netip.MustParsePrefix("10.80.0.0/24"),
		Reserved: map[string]netip.Addr{"router": router},
	}}})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("reserved address of another subnet: got %v", err)
	}
}

// TestLateAnswer: an answer to a container that is gone does not reach the next holder of its
// address.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(func(c *Config) { c.PoolSize = -1 })
	listen := func(ns *os.File, address string) net.PacketConn {
		t.Helper()
		var pc net.PacketConn
		if err := link.Enter(ns, func() (err error) {
			pc, err = net.ListenPacket("udp4", address)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		return pc
	}
	read := func(pc net.PacketConn, patience time.Duration) (string, net.Addr) {
		t.Helper()
		if err := pc.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return "", nil
		}
		return string(buf[:n]), from
	}
	server := listen(l.outside, outsideAddr4+":9000")
	first := l.attach(m, Request{ContainerID: "first"})
	asker := listen(first.NetNS, ":5000")
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(outsideAddr4 + ":9000"))
	if _, err := asker.WriteTo([]byte("question"), to); err != nil {
		t.Fatal(err)
	}
	got, from := read(server, patient)
	if got != "question" {
		t.Fatalf("got %q, want the question", got)
	}
	answer := func(text string) {
		t.Helper()
		if _, err := server.WriteTo([]byte(text), from); err != nil {
			t.Fatal(err)
		}
	}
	answer("in time")
	if got, _ := read(asker, patient); got != "in time" {
		t.Errorf("got %q, want the answer", got)
	}
	if err := m.Release(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	next := l.attach(m, Request{ContainerID: "next", IPv4: first.IPv4.Addr()})
	stranger := listen(next.NetNS, ":5000")
	answer("late")
	if got, _ := read(stranger, impatient); got != "" {
		t.Errorf("the next holder of the address got %q", got)
	}
}
