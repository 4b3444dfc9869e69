// Package resolver answers containers' questions about names: those of containers itself, all
// others by asking the host's name servers.
//
// A question is answered from the point of view of the container that asks, which its source
// address tells: it sees the containers of the networks that it is attached to, and no others. A
// question from an address that no container has is refused.
//
// Promises: a known name is never asked about outside, also when it has no address of the wanted
// kind (an empty answer, not "no such name"). What is asked outside is passed on unchanged, with a
// fresh identification and source port, to one server after the other. What comes back is passed on
// only if it answers the question that was asked (RFC 5452).
//
// Not for: recursion, caching, zones, DNSSEC validation (the client's and the server's bits pass
// through).
//
// Tested by tables, against servers in memory that answer, fail, lie and stay silent, under a clock
// of the test's own, and over sockets on the loopback device.
package resolver

import (
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Entry is a container's place in one network.
type Entry struct {
	ID        string // of the endpoint
	Container string
	Network   string // ID
	// NetworkName makes qualified names: name.network.
	NetworkName string
	// Internal networks lead nowhere: a container only on such networks gets no answers about names
	// outside.
	Internal bool
	// Names are all that the container can be called there, the one for reverse answers first.
	Names []string
	Addrs []netip.Addr
	// Servers, when not empty, are asked about names outside instead of the host's.
	Servers []netip.AddrPort
}

// Directory knows who is called what. Safe for concurrent use.
type Directory struct {
	mu      sync.RWMutex
	entries map[string]*Entry     // guarded by mu; by ID
	byAddr  map[netip.Addr]*Entry // guarded by mu
	clients map[string][]*Entry   // guarded by mu; by container
	// guarded by mu; by network, lower-case name, entry ID
	byName map[string]map[string]map[string]*Entry
}

// NewDirectory returns an empty directory.
func NewDirectory() *Directory {
	return &Directory{
		entries: map[string]*Entry{}, byAddr: map[netip.Addr]*Entry{},
		clients: map[string][]*Entry{}, byName: map[string]map[string]map[string]*Entry{},
	}
}

// Add enters a container, replacing an entry of the same ID.
func (d *Directory) Add(e Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(e.ID)
	p := &e
	d.entries[e.ID] = p
	for _, a := range e.Addrs {
		d.byAddr[a.Unmap()] = p
	}
	d.clients[e.Container] = append(d.clients[e.Container], p)
	names := d.byName[e.Network]
	if names == nil {
		names = map[string]map[string]*Entry{}
		d.byName[e.Network] = names
	}
	for _, n := range e.Names {
		n = strings.ToLower(n)
		if names[n] == nil {
			names[n] = map[string]*Entry{}
		}
		names[n][e.ID] = p
	}
}

// Remove forgets an entry; it is no error when there is none.
func (d *Directory) Remove(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(id)
}

func (d *Directory) remove(id string) {
	e := d.entries[id]
	if e == nil {
		return
	}
	delete(d.entries, id)
	for _, a := range e.Addrs {
		if d.byAddr[a.Unmap()] == e {
			delete(d.byAddr, a.Unmap())
		}
	}
	if d.clients[e.Container] = slices.DeleteFunc(
		d.clients[e.Container], func(x *Entry) bool { return x == e },
	); len(d.clients[e.Container]) == 0 {
		delete(d.clients, e.Container)
	}
	names := d.byName[e.Network]
	for _, n := range e.Names {
		n = strings.ToLower(n)
		if delete(names[n], id); len(names[n]) == 0 {
			delete(names, n)
		}
	}
	if len(names) == 0 {
		delete(d.byName, e.Network)
	}
}

// ttlSeconds is how long others may remember an answer. Containers come and go.
const ttlSeconds = 5

// Verdict is what to do with a question.
type Verdict struct {
	// Forward says to ask outside; then Servers, when not empty, says whom.
	Forward bool
	Servers []netip.AddrPort
	// Otherwise this is the answer.
	Rcode  int
	Answer []dns.RR
}

// Ask decides what the container with the address from is told.
func (d *Directory) Ask(from netip.Addr, q dns.Question) Verdict {
	d.mu.RLock()
	defer d.mu.RUnlock()
	who := d.byAddr[from.Unmap()]
	if who == nil {
		return Verdict{Rcode: dns.RcodeRefused}
	}
	places := d.clients[who.Container]
	if q.Qclass == dns.ClassINET || q.Qclass == dns.ClassANY {
		if rrs, known := d.lookup(places, q); known {
			return Verdict{Answer: rrs}
		}
	}
	v := Verdict{Rcode: dns.RcodeServerFailure}
	for _, p := range places {
		if !p.Internal {
			v = Verdict{Forward: true}
		}
		if len(v.Servers) == 0 {
			v.Servers = p.Servers
		}
	}
	return v
}

func (d *Directory) lookup(places []*Entry, q dns.Question) (rrs []dns.RR, known bool) {
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	if q.Qtype == dns.TypePTR {
		return d.reverse(places, q.Name, name)
	}
	header := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Name, Rrtype: t, Class: dns.ClassINET, Ttl: ttlSeconds}
	}
	var found []*Entry
	for _, p := range places {
		names := d.byName[p.Network]
		hits := names[name]
		if short, ok := strings.CutSuffix(name, "."+strings.ToLower(p.NetworkName)); ok &&
			len(hits) == 0 {
			hits = names[short]
		}
		for _, e := range hits {
			found = append(found, e)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].ID < found[j].ID })
	for _, e := range found {
		for _, a := range e.Addrs {
			switch a = a.Unmap(); {
			case a.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
				rrs = append(rrs, &dns.A{Hdr: header(dns.TypeA), A: a.AsSlice()})
			case a.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
				rrs = append(rrs, &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: a.AsSlice()})
			}
		}
	}
	return rrs, len(found) > 0
}

// reverse answers for addresses of containers that the asker can see.
func (d *Directory) reverse(places []*Entry, asked, name string) (rrs []dns.RR, known bool) {
	e := d.byAddr[addrOf(name)]
	if e == nil {
		return nil, false
	}
	for _, p := range places {
		if p.Network == e.Network && len(e.Names) > 0 {
			return []dns.RR{
				&dns.PTR{
					Hdr: dns.RR_Header{
						Name: asked, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttlSeconds,
					},
					Ptr: dns.Fqdn(e.Names[0] + "." + e.NetworkName),
				},
			}, true
		}
	}
	return nil, false
}

// addrOf reads a name of in-addr.arpa or ip6.arpa (RFC 1035, 3.5; RFC 3596, 2.5); invalid for any
// other.
func addrOf(name string) netip.Addr {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(rest, ".")
		slices.Reverse(parts)
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		if err != nil || !a.Is4() {
			return netip.Addr{}
		}
		return a
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}
	}
	parts := strings.Split(rest, ".")
	slices.Reverse(parts)
	var b strings.Builder
	for i, p := range parts {
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		b.WriteString(p)
	}
	a, err := netip.ParseAddr(b.String())
	if err != nil {
		return netip.Addr{}
	}
	return a
}
