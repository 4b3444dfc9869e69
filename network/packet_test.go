package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/miekg/dns"

	"strake/network/link"
	"strake/network/place"
)

// TestPublishedPorts runs with bridged packets going through the packet filter, as on hosts where
// others loaded br_netfilter, and without.
func TestPublishedPorts(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"0", "1"} {
		t.Run("bridge-nf-call="+call, func(t *testing.T) {
			t.Parallel()
			testPublishedPorts(t, call)
		})
	}
}

func testPublishedPorts(t *testing.T, call string) {
	l := newLab(t)
	err := l.filterBridged(call)
	if errors.Is(err, fs.ErrNotExist) && call == "1" {
		t.Skip("needs the kernel's br_netfilter")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	m := l.open(nil)
	everywhere := func(proto string) place.Port {
		p := place.Port{Proto: place.TCP, ContainerPort: 80, HostPort: 8080}
		if proto == "udp" {
			p.Proto = place.UDP
		}
		return p
	}
	lo4, up4 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr(hostAddr4)
	web := l.attach(m, Request{ContainerID: "web", Name: "web", Ports: []place.Port{
		everywhere("tcp"), everywhere("udp"),
		{Proto: place.TCP, ContainerPort: 80, HostPort: 8081, HostIP: lo4},
		{Proto: place.UDP, ContainerPort: 80, HostPort: 8082, HostIP: up4},
		{Proto: place.TCP, ContainerPort: 80, HostPort: 8083, HostIP: netip.IPv6Loopback()},
		{Proto: place.UDP, ContainerPort: 80, HostPort: 8083, HostIP: netip.IPv6Loopback()},
		{Proto: place.TCP, ContainerPort: 80},
	}})
	other := l.attach(m, Request{ContainerID: "other", Name: "other"})
	n := l.network(m, Spec{Name: "far", EnableIPv6: true})
	far := l.attach(m, Request{ContainerID: "far", Name: "far", Network: n.ID})
	l.serve(web.NetNS, 80, "web")
	l.serve(web.NetNS, 81, "secret")
	gw4, gw6 := web.Gateway4.String(), web.Gateway6.String()

	for _, proto := range []string{"tcp", "udp"} {
		l.reaches("outside to published", l.outside, proto, hostAddr4+":8080", "web "+outsideAddr4)
		l.reaches(
			"outside to published", l.outside, proto, "["+hostAddr6+"]:8080", "web "+outsideAddr6,
		)
		l.reaches("host to its own address", l.host, proto, hostAddr4+":8080", "web "+hostAddr4)
		l.reaches(
			"host to its own address", l.host, proto, "["+hostAddr6+"]:8080", "web "+hostAddr6,
		)
		l.reaches("host to loopback", l.host, proto, "127.0.0.1:8080", "web "+gw4)
		l.reaches(
			"neighbour container through the host", other.NetNS, proto, hostAddr4+":8080",
			"web "+gw4,
		)
		l.reaches(
			"neighbour container through the host", other.NetNS, proto, "["+hostAddr6+"]:8080",
			"web "+gw6,
		)
		l.reaches(
			"container to itself through the host", web.NetNS, proto, hostAddr4+":8080", "web "+gw4,
		)
		l.reaches(
			"container of another network through the host", far.NetNS, proto, hostAddr4+":8080",
			"web "+far.IPv4.Addr().String(),
		)
		l.reaches(
			"container of another network through the host", far.NetNS, proto,
			"["+hostAddr6+"]:8080", "web "+far.IPv6.Addr().String(),
		)
		l.reaches(
			"neighbour container directly", other.NetNS, proto,
			netip.AddrPortFrom(web.IPv4.Addr(), 81).String(), "secret "+other.IPv4.Addr().String(),
		)
		l.reaches(
			"neighbour container directly", other.NetNS, proto,
			netip.AddrPortFrom(web.IPv6.Addr(), 81).String(), "secret "+other.IPv6.Addr().String(),
		)
		l.reaches(
			"host directly", l.host, proto, netip.AddrPortFrom(web.IPv4.Addr(), 81).String(),
			"secret "+gw4,
		)

		for _, port := range []uint16{80, 81} {
			l.unreachable(
				"outside to a container's address", l.outside, proto,
				netip.AddrPortFrom(web.IPv4.Addr(), port).String(),
			)
			l.unreachable(
				"outside to a container's address", l.outside, proto,
				netip.AddrPortFrom(web.IPv6.Addr(), port).String(),
			)
			l.unreachable(
				"container of another network", far.NetNS, proto,
				netip.AddrPortFrom(web.IPv4.Addr(), port).String(),
			)
			l.unreachable(
				"container of another network", far.NetNS, proto,
				netip.AddrPortFrom(web.IPv6.Addr(), port).String(),
			)
		}
		l.unreachable("outside to an unpublished port", l.outside, proto, hostAddr4+":81")
	}
	for _, proto := range []string{"tcp", "udp"} {
		l.reaches("host to IPv6 loopback", l.host, proto, "[::1]:8080", "web "+gw6)
		l.reaches(
			"host to a port published on IPv6 loopback", l.host, proto, "[::1]:8083", "web "+gw6,
		)
		l.unreachable(
			"outside to a port published on IPv6 loopback", l.outside, proto,
			"["+hostAddr6+"]:8083",
		)
		l.unreachable(
			"IPv4 loopback to a port published on IPv6 loopback", l.host, proto, "127.0.0.1:8083",
		)
	}
	l.reaches("host to a port published on loopback", l.host, "tcp", "127.0.0.1:8081", "web "+gw4)
	l.unreachable("outside to a port published on loopback", l.outside, "tcp", hostAddr4+":8081")
	l.reaches(
		"outside to a port published on one address", l.outside, "udp", hostAddr4+":8082",
		"web "+outsideAddr4,
	)
	l.unreachable(
		"host's loopback to a port published on another address", l.host, "udp", "127.0.0.1:8082",
	)

	var chosen []place.Bound
	for _, p := range web.Ports {
		if p.HostPort > 9000 {
			chosen = append(chosen, p)
		}
	}
	if len(chosen) != 2 || chosen[0].HostPort != chosen[1].HostPort {
		t.Fatalf("chosen ports: got %v; want one for each family, the same", chosen)
	}
	l.reaches(
		"outside to a chosen port", l.outside, "tcp",
		fmt.Sprintf("%s:%d", hostAddr4, chosen[0].HostPort), "web "+outsideAddr4,
	)

	// A neighbour that makes us its route to 127.0.0.0/8.
	err = link.Enter(l.outside, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		if err := writeSysctl("net.ipv4.conf.all.route_localnet", "1"); err != nil {
			return err
		}
		if err := rt.Do(link.DelAddress(1, netip.MustParsePrefix("127.0.0.1/8"))); err != nil {
			return err
		}
		info, err := rt.ByName("up0")
		if err != nil {
			return err
		}
		return rt.Do(
			link.AddRoute(
				link.Route{
					Dst: netip.MustParsePrefix("127.0.0.1/32"), Via: netip.MustParseAddr(hostAddr4),
					Index: info.Index,
				},
			),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = link.Enter(l.host, func() error {
		return writeSysctl("net.ipv4.conf.uplink.route_localnet", "1")
	})
	if err != nil {
		t.Fatal(err)
	}
	l.unreachable("neighbour with a route to our loopback", l.outside, "tcp", "127.0.0.1:8081")

	if err := m.Release(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	l.unreachable(
		"outside to a port that is published no more", l.outside, "tcp", hostAddr4+":8080",
	)
	// The port is free for another.
	again := l.attach(
		m,
		Request{ContainerID: "again", Ports: []place.Port{everywhere("tcp"), everywhere("udp")}},
	)
	l.serve(again.NetNS, 80, "again")
	l.reaches(
		"outside to the port's next holder", l.outside, "udp", hostAddr4+":8080",
		"again "+outsideAddr4,
	)
	l.reaches(
		"outside to the port's next holder", l.outside, "tcp", hostAddr4+":8080",
		"again "+outsideAddr4,
	)
}

func TestWayOut(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(nil)
	a := l.attach(m, Request{ContainerID: "a"})
	inner := l.network(m, Spec{Name: "inner", Internal: true, EnableIPv6: true})
	b := l.attach(m, Request{ContainerID: "b", Network: "inner"})
	c := l.attach(m, Request{ContainerID: "c", Network: inner.ID[:12]})
	open := l.network(m, Spec{Name: "unmasked", Options: map[string]string{optMasquerade: "false"}})
	d := l.attach(m, Request{ContainerID: "d", Network: open.Name})
	l.serve(l.outside, 80, "outside")
	l.serve(b.NetNS, 80, "b")
	for _, proto := range []string{"tcp", "udp"} {
		l.reaches(
			"way out with the host's address", a.NetNS, proto, outsideAddr4+":80",
			"outside "+hostAddr4,
		)
		l.reaches(
			"way out with the host's address", a.NetNS, proto, "["+outsideAddr6+"]:80",
			"outside "+hostAddr6,
		)
		l.reaches(
			"way out with its own address", d.NetNS, proto, outsideAddr4+":80",
			"outside "+d.IPv4.Addr().String(),
		)
		l.reaches(
			"within an internal network", c.NetNS, proto, b.IPv4.Addr().String()+":80",
			"b "+c.IPv4.Addr().String(),
		)
		l.unreachable("way out of an internal network", b.NetNS, proto, outsideAddr4+":80")
	}
	// Also when the container makes itself a route.
	err := link.Enter(b.NetNS, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		return rt.Do(
			link.AddRoute(
				link.Route{
					Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: inner.Subnets[0].Gateway,
					Index: 2,
				},
			),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.unreachable("way out of an internal network with a route", b.NetNS, "tcp", outsideAddr4+":80")
	l.unreachable("into another network with a route", b.NetNS, "tcp", a.IPv4.Addr().String()+":80")
}

// TestHostLoopback: 127.0.0.1 of the host is not reachable from a container, although
// route_localnet is set on the bridge.
func TestHostLoopback(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(nil)
	a := l.attach(m, Request{ContainerID: "a"})
	l.serve(l.host, 7000, "host")
	l.reaches("host's own loopback", l.host, "tcp", "127.0.0.1:7000", "host 127.0.0.1")
	err := link.Enter(a.NetNS, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		if err := writeSysctl("net.ipv4.conf.all.route_localnet", "1"); err != nil {
			return err
		}
		return rt.Do(
			link.DelAddress(1, netip.MustParsePrefix("127.0.0.1/8")),
			link.AddRoute(
				link.Route{Dst: netip.MustParsePrefix("127.0.0.1/32"), Via: a.Gateway4, Index: 2},
			),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.unreachable("container with a route to the host's loopback", a.NetNS, "tcp", "127.0.0.1:7000")
}

// ask asks the resolver from a container.
func ask(t *testing.T, ns *os.File, network, name string, typ uint16) (*dns.Msg, error) {
	t.Helper()
	var c net.Conn
	err := link.Enter(ns, func() (err error) {
		c, err = net.DialTimeout(network, netip.AddrPortFrom(ResolverAddr, 53).String(), patient)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	client := &dns.Client{Net: network, Timeout: patient}
	reply, _, err := client.ExchangeWithConn(
		new(dns.Msg).SetQuestion(name, typ), &dns.Conn{Conn: c},
	)
	return reply, err
}

func TestNames(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(nil)
	// A name server outside, on the address in the lab's resolv.conf.
	upstream := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		reply := new(dns.Msg).SetReply(r)
		reply.Answer = []dns.RR{
			&dns.A{
				Hdr: dns.RR_Header{
					Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60,
				},
				A: net.IPv4(192, 0, 2, 80),
			},
		}
		w.WriteMsg(reply)
	})
	var pc net.PacketConn
	if err := link.Enter(l.outside, func() (err error) {
		pc, err = net.ListenPacket("udp4", outsideAddr4+":53")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: upstream}
	go srv.ActivateAndServe()
	t.Cleanup(func() { srv.ShutdownContext(context.Background()) })

	web := l.attach(
		m,
		Request{
			ContainerID: "0123456789abcdef", Name: "web", Hostname: "webhost",
			Aliases: []string{"service"},
		},
	)
	app := l.attach(m, Request{ContainerID: "app", Name: "app", Aliases: []string{"service"}})
	inner := l.network(m, Spec{Name: "inner", Internal: true})
	hidden := l.attach(m, Request{ContainerID: "hidden", Name: "hidden", Network: inner.ID})
	address := func(a netip.Prefix) string { return a.Addr().String() }
	reversed, err := dns.ReverseAddr(address(web.IPv4))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, question string
		from           *Attachment
		typ            uint16
		rcode          int
		want           []string
	}{
		{"name", "web.", app, dns.TypeA, dns.RcodeSuccess, []string{address(web.IPv4)}},
		{"name in capitals", "WEB.", app, dns.TypeA, dns.RcodeSuccess, []string{address(web.IPv4)}},
		{"IPv6", "web.", app, dns.TypeAAAA, dns.RcodeSuccess, []string{address(web.IPv6)}},
		{"hostname", "webhost.", app, dns.TypeA, dns.RcodeSuccess, []string{address(web.IPv4)}},
		{
			"short ID", "0123456789ab.", app, dns.TypeA, dns.RcodeSuccess,
			[]string{address(web.IPv4)},
		},
		{"qualified", "web.bridge.", app, dns.TypeA, dns.RcodeSuccess, []string{address(web.IPv4)}},
		{"itself", "app.", app, dns.TypeA, dns.RcodeSuccess, []string{address(app.IPv4)}},
		{
			"alias of two", "service.", web, dns.TypeA, dns.RcodeSuccess,
			[]string{address(web.IPv4), address(app.IPv4)},
		},
		{"other type of a known name", "web.", app, dns.TypeMX, dns.RcodeSuccess, nil},
		{"reverse", reversed, app, dns.TypePTR, dns.RcodeSuccess, []string{"web.bridge."}},
		{"outside", "example.net.", app, dns.TypeA, dns.RcodeSuccess, []string{"192.0.2.80"}},
		{
			"name of another network goes outside", "hidden.", app, dns.TypeA, dns.RcodeSuccess,
			[]string{"192.0.2.80"},
		},
		{
			"outside from an internal network", "example.net.", hidden, dns.TypeA,
			dns.RcodeServerFailure, nil,
		},
		{
			"itself in an internal network", "hidden.", hidden, dns.TypeA, dns.RcodeSuccess,
			[]string{address(hidden.IPv4)},
		},
	}
	for _, tt := range tests {
		for _, network := range []string{"udp", "tcp"} {
			if network == "tcp" && tt.want != nil && tt.want[0] == "192.0.2.80" {
				continue // the server outside has no stream socket
			}
			t.Run(tt.name+" over "+network, func(t *testing.T) {
				reply, err := ask(t, tt.from.NetNS, network, tt.question, tt.typ)
				if err != nil {
					t.Fatal(err)
				}
				got := map[string]bool{}
				for _, rr := range reply.Answer {
					switch rr := rr.(type) {
					case *dns.A:
						got[rr.A.String()] = true
					case *dns.AAAA:
						got[rr.AAAA.String()] = true
					case *dns.PTR:
						got[rr.Ptr] = true
					}
				}
				if reply.Rcode != tt.rcode || len(got) != len(tt.want) {
					t.Fatalf(
						"got %s %v; want %s %v", dns.RcodeToString[reply.Rcode], got,
						dns.RcodeToString[tt.rcode], tt.want,
					)
				}
				for _, w := range tt.want {
					if !got[w] {
						t.Errorf("got %v; want %q in it", got, w)
					}
				}
			})
		}
	}
	if err := m.Release(t.Context(), "0123456789abcdef"); err != nil {
		t.Fatal(err)
	}
	reply, err := ask(t, app.NetNS, "udp", "service.", dns.TypeA)
	if err != nil || len(reply.Answer) != 1 {
		t.Errorf("alias after one of two is gone: got %v, %v; want one answer", reply, err)
	}
}
