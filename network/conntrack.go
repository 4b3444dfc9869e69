package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"strake/network/firewall"
)

// flowFilter selects connection tracking entries (implements netlink.CustomConntrackFilter).
type flowFilter func(f *netlink.ConntrackFlow) bool

// MatchConntrackFlow says whether the flow is to be deleted.
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return f(flow) }

// forgetFlows deletes what connection tracking knows of container addresses, so that no answer to a
// former holder reaches the next. Invalid addresses are passed over.
func (h *host) forgetFlows(addrs ...netip.Addr) error {
	ours := map[netip.Addr]bool{}
	var v4, v6 bool
	for _, a := range addrs {
		ours[a] = a.IsValid()
		v4, v6 = v4 || a.Is4(), v6 || a.Is6()
	}
	return h.deleteFlows(v4, v6, func(f *netlink.ConntrackFlow) bool {
		from, _ := netip.AddrFromSlice(f.Forward.SrcIP)
		answers, _ := netip.AddrFromSlice(f.Reverse.SrcIP)
		return ours[from.Unmap()] || ours[answers.Unmap()]
	})
}

// forgetPublished deletes the flows to published UDP ports. TCP needs none of it: a connection ends
// by itself and a new one is looked up anew.
func (h *host) forgetPublished(ports []firewall.Port) error {
	ours := map[uint16]bool{}
	var v4, v6 bool
	for _, p := range ports {
		if p.Proto == firewall.UDP {
			ours[p.HostPort] = true
			v4, v6 = v4 || p.HostAddr.Is4(), v6 || p.HostAddr.Is6()
		}
	}
	if len(ours) == 0 {
		return nil
	}
	return h.deleteFlows(v4, v6, func(f *netlink.ConntrackFlow) bool {
		return f.Forward.Protocol == unix.IPPROTO_UDP && ours[f.Forward.DstPort]
	})
}

func (h *host) deleteFlows(v4, v6 bool, match flowFilter) error {
	return h.enter(func() error {
		handle, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("connection tracking: %w", err)
		}
		defer handle.Close()
		for family, wanted := range map[netlink.InetFamily]bool{
			unix.AF_INET: v4, unix.AF_INET6: v6,
		} {
			if !wanted {
				continue
			}
			// ENOENT: an entry ended between the listing and its deletion.
			if _, err := handle.ConntrackDeleteFilters(
				netlink.ConntrackTable, family, match,
			); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("connection tracking: %w", err)
			}
		}
		return nil
	})
}
