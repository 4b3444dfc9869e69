package resolver

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// addrs reads addresses.
func addrs(s string) (out []netip.Addr) {
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParseAddr(f))
	}
	return out
}

// testDirectory has two networks that lead out, front and back, and an internal one. The container
// both is in front and back.
func testDirectory() *Directory {
	d := NewDirectory()
	for _, e := range []Entry{
		{
			ID: "1", Container: "web", Network: "F", Names: []string{"web", "www"},
			Addrs: addrs("10.1.0.2 fd01::2"),
		},
		{
			ID: "2", Container: "web2", Network: "F", Names: []string{"web2", "www"},
			Addrs: addrs("10.1.0.3"),
		},
		{
			ID: "3", Container: "both", Network: "F", Names: []string{"both"},
			Addrs: addrs("10.1.0.4"),
		},
		{
			ID: "4", Container: "both", Network: "B", Names: []string{"both"},
			Addrs: addrs("10.2.0.4"),
		},
		{
			ID: "5", Container: "db", Network: "B", Names: []string{"db", "Store"},
			Addrs: addrs("10.2.0.5"),
		},
		{
			ID: "6", Container: "in", Network: "I", Internal: true, Names: []string{"in"},
			Addrs: addrs("10.3.0.6"),
		},
		{
			ID: "7", Container: "own", Network: "B", Names: []string{"own"},
			Addrs:   addrs("10.2.0.7"),
			Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:53")},
		},
	} {
		e.NetworkName = map[string]string{"F": "Front", "B": "back", "I": "inner"}[e.Network]
		d.Add(e)
	}
	return d
}

// said is a verdict in one line.
func said(v Verdict) string {
	if v.Forward {
		var to []string
		for _, s := range v.Servers {
			to = append(to, s.String())
		}
		return strings.TrimSpace("forward " + strings.Join(to, " "))
	}
	var out []string
	for _, rr := range v.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		case *dns.PTR:
			out = append(out, rr.Ptr)
		}
	}
	return strings.TrimSpace(dns.RcodeToString[v.Rcode] + " " + strings.Join(out, " "))
}

func TestAsk(t *testing.T) {
	t.Parallel()
	d := testDirectory()
	const web, both, db, in, own = "10.1.0.2", "10.1.0.4", "10.2.0.5", "10.3.0.6", "10.2.0.7"
	tests := []struct {
		from, name string
		typ        uint16
		want       string
	}{
		{web, "web2.", dns.TypeA, "NOERROR 10.1.0.3"},
		{"::ffff:10.1.0.2", "web2.", dns.TypeA, "NOERROR 10.1.0.3"},
		{"fd01::2", "web2.", dns.TypeA, "NOERROR 10.1.0.3"},
		{web, "WEB.", dns.TypeAAAA, "NOERROR fd01::2"},
		{web, "web.", dns.TypeANY, "NOERROR 10.1.0.2 fd01::2"},
		{web, "www.", dns.TypeA, "NOERROR 10.1.0.2 10.1.0.3"},
		{web, "web2.front.", dns.TypeA, "NOERROR 10.1.0.3"},
		{web, "web2.back.", dns.TypeA, "forward"},
		{web, "web2.", dns.TypeAAAA, "NOERROR"}, // known, and never asked about outside
		{web, "web2.", dns.TypeMX, "NOERROR"},
		{web, "db.", dns.TypeA, "forward"}, // of a network that it is not in
		{both, "db.", dns.TypeA, "NOERROR 10.2.0.5"},
		{both, "store.", dns.TypeA, "NOERROR 10.2.0.5"},
		{both, "both.", dns.TypeA, "NOERROR 10.1.0.4 10.2.0.4"},
		{"10.2.0.4", "web.", dns.TypeA, "NOERROR 10.1.0.2"},
		{db, "web.", dns.TypeA, "forward"},
		{in, "in.", dns.TypeA, "NOERROR 10.3.0.6"},
		{in, "example.net.", dns.TypeA, "SERVFAIL"},
		{own, "example.net.", dns.TypeA, "forward 192.0.2.7:53"},
		{"10.9.9.9", "web.", dns.TypeA, "REFUSED"},
		{web, "3.0.1.10.in-addr.arpa.", dns.TypePTR, "NOERROR web2.Front."},
		{web, "5.0.2.10.in-addr.arpa.", dns.TypePTR, "forward"},
		{both, "5.0.2.10.IN-ADDR.arpa.", dns.TypePTR, "NOERROR db.back."},
		{web, "9.0.1.10.in-addr.arpa.", dns.TypePTR, "forward"},
		{web, "0.1.10.in-addr.arpa.", dns.TypePTR, "forward"},
		{
			web,
			"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa.",
			dns.TypePTR, "NOERROR web.Front.",
		},
		{web, "2.0.0.0.ip6.arpa.", dns.TypePTR, "forward"},
		{web, "example.net.", dns.TypePTR, "forward"},
	}
	for _, tt := range tests {
		got := said(d.Ask(
			netip.MustParseAddr(tt.from),
			dns.Question{Name: tt.name, Qtype: tt.typ, Qclass: dns.ClassINET},
		))
		if got != tt.want {
			t.Errorf(
				"%s asks %s %s: got %q, want %q", tt.from, dns.TypeToString[tt.typ], tt.name, got,
				tt.want,
			)
		}
	}
	chaos := dns.Question{Name: "web2.", Qtype: dns.TypeA, Qclass: dns.ClassCHAOS}
	if got := said(d.Ask(netip.MustParseAddr(web), chaos)); got != "forward" {
		t.Errorf("question of class CHAOS: got %q, want it forwarded", got)
	}
}

// TestRemove: what an entry added is gone with it, and what others have stays.
func TestRemove(t *testing.T) {
	t.Parallel()
	d := testDirectory()
	ask := func(from, name string) string {
		return said(d.Ask(
			netip.MustParseAddr(from),
			dns.Question{Name: name, Qtype: dns.TypeA, Qclass: dns.ClassINET},
		))
	}
	d.Remove("unknown")
	d.Remove("1")
	if got := ask("10.1.0.4", "www."); got != "NOERROR 10.1.0.3" {
		t.Errorf("alias of two after one is gone: got %q", got)
	}
	if got := ask("10.1.0.4", "web."); got != "forward" {
		t.Errorf("name that is gone: got %q", got)
	}
	if got := ask("10.1.0.2", "www."); got != "REFUSED" {
		t.Errorf("asker that is gone: got %q", got)
	}
	// Added again under another address.
	d.Add(Entry{
		ID: "2", Container: "web2", Network: "F", NetworkName: "Front", Names: []string{"new"},
		Addrs: addrs("10.1.0.9"),
	})
	if got := ask("10.1.0.4", "new."); got != "NOERROR 10.1.0.9" {
		t.Errorf("replaced entry: got %q", got)
	}
	if got := ask("10.1.0.4", "web2."); got != "forward" {
		t.Errorf("name of the former entry: got %q", got)
	}
	var ids []string
	for id := range d.entries {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		d.Remove(id)
	}
	if len(d.entries)+len(d.byAddr)+len(d.byName)+len(d.clients) != 0 {
		t.Errorf("left over: %v %v %v %v", d.entries, d.byAddr, d.byName, d.clients)
	}
}
