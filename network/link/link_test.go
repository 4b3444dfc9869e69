package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNamespace runs fn in a network namespace of the test's own, with a socket of it.
func inNamespace(t *testing.T, fn func(ns *os.File, s *Socket) error) *os.File {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	ns, err := Create(func(ns *os.File) error {
		s, err := Open()
		if err != nil {
			return err
		}
		defer s.Close()
		return fn(ns, s)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func hardware(s string) net.HardwareAddr {
	mac, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return mac
}

// byIndex is an interface as the Go library sees it, in the calling thread's namespace.
func byIndex(t *testing.T, index int) *net.Interface {
	t.Helper()
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestPair: a bridge, and a pair with one end in another namespace, made by one message each.
func TestPair(t *testing.T) {
	t.Parallel()
	far := inNamespace(t, func(*os.File, *Socket) error { return nil })
	inNamespace(t, func(_ *os.File, s *Socket) error {
		mac, peer := hardware("02:53:00:00:00:01"), hardware("02:53:00:00:00:02")
		if err := s.Do(AddBridge("br0", mac, 1400)); err != nil {
			return err
		}
		br, err := s.ByName("br0")
		if err != nil {
			return err
		}
		if br.Kind != "bridge" || br.MAC.String() != mac.String() || br.Master != 0 {
			t.Errorf("bridge: got %+v", br)
		}
		if i := byIndex(t, br.Index); i.MTU != 1400 || i.Flags&net.FlagUp == 0 {
			t.Errorf("bridge: got MTU %d, flags %v", i.MTU, i.Flags)
		}
		if err := s.Do(AddVeth(Veth{
			Name: "near", Bridge: br.Index, MTU: 1400, PeerName: "far0", PeerMAC: peer,
			PeerNS: int(far.Fd()),
		})); err != nil {
			return err
		}
		near, err := s.ByName("near")
		if err != nil {
			return err
		}
		if near.Kind != "veth" || near.Master != br.Index {
			t.Errorf("near end: got %+v, want a port of interface %d", near, br.Index)
		}
		if i := byIndex(t, near.Index); i.MTU != 1400 || i.Flags&net.FlagUp == 0 {
			t.Errorf("near end: got MTU %d, flags %v", i.MTU, i.Flags)
		}
		if _, err := s.ByName("far0"); !errors.Is(err, unix.ENODEV) {
			t.Errorf("far end in this namespace: got %v, want ENODEV", err)
		}
		err = Enter(far, func() error {
			fs, err := Open()
			if err != nil {
				return err
			}
			defer fs.Close()
			other, err := fs.ByName("far0")
			if err != nil {
				return err
			}
			if other.MAC.String() != peer.String() || byIndex(t, other.Index).MTU != 1400 {
				t.Errorf("far end: got %+v", other)
			}
			return fs.Do(SetUp(other.Index))
		})
		if err != nil {
			return err
		}
		for _, flag := range []uint16{Hairpin, Isolated} {
			if err := s.Do(SetPortFlag(near.Index, flag)); err != nil {
				t.Errorf("flag %d: %v", flag, err)
			}
		}
		if p, err := portFlags("near"); err != nil || !p.Hairpin || !p.Isolated || p.Guard {
			t.Errorf("flags of the port: got %+v, %v; want hairpin and isolated", p, err)
		}
		// Deleting either end deletes both.
		if err := s.Do(DeleteName("near")); err != nil {
			return err
		}
		if err := s.Do(DeleteName("near")); !errors.Is(err, unix.ENODEV) {
			t.Errorf("deleted twice: got %v, want ENODEV", err)
		}
		return Enter(far, func() error {
			links, err := net.Interfaces()
			for _, l := range links {
				if l.Name == "far0" {
					t.Error("the far end is still there")
				}
			}
			return err
		})
	})
}

// portFlags asks for a bridge port's flags in the calling thread's namespace, by another library.
func portFlags(name string) (netlink.Protinfo, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return netlink.Protinfo{}, err
	}
	defer h.Close()
	l, err := h.LinkByName(name)
	if err != nil {
		return netlink.Protinfo{}, err
	}
	return h.LinkGetProtinfo(l)
}

// TestPorts: two bridges of one namespace joined by a pair.
func TestPorts(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(_ *os.File, s *Socket) error {
		index := map[string]int{}
		for i, name := range []string{"a", "b"} {
			mac := net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}
			if err := s.Do(AddBridge(name, mac, 0)); err != nil {
				return err
			}
			info, err := s.ByName(name)
			if err != nil {
				return err
			}
			index[name] = info.Index
		}
		if err := s.Do(AddVethPorts("ab", index["a"], "ba")); err != nil {
			return err
		}
		ba, err := s.ByName("ba")
		if err != nil {
			return err
		}
		mac := hardware("02:00:00:00:00:77")
		if err := s.Do(
			SetMaster(ba.Index, index["b"]), SetMAC(ba.Index, mac), SetUp(ba.Index),
		); err != nil {
			return err
		}
		links, err := s.Links()
		if err != nil {
			return err
		}
		masters := map[string]int{}
		for _, l := range links {
			masters[l.Name] = l.Master
		}
		if masters["ab"] != index["a"] || masters["ba"] != index["b"] {
			t.Errorf("masters: got %v, want ab in a and ba in b: %v", masters, index)
		}
		if got := byIndex(t, ba.Index).HardwareAddr.String(); got != mac.String() {
			t.Errorf("hardware address: got %s, want %s", got, mac)
		}
		return s.Do(Delete(index["a"]), Delete(index["b"]))
	})
}

// TestAddressesAndRoutes: what is added is there, is listed, and goes.
func TestAddressesAndRoutes(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(_ *os.File, s *Socket) error {
		if err := s.Do(SetUp(1), AddBridge("br0", hardware("02:00:00:00:00:01"), 0)); err != nil {
			return err
		}
		br, err := s.ByName("br0")
		if err != nil {
			return err
		}
		p := netip.MustParsePrefix
		v4, v6 := p("10.5.0.1/24"), p("fd00:5::1/64")
		routes := []Route{
			{Dst: p("10.6.0.0/16"), Via: netip.MustParseAddr("10.5.0.9"), Index: br.Index},
			{Dst: p("10.7.0.0/16"), Index: br.Index},
			{Dst: p("fd00:6::/48"), Via: netip.MustParseAddr("fd00:5::9"), Index: br.Index},
			{Dst: p("0.0.0.0/0"), Via: netip.MustParseAddr("10.5.0.9"), Index: br.Index},
		}
		reqs := []Request{AddAddress(br.Index, v4), AddAddress(br.Index, v6)}
		for _, r := range routes {
			reqs = append(reqs, AddRoute(r))
		}
		reqs = append(reqs, AddNeighbour(
			br.Index, netip.MustParseAddr("10.5.0.9"), hardware("02:00:00:00:00:09"),
		))
		if err := s.Do(reqs...); err != nil {
			return err
		}
		listed := func(skip int) []string {
			got, err := s.Prefixes(func(i int) bool { return i == skip })
			if err != nil {
				t.Error(err)
			}
			var out []string
			for _, p := range got {
				out = append(out, p.Masked().String())
			}
			slices.Sort(out)
			return slices.Compact(out)
		}
		got := listed(1)
		for _, want := range []string{
			"10.5.0.0/24", "10.6.0.0/16", "10.7.0.0/16", "fd00:5::/64", "fd00:6::/48",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("prefixes: got %v, want %s in it", got, want)
			}
		}
		if slices.Contains(got, "0.0.0.0/0") {
			t.Errorf("prefixes: got %v with the default route", got)
		}
		if got := listed(br.Index); slices.Contains(got, "10.5.0.0/24") {
			t.Errorf("prefixes without the bridge's: got %v", got)
		}
		neighbours, err := os.ReadFile("/proc/thread-self/net/arp")
		if err != nil {
			return err
		}
		// PERMANENT: ATF_COM and ATF_PERM, 0x6.
		const entry = "10.5.0.9 0x1 0x6 02:00:00:00:00:09 * br0"
		if !slices.Contains(rows(string(neighbours)), entry) {
			t.Errorf("neighbours: got %q", neighbours)
		}
		for _, r := range routes {
			if err := s.Do(DelRoute(r)); err != nil {
				t.Error(err)
			}
		}
		if err := s.Do(DelAddress(br.Index, v4), DelAddress(br.Index, v6)); err != nil {
			return err
		}
		got = listed(1)
		if slices.Contains(got, "10.5.0.0/24") || slices.Contains(got, "10.7.0.0/16") {
			t.Errorf("prefixes after all is deleted: got %v", got)
		}
		return nil
	})
}

// rows are the lines of a table, with one space between columns.
func rows(table string) (out []string) {
	for line := range strings.Lines(table) {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return out
}

// TestBatch: all requests of a batch are carried out, also those behind a refused one, and the
// refusals say which they are.
func TestBatch(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(_ *os.File, s *Socket) error {
		mac := hardware("02:00:00:00:00:01")
		err := s.Do(
			AddBridge("one", mac, 0), AddBridge("one", mac, 0), DeleteName("none"),
			AddBridge("two", mac, 0),
		)
		if !errors.Is(err, unix.EEXIST) || !errors.Is(err, unix.ENODEV) {
			t.Errorf("got %v, want both refusals", err)
		}
		var first *Error
		if !errors.As(err, &first) || first.What != `add bridge "one"` {
			t.Errorf("first refusal: got %+v", first)
		}
		for _, name := range []string{"one", "two"} {
			if _, err := s.ByName(name); err != nil {
				t.Error(err)
			}
		}
		if err := s.Do(); err != nil {
			t.Errorf("no request: %v", err)
		}
		// The kernel explains itself.
		err = s.Do(AddRoute(Route{
			Dst: netip.MustParsePrefix("10.0.0.0/8"), Via: netip.MustParseAddr("192.0.2.1"),
			Index: 1,
		}))
		if !errors.As(err, &first) || first.Message == "" {
			t.Errorf("route without a way: got %v, want the kernel's explanation", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Do(SetUp(1)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("closed socket: got %v", err)
		}
		return nil
	})
}

// TestManyLinks: a listing of more interfaces than one datagram holds is whole.
func TestManyLinks(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(_ *os.File, s *Socket) error {
		const n = 60
		for i := range n {
			mac := net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}
			if err := s.Do(AddBridge(fmt.Sprint("br", i), mac, 0)); err != nil {
				return err
			}
		}
		links, err := s.Links()
		seen := map[string]bool{}
		for _, l := range links {
			seen[l.Name] = l.Index > 0
		}
		for i := range n {
			if !seen[fmt.Sprint("br", i)] {
				t.Errorf("br%d is not listed", i)
			}
		}
		return err
	})
}

// TestTopology: the number changes with links, addresses, routes and neither with counters nor by
// itself.
func TestTopology(t *testing.T) {
	t.Parallel()
	inNamespace(t, func(_ *os.File, s *Socket) error {
		if err := s.Do(AddBridge("br0", hardware("02:00:00:00:00:01"), 0)); err != nil {
			return err
		}
		br, err := s.ByName("br0")
		if err != nil {
			return err
		}
		p := netip.MustParsePrefix
		last, err := s.Topology()
		if err != nil {
			return err
		}
		begin := last
		for _, step := range []struct {
			what string
			req  Request
		}{
			{"address", AddAddress(br.Index, p("10.5.0.1/24"))},
			{"second address", AddAddress(br.Index, p("10.5.0.2/24"))},
			{"IPv6 address", AddAddress(br.Index, p("fd00:5::1/64"))},
			{"route", AddRoute(Route{Dst: p("10.7.0.0/16"), Index: br.Index})},
			{"hardware address", SetMAC(br.Index, hardware("02:00:00:00:00:02"))},
			{"interface", AddBridge("br1", hardware("02:00:00:00:00:03"), 0)},
		} {
			if err := s.Do(step.req); err != nil {
				return err
			}
			now, err := s.Topology()
			if err != nil {
				return err
			}
			if now == last {
				t.Errorf("%s: the number is the same", step.what)
			}
			last = now
		}
		if err := s.Do(
			DeleteName("br1"), SetMAC(br.Index, hardware("02:00:00:00:00:01")),
			DelRoute(Route{Dst: p("10.7.0.0/16"), Index: br.Index}),
			DelAddress(br.Index, p("fd00:5::1/64")), DelAddress(br.Index, p("10.5.0.2/24")),
			DelAddress(br.Index, p("10.5.0.1/24")),
		); err != nil {
			return err
		}
		if now, err := s.Topology(); err != nil || now != begin {
			t.Errorf("after all is undone: got %d, %v; want %d", now, err, begin)
		}
		return nil
	})
}

// TestMessages: what the kernel sends is bounded and may be malformed.
func TestMessages(t *testing.T) {
	t.Parallel()
	var got []string
	b := attr32(attrString(nil, unix.IFLA_IFNAME, "eth0"), unix.IFLA_MTU, 1500)
	visit := func(typ uint16, v []byte) { got = append(got, fmt.Sprintf("%d:%x", typ, v)) }
	attributes(b, visit)
	mtu := binary.NativeEndian.AppendUint32(nil, 1500)
	want := []string{
		fmt.Sprintf("%d:%x", unix.IFLA_IFNAME, "eth0\x00"),
		fmt.Sprintf("%d:%x", unix.IFLA_MTU, mtu),
	}
	if !slices.Equal(got, want) {
		t.Errorf("attributes: got %v, want %v", got, want)
	}
	for n := range len(b) {
		got = nil
		attributes(b[:n], visit)
		if len(got) > 1 {
			t.Errorf("first %d bytes: got %v", n, got)
		}
	}
	for n := range unix.SizeofIfInfomsg {
		if info := parseLink(make([]byte, n)); info.Index != 0 || info.Name != "" {
			t.Errorf("link of %d bytes: got %+v", n, info)
		}
	}
	if err := ackError("x", header{}, []byte{1}); !errors.Is(err, unix.EBADMSG) {
		t.Errorf("short acknowledgement: got %v", err)
	}
	e := &Error{What: "x", Errno: unix.EINVAL, Message: "because"}
	if e.Error() != "x: invalid argument: because" {
		t.Errorf("got %q", e)
	}
}
