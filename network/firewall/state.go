package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sort"

	"golang.org/x/sys/unix"
)

// State is what the table has to express.
type State struct {
	Networks []Network
	Ports    []Port
}

// Network is a bridge and what is allowed over it.
type Network struct {
	// Bridges are the names of its bridge interfaces, the one with its addresses first; a network
	// of more than a thousand containers has several.
	Bridges []string
	// Subnets are the addresses behind them.
	Subnets []netip.Prefix
	// Internal networks have no way out and none in.
	Internal bool
	// Masquerade gives packets to the outside the host's address.
	Masquerade bool
}

// Port is one published port.
type Port struct {
	Proto Proto
	// HostAddr is the host's address it is published on; the unspecified address (0.0.0.0 or ::)
	// means all of that family.
	HostAddr netip.Addr
	HostPort uint16
	// To is the container's address, of the same family, and its port.
	To netip.AddrPort
}

// Proto is an IP protocol number.
type Proto byte

// The protocols whose ports can be published.
const (
	TCP  Proto = unix.IPPROTO_TCP
	UDP  Proto = unix.IPPROTO_UDP
	SCTP Proto = unix.IPPROTO_SCTP
)

// String is the name in /etc/protocols.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol %d", byte(p))
}

// Element is a member of one of the table's sets or maps.
type Element struct {
	Set      string
	Text     string
	key, val []byte
	end      []byte // last key of an interval
}

// elements are the state's elements by set, sorted and each once.
func (s State) elements() map[string][]Element {
	out := map[string][]Element{}
	seen := map[[2]string]bool{}
	add := func(els []Element) {
		for _, e := range els {
			if id := [2]string{e.Set, string(e.key)}; !seen[id] {
				seen[id] = true
				out[e.Set] = append(out[e.Set], e)
			}
		}
	}
	for _, n := range s.Networks {
		add(n.elements())
	}
	for _, p := range s.Ports {
		add([]Element{p.element()})
	}
	for _, els := range out {
		sort.Slice(els, func(i, j int) bool { return els[i].Text < els[j].Text })
	}
	return out
}

func (n Network) elements() []Element {
	var out []Element
	for _, b := range n.Bridges {
		name, text := ifname(b), fmt.Sprintf("%q", b)
		out = append(out, Element{Set: setBridges, Text: text, key: name})
		for _, c := range n.Bridges {
			// Between two that are not the first nothing is routed.
			if b == c || b == n.Bridges[0] || c == n.Bridges[0] {
				out = append(
					out,
					Element{
						Set: setSame, Text: fmt.Sprintf("%q . %q", b, c),
						key: append(ifname(b), ifname(c)...),
					},
				)
			}
		}
		for _, p := range n.Subnets {
			e := Element{
				Set: setNear4, Text: text + " . " + p.String(),
				key: append(ifname(b), p.Addr().AsSlice()...), end: append(ifname(b), last(p)...),
			}
			if p.Addr().Is6() {
				e.Set = setNear6
			}
			out = append(out, e)
		}
		if n.Internal {
			out = append(out, Element{Set: setInternal, Text: text, key: name})
		} else if n.Masquerade {
			out = append(out, Element{Set: setMasked, Text: text, key: name})
		}
	}
	return out
}

// element is the port's entry in the map for its family and address. A port is in network byte
// order and padded to a register.
func (p Port) element() Element {
	addr := p.HostAddr.Unmap()
	e := Element{key: []byte{byte(p.Proto), 0, 0, 0}, Text: p.Proto.String()}
	switch {
	case addr.IsUnspecified() && addr.Is4():
		e.Set = mapPorts4Any
	case addr.IsUnspecified():
		e.Set = mapPorts6Any
	case addr.Is4():
		e.Set = mapPorts4
	default:
		e.Set = mapPorts6
	}
	if !addr.IsUnspecified() {
		e.key = append(e.key, addr.AsSlice()...)
		e.Text += " . " + addr.String()
	}
	e.key = append(e.key, service(p.HostPort)...)
	e.val = append(p.To.Addr().Unmap().AsSlice(), service(p.To.Port())...)
	e.Text += fmt.Sprintf(" . %d : %s . %d", p.HostPort, p.To.Addr(), p.To.Port())
	return e
}

// diff says which elements to delete from and to add to a table that expresses from, so that it
// expresses to.
func diff(from, to map[string][]Element) (del, add []Element) {
	for _, set := range sets() {
		old := map[string]Element{}
		for _, e := range from[set.Name] {
			old[string(e.key)] = e
		}
		for _, e := range to[set.Name] {
			if o, ok := old[string(e.key)]; ok {
				delete(old, string(e.key))
				if string(o.val) == string(e.val) {
					continue
				}
				del = append(del, o)
			}
			add = append(add, e)
		}
		for _, e := range from[set.Name] {
			if _, gone := old[string(e.key)]; gone {
				del = append(del, e)
			}
		}
	}
	return del, add
}

// last is the highest address of a prefix.
func last(p netip.Prefix) []byte {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return b
}

func texts(els []Element) []string {
	out := make([]string, len(els))
	for i, e := range els {
		out[i] = e.Text
	}
	return out
}

func ifname(s string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, s)
	return b
}

func service(port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(nil, port), 0, 0)
}
