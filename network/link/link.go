package link

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ifinfo is struct ifinfomsg (rtnetlink(7)).
func ifinfo(index int, flags, change uint32) []byte {
	b := []byte{unix.AF_UNSPEC, 0, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL

// Veth describes a pair of which one end is a port of a bridge here and the other an interface of
// another namespace.
type Veth struct {
	Name   string // the end that stays
	Bridge int    // index of its bridge
	MTU    int    // of both ends; 0 for the kernel's default

	PeerName string
	PeerMAC  net.HardwareAddr
	PeerNS   int // descriptor of the namespace of the other end
}

// AddVeth makes the pair, its near end up and a port of the bridge. The message is the kernel's
// RTM_NEWLINK with IFLA_MASTER and VETH_INFO_PEER: the pair exists whole or not at all. The far end
// cannot be up yet: the kernel makes it first, and without a peer it refuses (veth_open).
func AddVeth(v Veth) Request {
	// vethInfoPeer is VETH_INFO_PEER of linux/veth.h.
	const vethInfoPeer = 1
	peer := ifinfo(0, 0, 0)
	peer = attrString(peer, unix.IFLA_IFNAME, v.PeerName)
	peer = attr32(peer, unix.IFLA_NET_NS_FD, uint32(v.PeerNS))
	if v.PeerMAC != nil {
		peer = attr(peer, unix.IFLA_ADDRESS, v.PeerMAC)
	}
	body := ifinfo(0, unix.IFF_UP, unix.IFF_UP)
	body = attrString(body, unix.IFLA_IFNAME, v.Name)
	body = attr32(body, unix.IFLA_MASTER, uint32(v.Bridge))
	if v.MTU > 0 {
		body = attr32(body, unix.IFLA_MTU, uint32(v.MTU))
		peer = attr32(peer, unix.IFLA_MTU, uint32(v.MTU))
	}
	info := attrString(nil, unix.IFLA_INFO_KIND, "veth")
	info = attr(
		info, unix.IFLA_INFO_DATA|unix.NLA_F_NESTED,
		attr(nil, vethInfoPeer|unix.NLA_F_NESTED, peer),
	)
	body = attr(body, unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info)
	return Request{
		what: fmt.Sprintf("add veth pair %q, %q", v.Name, v.PeerName), typ: unix.RTM_NEWLINK,
		flags: create, body: body,
	}
}

// AddBridge makes a bridge that is up. Its address is fixed: a bridge without one takes that of its
// ports, and every change of it would invalidate what containers know of their gateway.
func AddBridge(name string, mac net.HardwareAddr, mtu int) Request {
	body := ifinfo(0, unix.IFF_UP, unix.IFF_UP)
	body = attrString(body, unix.IFLA_IFNAME, name)
	body = attr(body, unix.IFLA_ADDRESS, mac)
	if mtu > 0 {
		body = attr32(body, unix.IFLA_MTU, uint32(mtu))
	}
	body = attr(
		body, unix.IFLA_LINKINFO|unix.NLA_F_NESTED, attrString(nil, unix.IFLA_INFO_KIND, "bridge"),
	)
	return Request{
		what: fmt.Sprintf("add bridge %q", name), typ: unix.RTM_NEWLINK, flags: create, body: body,
	}
}

// AddVethPorts makes a pair that joins two bridges of one namespace. SetMaster and SetUp of the
// other end complete it.
func AddVethPorts(name string, bridge int, peer string) Request {
	const vethInfoPeer = 1
	p := attrString(ifinfo(0, 0, 0), unix.IFLA_IFNAME, peer)
	body := attrString(ifinfo(0, unix.IFF_UP, unix.IFF_UP), unix.IFLA_IFNAME, name)
	body = attr32(body, unix.IFLA_MASTER, uint32(bridge))
	info := attrString(nil, unix.IFLA_INFO_KIND, "veth")
	info = attr(
		info, unix.IFLA_INFO_DATA|unix.NLA_F_NESTED, attr(nil, vethInfoPeer|unix.NLA_F_NESTED, p),
	)
	body = attr(body, unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info)
	return Request{
		what: fmt.Sprintf("add veth pair %q, %q", name, peer), typ: unix.RTM_NEWLINK, flags: create,
		body: body,
	}
}

// SetMaster makes an interface a port of a bridge.
func SetMaster(index, bridge int) Request {
	return Request{
		what: fmt.Sprintf("set master of interface %d", index), typ: unix.RTM_NEWLINK,
		body: attr32(ifinfo(index, 0, 0), unix.IFLA_MASTER, uint32(bridge)),
	}
}

// Flags of a port of a bridge (IFLA_BRPORT_* of linux/if_link.h, bridge(8)).
const (
	// Hairpin lets a frame leave by the port it came by.
	Hairpin = 4
	// Isolated keeps a port from exchanging frames with other isolated ports.
	Isolated = 33
)

// SetPortFlag sets a flag of a port.
func SetPortFlag(index int, flag uint16) Request {
	body := binary.NativeEndian.AppendUint32([]byte{unix.AF_BRIDGE, 0, 0, 0}, uint32(index))
	body = append(body, make([]byte, 8)...)
	body = attr(body, unix.IFLA_PROTINFO|unix.NLA_F_NESTED, attr(nil, flag, []byte{1}))
	return Request{
		what: fmt.Sprintf("set flag %d of port %d", flag, index), typ: unix.RTM_SETLINK, body: body,
	}
}

// SetUp brings an interface up.
func SetUp(index int) Request {
	return Request{
		what: fmt.Sprintf("set interface %d up", index), typ: unix.RTM_NEWLINK,
		body: ifinfo(index, unix.IFF_UP, unix.IFF_UP),
	}
}

// SetMAC changes the hardware address of an interface.
func SetMAC(index int, mac net.HardwareAddr) Request {
	return Request{
		what: fmt.Sprintf("set hardware address %s", mac), typ: unix.RTM_NEWLINK,
		body: attr(ifinfo(index, 0, 0), unix.IFLA_ADDRESS, mac),
	}
}

// Delete removes an interface; of a veth pair both ends.
func Delete(index int) Request {
	return Request{
		what: fmt.Sprintf("delete interface %d", index), typ: unix.RTM_DELLINK,
		body: ifinfo(index, 0, 0),
	}
}

// DeleteName is Delete by name.
func DeleteName(name string) Request {
	return Request{
		what: fmt.Sprintf("delete interface %q", name), typ: unix.RTM_DELLINK,
		body: attrString(ifinfo(0, 0, 0), unix.IFLA_IFNAME, name),
	}
}

func familyOf(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func address(index int, p netip.Prefix) []byte {
	var flags byte
	if p.Addr().Is6() {
		// The caller hands out the addresses, so there is no duplicate to detect; detection would
		// delay every start by a second (RFC 4862, 5.4).
		flags = unix.IFA_F_NODAD
	}
	b := []byte{familyOf(p.Addr()), byte(p.Bits()), flags, unix.RT_SCOPE_UNIVERSE}
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = attr(b, unix.IFA_LOCAL, p.Addr().AsSlice())
	return attr(b, unix.IFA_ADDRESS, p.Addr().AsSlice())
}

// AddAddress gives an interface an address. IPv6 addresses are usable at once (no duplicate
// detection).
func AddAddress(index int, p netip.Prefix) Request {
	return Request{
		what: fmt.Sprintf("add address %s", p), typ: unix.RTM_NEWADDR, flags: create,
		body: address(index, p),
	}
}

// DelAddress takes an address from an interface.
func DelAddress(index int, p netip.Prefix) Request {
	return Request{
		what: fmt.Sprintf("delete address %s", p), typ: unix.RTM_DELADDR, body: address(index, p),
	}
}

// Route is a route of the main table.
type Route struct {
	Dst   netip.Prefix // bits 0 for the default route
	Via   netip.Addr   // invalid for a destination on the link
	Index int          // outgoing interface
}

func (r Route) body() []byte {
	scope := byte(unix.RT_SCOPE_LINK)
	if r.Via.IsValid() || r.Dst.Addr().Is6() {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	b := []byte{
		familyOf(r.Dst.Addr()), byte(r.Dst.Bits()), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT,
		scope, unix.RTN_UNICAST, 0, 0, 0, 0,
	}
	if r.Dst.Bits() > 0 {
		b = attr(b, unix.RTA_DST, r.Dst.Addr().AsSlice())
	}
	if r.Via.IsValid() {
		b = attr(b, unix.RTA_GATEWAY, r.Via.AsSlice())
	}
	return attr32(b, unix.RTA_OIF, uint32(r.Index))
}

// AddRoute adds a route.
func AddRoute(r Route) Request {
	return Request{
		what: fmt.Sprintf("add route to %s", r.Dst), typ: unix.RTM_NEWROUTE, flags: create,
		body: r.body(),
	}
}

// ReplaceRoute adds a route in the place of the one to the same destination, if there is one.
func ReplaceRoute(r Route) Request {
	return Request{
		what: fmt.Sprintf("replace route to %s", r.Dst), typ: unix.RTM_NEWROUTE,
		flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, body: r.body(),
	}
}

// DelRoute removes a route.
func DelRoute(r Route) Request {
	return Request{
		what: fmt.Sprintf("delete route to %s", r.Dst), typ: unix.RTM_DELROUTE, body: r.body(),
	}
}

// AddNeighbour makes a permanent neighbour entry.
func AddNeighbour(index int, a netip.Addr, mac net.HardwareAddr) Request {
	b := []byte{familyOf(a), 0, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint16(b, unix.NUD_PERMANENT)
	b = append(b, 0, unix.RTN_UNICAST)
	b = attr(b, unix.NDA_DST, a.AsSlice())
	b = attr(b, unix.NDA_LLADDR, mac)
	return Request{
		what: fmt.Sprintf("add neighbour %s", a), typ: unix.RTM_NEWNEIGH, flags: create, body: b,
	}
}

// Info is what the kernel knows of an interface.
type Info struct {
	Index  int
	Name   string
	Kind   string // "veth", "bridge", ...; empty for a physical one
	Master int    // index of its bridge, or 0
	MAC    net.HardwareAddr
	Stats  Stats
}

// Stats are counters of an interface, as struct rtnl_link_stats64 has them, from the interface's
// point of view.
type Stats struct {
	RxPackets, TxPackets, RxBytes, TxBytes, RxErrors, TxErrors, RxDropped, TxDropped uint64
}

// ByName asks for one interface. The error wraps ENODEV when there is none.
func (s *Socket) ByName(name string) (Info, error) {
	var info Info
	err := s.get(Request{
		what: fmt.Sprintf("look up interface %q", name), typ: unix.RTM_GETLINK,
		body: attrString(ifinfo(0, 0, 0), unix.IFLA_IFNAME, name),
	},
		func(b []byte) { info = parseLink(b) })
	return info, err
}

// Links lists the interfaces.
func (s *Socket) Links() ([]Info, error) {
	var out []Info
	err := s.Dump(Request{
		what: "list interfaces", typ: unix.RTM_GETLINK, body: ifinfo(0, 0, 0),
	}, func(typ uint16, b []byte) {
		if typ == unix.RTM_NEWLINK {
			out = append(out, parseLink(b))
		}
	})
	return out, err
}

func parseLink(b []byte) Info {
	if len(b) < unix.SizeofIfInfomsg {
		return Info{}
	}
	info := Info{Index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	attributes(b[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.IFLA_IFNAME:
			info.Name = cstring(v)
		case unix.IFLA_ADDRESS:
			info.MAC = append(net.HardwareAddr(nil), v...)
		case unix.IFLA_MASTER:
			if len(v) >= 4 {
				info.Master = int(binary.NativeEndian.Uint32(v))
			}
		case unix.IFLA_LINKINFO:
			attributes(v, func(typ uint16, v []byte) {
				if typ == unix.IFLA_INFO_KIND {
					info.Kind = cstring(v)
				}
			})
		case unix.IFLA_STATS64:
			if len(v) >= 8*8 {
				u := func(i int) uint64 { return binary.NativeEndian.Uint64(v[8*i:]) }
				info.Stats = Stats{u(0), u(1), u(2), u(3), u(4), u(5), u(6), u(7)}
			}
		}
	})
	return info
}

func cstring(v []byte) string {
	for i, c := range v {
		if c == 0 {
			return string(v[:i])
		}
	}
	return string(v)
}

// Prefixes lists the destinations of all unicast routes and the networks of all addresses, except
// those of interfaces for which skip says yes.
func (s *Socket) Prefixes(skip func(index int) bool) ([]netip.Prefix, error) {
	var out []netip.Prefix
	// struct rtmsg is 12 bytes: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
	err := s.Dump(Request{
		what: "list routes", typ: unix.RTM_GETROUTE, body: make([]byte, 12),
	}, func(typ uint16, b []byte) {
		if typ != unix.RTM_NEWROUTE || len(b) < 12 || b[7] != unix.RTN_UNICAST {
			return
		}
		var dst netip.Addr
		index := 0
		attributes(b[12:], func(typ uint16, v []byte) {
			switch typ {
			case unix.RTA_DST:
				dst, _ = netip.AddrFromSlice(v)
			case unix.RTA_OIF:
				if len(v) >= 4 {
					index = int(binary.NativeEndian.Uint32(v))
				}
			}
		})
		// A default route has no destination, and so no valid prefix.
		if p := netip.PrefixFrom(dst, int(b[1])); p.IsValid() && !skip(index) {
			out = append(out, p.Masked())
		}
	})
	if err != nil {
		return nil, err
	}
	err = s.Dump(Request{
		what: "list addresses", typ: unix.RTM_GETADDR, body: make([]byte, 8),
	}, func(typ uint16, b []byte) {
		if typ != unix.RTM_NEWADDR || len(b) < 8 || skip(int(binary.NativeEndian.Uint32(b[4:]))) {
			return
		}
		attributes(b[8:], func(typ uint16, v []byte) {
			if typ != unix.IFA_ADDRESS {
				return
			}
			if a, ok := netip.AddrFromSlice(v); ok {
				if p, err := a.Prefix(int(b[1])); err == nil {
					out = append(out, p)
				}
			}
		})
	})
	return out, err
}

// Topology condenses links, addresses, routes and rules of the namespace into a number that is
// equal as long as they are. Counters and ages are left out, and so are IPv6 link-local and
// multicast entries: the kernel makes them on its own account, some time after the rest.
func (s *Socket) Topology() (uint64, error) {
	sum := fnv.New64a()
	dumps := []struct {
		what string
		typ  uint16
		size int
		// Attributes that count; nil for all but cache information.
		only map[uint16]bool
	}{
		{"interfaces", unix.RTM_GETLINK, unix.SizeofIfInfomsg, map[uint16]bool{
			unix.IFLA_IFNAME: true, unix.IFLA_ADDRESS: true, unix.IFLA_MTU: true,
			unix.IFLA_MASTER: true, unix.IFLA_LINK: true, unix.IFLA_IFALIAS: true,
			unix.IFLA_PROMISCUITY: true,
		}},
		{"addresses", unix.RTM_GETADDR, unix.SizeofIfAddrmsg, nil},
		{"routes", unix.RTM_GETROUTE, unix.SizeofRtMsg, nil},
		{"rules", unix.RTM_GETRULE, unix.SizeofRtMsg, nil},
	}
	for _, d := range dumps {
		cache := uint16(unix.IFA_CACHEINFO)
		if d.typ == unix.RTM_GETROUTE {
			cache = unix.RTA_CACHEINFO
		}
		err := s.Dump(Request{
			what: "list " + d.what, typ: d.typ, body: make([]byte, d.size),
		}, func(_ uint16, b []byte) {
			if len(b) < d.size {
				return
			}
			automatic := false
			if d.typ == unix.RTM_GETADDR || d.typ == unix.RTM_GETROUTE {
				attributes(b[d.size:], func(typ uint16, v []byte) {
					// IFA_ADDRESS and RTA_DST have the same number.
					automatic = automatic || typ == unix.RTA_DST && b[0] == unix.AF_INET6 &&
						len(v) == 16 && (v[0] == 0xff || v[0] == 0xfe && v[1]&0xc0 == 0x80)
				})
			}
			if automatic {
				return
			}
			// Behind their first eight bytes links and routes have flags that say whether there is
			// a carrier just now.
			sum.Write(b[:min(8, d.size)])
			attributes(b[d.size:], func(typ uint16, v []byte) {
				if d.only[typ] || d.only == nil && typ != cache {
					sum.Write([]byte{byte(typ), byte(len(v))})
					sum.Write(v)
				}
			})
		})
		if err != nil {
			return 0, err
		}
	}
	return sum.Sum64(), nil
}
