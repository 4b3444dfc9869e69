package firewall

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"

	"strake/network/link"
)

var update = flag.Bool("update", false, "rewrite testdata")

// example has something of everything that a state can express.
func example() State {
	addr, sub := netip.MustParseAddr, netip.MustParsePrefix
	to := netip.MustParseAddrPort
	return State{
		Networks: []Network{
			{
				Bridges: []string{"strake0"}, Masquerade: true,
				Subnets: []netip.Prefix{sub("172.17.0.0/16"), sub("fd00::/64")},
			},
			{
				Bridges: []string{"sk-large", "sks1", "sks2"}, Masquerade: true,
				Subnets: []netip.Prefix{sub("10.0.0.0/8")},
			},
			{
				Bridges: []string{"sk-inner"}, Internal: true,
				Subnets: []netip.Prefix{sub("10.99.0.0/24")},
			},
			{Bridges: []string{"sk-routed"}, Subnets: []netip.Prefix{sub("192.168.7.0/24")}},
		},
		Ports: []Port{
			{TCP, addr("0.0.0.0"), 8080, to("172.17.0.2:80")},
			{TCP, addr("::"), 8080, to("[fd00::2]:80")},
			{UDP, addr("0.0.0.0"), 8080, to("172.17.0.3:53")},
			{SCTP, addr("203.0.113.1"), 9, to("172.17.0.2:9")},
			{TCP, addr("127.0.0.1"), 8081, to("172.17.0.2:81")},
			{UDP, addr("2001:db8::1"), 53, to("[fd00::3]:53")},
		},
	}
}

// TestGolden: the rules and elements as a person reads them.
func TestGolden(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]State{"empty": {}, "example": example()} {
		path := filepath.Join("testdata", name+".nft")
		got := Render("strake", s)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
		}
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	port := func(host uint16, to string) Port {
		return Port{TCP, netip.IPv4Unspecified(), host, netip.MustParseAddrPort(to)}
	}
	tests := []struct {
		name     string
		from, to []Port
		del, add string
	}{
		{"nothing", nil, nil, "", ""},
		{
			"added", nil, []Port{port(1, "10.0.0.2:1")}, "",
			"tcp . 1 : 10.0.0.2 . 1",
		},
		{
			"removed", []Port{port(1, "10.0.0.2:1")}, nil,
			"tcp . 1 : 10.0.0.2 . 1", "",
		},
		{"the same", []Port{port(1, "10.0.0.2:1")}, []Port{port(1, "10.0.0.2:1")}, "", ""},
		{
			"another container", []Port{port(1, "10.0.0.2:1")}, []Port{port(1, "10.0.0.3:1")},
			"tcp . 1 : 10.0.0.2 . 1", "tcp . 1 : 10.0.0.3 . 1",
		},
	}
	for _, tt := range tests {
		del, add := diff(State{Ports: tt.from}.elements(), State{Ports: tt.to}.elements())
		if got := strings.Join(texts(del), ", "); got != tt.del {
			t.Errorf("%s: deletes %q, want %q", tt.name, got, tt.del)
		}
		if got := strings.Join(texts(add), ", "); got != tt.add {
			t.Errorf("%s: adds %q, want %q", tt.name, got, tt.add)
		}
	}
}

// namespace is a network namespace of the test's own, with a connection of its own to the kernel's
// nftables.
func namespace(t *testing.T) (*os.File, *nftables.Conn) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	ns, err := link.Create(func(*os.File) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.CloseLasting(); err != nil {
			t.Error(err)
		}
	})
	return ns, conn
}

func open(t *testing.T, name string, ns *os.File) *Table {
	t.Helper()
	table := Open(name, ns)
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

// TestRules: what the kernel holds of the rules says the same as their text.
func TestRules(t *testing.T) {
	t.Parallel()
	ns, conn := namespace(t)
	if err := open(t, "strake", ns).Replace(example()); err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: "strake", Family: nftables.TableFamilyINet}
	there, err := conn.ListChains()
	if err != nil {
		t.Fatal(err)
	}
	if len(there) != len(chains()) {
		t.Errorf("got %d chains, want %d", len(there), len(chains()))
	}
	for _, c := range chains() {
		i := slices.IndexFunc(there, func(x *nftables.Chain) bool { return x.Name == c.Name })
		if i < 0 {
			t.Errorf("no chain %s", c.Name)
			continue
		}
		k := there[i]
		if string(k.Type) != c.Type || *k.Hooknum != *hook(c.Hook) ||
			int(*k.Priority) != c.Priority || k.Policy == nil ||
			*k.Policy != nftables.ChainPolicyAccept {
			t.Errorf("chain %s: got type %s hook %d priority %d", c.Name, k.Type, *k.Hooknum,
				*k.Priority)
		}
		rules, err := conn.GetRules(table, k)
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, r := range rules {
			got = append(got, decompile(r.Exprs))
		}
		for _, r := range c.Rules {
			want = append(want, r.Text)
		}
		if !slices.Equal(got, want) {
			t.Errorf("chain %s: got\n%s\nwant\n%s", c.Name, strings.Join(got, "\n"),
				strings.Join(want, "\n"))
		}
	}
}

// members are the elements that the kernel holds, by set, each as one string.
func members(t *testing.T, conn *nftables.Conn) map[string][]string {
	t.Helper()
	there, err := conn.GetSets(&nftables.Table{Name: "strake", Family: nftables.TableFamilyINet})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, s := range there {
		els, err := conn.GetSetElements(s)
		if err != nil {
			t.Fatal(err)
		}
		out[s.Name] = []string{}
		for _, e := range els {
			out[s.Name] = append(out[s.Name], fmt.Sprintf("%x-%x:%x", e.Key, e.KeyEnd, e.Val))
		}
		slices.Sort(out[s.Name])
	}
	return out
}

// expressed is what members should be for a state.
func expressed(s State) map[string][]string {
	els := s.elements()
	out := map[string][]string{}
	for _, set := range sets() {
		out[set.Name] = []string{}
		for _, e := range els[set.Name] {
			out[set.Name] = append(out[set.Name], fmt.Sprintf("%x-%x:%x", e.key, e.end, e.val))
		}
		slices.Sort(out[set.Name])
	}
	return out
}

func sameMembers(t *testing.T, when string, conn *nftables.Conn, s State) {
	t.Helper()
	got, want := members(t, conn), expressed(s)
	for name := range want {
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("%s: set %s: got %v, want %v", when, name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: got %d sets, want %d", when, len(got), len(want))
	}
}

// TestElements: the kernel holds the elements of a state, after Replace and after any sequence of
// updates.
func TestElements(t *testing.T) {
	t.Parallel()
	ns, conn := namespace(t)
	table := open(t, "strake", ns)
	if err := table.Update(State{}, example()); err != ErrAbsent {
		t.Errorf("update of no table: got %v, want ErrAbsent", err)
	}
	if err := table.Replace(example()); err != nil {
		t.Fatal(err)
	}
	sameMembers(t, "Replace", conn, example())
	want := expressed(example())
	for _, name := range []string{
		setBridges, setSame, setInternal, setMasked, setNear4, setNear6, mapPorts4, mapPorts4Any,
		mapPorts6, mapPorts6Any,
	} {
		if len(want[name]) == 0 {
			t.Errorf("the example says nothing about set %s", name)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	all := example()
	now := example()
	for step := range 60 {
		var of, to State
		if i := random.IntN(len(all.Ports)); random.IntN(2) == 0 {
			p := all.Ports[i]
			if at := slices.Index(now.Ports, p); at >= 0 {
				of.Ports, now.Ports = []Port{p}, slices.Delete(slices.Clone(now.Ports), at, at+1)
			} else {
				to.Ports, now.Ports = []Port{p}, append(slices.Clone(now.Ports), p)
			}
		} else {
			n := all.Networks[i%len(all.Networks)]
			at := slices.IndexFunc(
				now.Networks, func(x Network) bool { return reflect.DeepEqual(x, n) },
			)
			if at >= 0 {
				of.Networks = []Network{n}
				now.Networks = slices.Delete(slices.Clone(now.Networks), at, at+1)
			} else {
				to.Networks, now.Networks = []Network{n}, append(slices.Clone(now.Networks), n)
			}
		}
		if err := table.Update(of, to); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		sameMembers(t, fmt.Sprint("step ", step), conn, now)
	}
	// What is held already is no error to add, what is not held none to remove.
	for range 2 {
		if err := table.Update(State{}, all); err != nil {
			t.Fatal(err)
		}
		sameMembers(t, "added twice", conn, all)
	}
	for range 2 {
		if err := table.Update(all, State{}); err != nil {
			t.Fatal(err)
		}
		sameMembers(t, "removed twice", conn, State{})
	}
}

// TestMany: elements come in several messages, and a port that moves is one transaction.
func TestMany(t *testing.T) {
	t.Parallel()
	ns, conn := namespace(t)
	table := open(t, "strake", ns)
	var s State
	for i := range 1200 {
		s.Ports = append(s.Ports, Port{
			TCP, netip.IPv4Unspecified(), uint16(10000 + i),
			netip.MustParseAddrPort("10.0.0.2:80"),
		})
	}
	if err := table.Replace(s); err != nil {
		t.Fatal(err)
	}
	sameMembers(t, "1,200 ports", conn, s)
	was, is := State{Ports: slices.Clone(s.Ports[:1])}, State{Ports: slices.Clone(s.Ports[:1])}
	is.Ports[0].To = netip.MustParseAddrPort("10.0.0.3:81")
	if err := table.Update(was, is); err != nil {
		t.Fatal(err)
	}
	s.Ports[0] = is.Ports[0]
	sameMembers(t, "moved", conn, s)
}

// TestTables: what Exists, Siblings, Blockers and Remove say and do, and that others' tables stay.
func TestTables(t *testing.T) {
	t.Parallel()
	ns, conn := namespace(t)
	table, other := open(t, "strake", ns), open(t, "strake_two", ns)
	exists := func(want bool) {
		t.Helper()
		if got, err := table.Exists(); err != nil || got != want {
			t.Errorf("exists: got %v, %v; want %v", got, err, want)
		}
	}
	exists(false)
	if err := table.Remove(); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
	if err := table.Replace(State{}); err != nil {
		t.Fatal(err)
	}
	if err := other.Replace(State{}); err != nil {
		t.Fatal(err)
	}
	exists(true)
	starts := func(name string) bool { return strings.HasPrefix(name, "strake") }
	siblings, err := table.Siblings(starts)
	if err != nil || !slices.Equal(siblings, []string{"strake_two"}) {
		t.Errorf("siblings: got %v, %v", siblings, err)
	}
	drop := nftables.ChainPolicyDrop
	for _, f := range []nftables.TableFamily{
		nftables.TableFamilyIPv4, nftables.TableFamilyINet, nftables.TableFamilyARP,
	} {
		guard := conn.AddTable(&nftables.Table{Name: "guard", Family: f})
		if f == nftables.TableFamilyARP {
			continue
		}
		conn.AddChain(&nftables.Chain{
			Name: "fwd", Table: guard, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
			Policy: &drop,
		})
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := table.Blockers()
	slices.Sort(got)
	if want := []string{"inet guard fwd", "ip guard fwd"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("blockers: got %v, %v; want %v", got, err, want)
	}
	// Another program flushes the ruleset: Update says so, and Replace makes the table again.
	conn.DelTable(&nftables.Table{Name: "strake", Family: nftables.TableFamilyINet})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := table.Update(State{}, example()); err == nil || !strings.Contains(
		err.Error(), ErrAbsent.Error(),
	) {
		t.Errorf("update of a table that was deleted: got %v", err)
	}
	if err := table.Replace(example()); err != nil {
		t.Fatal(err)
	}
	sameMembers(t, "made again", conn, example())
	if err := table.Remove(); err != nil {
		t.Fatal(err)
	}
	exists(false)
	if got, err := other.Exists(); err != nil || !got {
		t.Errorf("another instance's table: got %v, %v; want it there", got, err)
	}
}

func TestProtoString(t *testing.T) {
	t.Parallel()
	for p, want := range map[Proto]string{
		TCP: "tcp", UDP: "udp", SCTP: "sctp", 1: "protocol 1",
	} {
		if got := p.String(); got != want {
			t.Errorf("%d: got %q, want %q", byte(p), got, want)
		}
	}
}
