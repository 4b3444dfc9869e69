package userland

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ip shows links, addresses and routes (ip(8)): ip [-4|-6] addr|link|route [show] [dev NAME]. It
// changes nothing: the engine owns a container's network.
func ip(_ context.Context, c *Call) int {
	o, words, status, ok := c.options("+46o", "oneline=o")
	if !ok {
		return status
	}
	if o.has('o') {
		return c.usagef("unknown option %q", "-o")
	}
	family := netlink.FAMILY_ALL
	switch o.last("46") {
	case '4':
		family = netlink.FAMILY_V4
	case '6':
		family = netlink.FAMILY_V6
	}
	if len(words) == 0 {
		return c.usagef("no object given (want addr, link or route)")
	}
	object := ""
	for _, full := range []string{"address", "link", "route"} {
		if strings.HasPrefix(full, words[0]) {
			object = full
			break
		}
	}
	if object == "" {
		return c.usagef("object %q is none of addr, link, route", words[0])
	}
	dev := ""
	rest := words[1:]
	for i := 0; i < len(rest); i++ {
		switch w := rest[i]; {
		case i == 0 && slices.Contains([]string{"show", "list", "ls", "sh", "s", "l"}, w):
		case w == "dev" && i+1 < len(rest):
			i++
			dev = rest[i]
		case object != "route" && dev == "" && i == len(rest)-1 &&
			!slices.Contains([]string{"add", "del", "set", "flush"}, w):
			dev = w
		default:
			return c.usagef("%s: %q is not supported (only show [dev NAME] is)", object, w)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return c.fault("links", err)
	}
	slices.SortFunc(links, func(a, b netlink.Link) int { return a.Attrs().Index - b.Attrs().Index })
	if dev != "" &&
		!slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == dev }) {
		return c.errorf("device %q does not exist", dev)
	}
	t := &ipTable{c: c, links: links, family: family}
	if object == "route" {
		err = t.routes(dev)
	} else {
		err = t.addresses(dev, object == "address")
	}
	if err != nil {
		return c.fault(object, err)
	}
	return exitOK
}

type ipTable struct {
	c      *Call
	links  []netlink.Link
	family int
}

func (t *ipTable) name(index int) string {
	for _, l := range t.links {
		if l.Attrs().Index == index {
			return l.Attrs().Name
		}
	}
	return fmt.Sprintf("if%d", index)
}

func (t *ipTable) addresses(dev string, withAddresses bool) error {
	w := t.c.buffered()
	for _, l := range t.links {
		a := l.Attrs()
		if dev != "" && a.Name != dev {
			continue
		}
		var addrs []netlink.Addr
		if withAddresses {
			var err error
			if addrs, err = netlink.AddrList(l, t.family); err != nil {
				return err
			}
			if len(addrs) == 0 && t.family != netlink.FAMILY_ALL {
				continue
			}
		}
		name := a.Name
		if a.ParentIndex > 0 {
			name += fmt.Sprintf("@%s", t.name(a.ParentIndex))
		}
		fmt.Fprintf(w, "%d: %s: <%s> mtu %d", a.Index, name, linkFlags(a.RawFlags), a.MTU)
		if a.MasterIndex > 0 {
			fmt.Fprintf(w, " master %s", t.name(a.MasterIndex))
		}
		fmt.Fprintf(w, " state %s", strings.ToUpper(a.OperState.String()))
		if a.TxQLen > 0 {
			fmt.Fprintf(w, " qlen %d", a.TxQLen)
		}
		kind := "ether"
		mac, brd := a.HardwareAddr.String(), "ff:ff:ff:ff:ff:ff"
		if a.RawFlags&unix.IFF_LOOPBACK != 0 {
			kind, mac, brd = "loopback", "00:00:00:00:00:00", "00:00:00:00:00:00"
		} else if a.EncapType != "" {
			kind = a.EncapType
		}
		if mac == "" {
			fmt.Fprintf(w, "\n    link/%s\n", kind)
		} else {
			fmt.Fprintf(w, "\n    link/%s %s brd %s\n", kind, mac, brd)
		}
		for _, ad := range addrs {
			writeAddr(w, ad)
		}
	}
	return w.Flush()
}

func writeAddr(w interface{ WriteString(string) (int, error) }, a netlink.Addr) {
	family := "inet"
	if a.IP.To4() == nil {
		family = "inet6"
	}
	s := fmt.Sprintf("    %s %s", family, a.IPNet)
	if a.Peer != nil && !a.Peer.IP.Equal(a.IP) {
		s = fmt.Sprintf("    %s %s peer %s", family, a.IP, a.Peer)
	}
	if len(a.Broadcast) > 0 && !a.Broadcast.IsUnspecified() {
		s += " brd " + a.Broadcast.String()
	}
	s += " scope " + scopeName(a.Scope)
	if a.Flags&unix.IFA_F_SECONDARY != 0 && family == "inet" {
		s += " secondary"
	}
	if a.Label != "" {
		s += " " + a.Label
	}
	lifetime := func(n int) string {
		if n <= 0 || uint32(n) == ^uint32(0) {
			return "forever"
		}
		return fmt.Sprintf("%dsec", n)
	}
	w.WriteString(
		fmt.Sprintf(
			"%s\n       valid_lft %s preferred_lft %s\n", s, lifetime(a.ValidLft),
			lifetime(a.PreferedLft),
		),
	)
}

// scopeName is a scope's name as iproute2 has it (rtnetlink(7)).
func scopeName(scope int) string {
	switch scope {
	case unix.RT_SCOPE_UNIVERSE:
		return "global"
	case unix.RT_SCOPE_SITE:
		return "site"
	case unix.RT_SCOPE_LINK:
		return "link"
	case unix.RT_SCOPE_HOST:
		return "host"
	case unix.RT_SCOPE_NOWHERE:
		return "nowhere"
	}
	return fmt.Sprint(scope)
}

// linkFlags are the flags of netdevice(7), as ip shows them.
func linkFlags(f uint32) string {
	var out []string
	if f&unix.IFF_UP != 0 && f&unix.IFF_RUNNING == 0 {
		out = append(out, "NO-CARRIER")
	}
	for _, n := range []struct {
		bit  uint32
		name string
	}{
		{unix.IFF_LOOPBACK, "LOOPBACK"}, {unix.IFF_BROADCAST, "BROADCAST"},
		{unix.IFF_POINTOPOINT, "POINTOPOINT"}, {unix.IFF_MULTICAST, "MULTICAST"},
		{unix.IFF_NOARP, "NOARP"}, {unix.IFF_ALLMULTI, "ALLMULTI"}, {unix.IFF_PROMISC, "PROMISC"},
		{unix.IFF_MASTER, "MASTER"}, {unix.IFF_SLAVE, "SLAVE"},
		{unix.IFF_UP, "UP"}, {unix.IFF_LOWER_UP, "LOWER_UP"},
	} {
		if f&n.bit != 0 {
			out = append(out, n.name)
		}
	}
	return strings.Join(out, ",")
}

func (t *ipTable) routes(dev string) error {
	family := t.family
	if family == netlink.FAMILY_ALL {
		family = netlink.FAMILY_V4
	}
	list, err := netlink.RouteListFiltered(
		family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE,
	)
	if err != nil {
		return err
	}
	w := t.c.buffered()
	for _, r := range list {
		if dev != "" && t.name(r.LinkIndex) != dev {
			continue
		}
		dst := "default"
		if r.Dst != nil {
			if ones, bits := r.Dst.Mask.Size(); ones == bits {
				dst = r.Dst.IP.String()
			} else if ones > 0 {
				dst = r.Dst.String()
			}
		}
		if k := r.Type; k != unix.RTN_UNICAST && k != 0 {
			dst = map[int]string{
				unix.RTN_LOCAL: "local", unix.RTN_BLACKHOLE: "blackhole",
				unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit",
				unix.RTN_BROADCAST: "broadcast", unix.RTN_MULTICAST: "multicast",
			}[k] + " " + dst
		}
		fmt.Fprint(w, dst)
		hop := func(gw net.IP, index int) {
			if gw != nil {
				fmt.Fprintf(w, " via %s", gw)
			}
			if index > 0 {
				fmt.Fprintf(w, " dev %s", t.name(index))
			}
		}
		hop(r.Gw, r.LinkIndex)
		for _, m := range r.MultiPath {
			fmt.Fprint(w, " nexthop")
			hop(m.Gw, m.LinkIndex)
		}
		if p := r.Protocol.String(); p != "" && p != "boot" {
			fmt.Fprintf(w, " proto %s", p)
		}
		if family == netlink.FAMILY_V4 && int(r.Scope) != unix.RT_SCOPE_UNIVERSE {
			fmt.Fprintf(w, " scope %s", scopeName(int(r.Scope)))
		}
		if r.Src != nil {
			fmt.Fprintf(w, " src %s", r.Src)
		}
		if r.Priority > 0 {
			fmt.Fprintf(w, " metric %d", r.Priority)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
