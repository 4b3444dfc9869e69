package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"strake/network/firewall"
	"strake/network/link"
)

// holder keeps a host port for a container by a socket bound to it, so that no other program takes
// the port while packets to it go elsewhere, and ss(8) shows it. Packets never reach the socket:
// they are translated before, with one exception, those to [::1]. A socket that can be asked for
// these relays them.
//
// The socket ends with this process; the rule in the kernel does not. The next Open binds it again.
type holder struct {
	// -1 without a socket of its own: the relay has it, or the kernel has no such protocol
	fd    int
	port  uint16 // the port that it is bound to
	relay interface{ close() error }
}

// Close gives the port up.
func (h *holder) Close() error {
	if h.relay != nil {
		return h.relay.close()
	}
	if h.fd < 0 {
		return nil
	}
	return unix.Close(h.fd)
}

func (m *Manager) closeHolders(ep *endpoint) error {
	var errs []error
	for _, h := range ep.holders {
		errs = append(errs, h.Close())
	}
	ep.holders = nil
	return errors.Join(errs...)
}

// publish resolves wishes to bindings and takes hold of their ports. On failure it holds none.
func (m *Manager) publish(
	ep *endpoint, wishes []PortBinding,
) (bound []PortBinding, holders []*holder, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, h := range holders {
			err = errors.Join(err, h.Close())
		}
		bound, holders = nil, nil
	}()
	for _, w := range wishes {
		addrs := []netip.Addr{w.HostIP}
		if !w.HostIP.IsValid() {
			addrs = defaultHostAddrs(ep.net.opts.hostAddr, ep.rec.IPv6.IsValid())
		}
		// What is sent to [::1] is relayed, which IPv4 does as well.
		if w.HostIP.Is6() && w.HostIP != netip.IPv6Loopback() && !ep.rec.IPv6.IsValid() {
			return bound, holders, fmt.Errorf(
				"port %d/%s on %s: the network has no IPv6: %w", w.ContainerPort, w.Proto, w.HostIP,
				errdefs.ErrInvalidArgument,
			)
		}
		// Which port is free for one family is only known by binding; the other family may have it
		// taken.
		for attempt := 0; ; attempt++ {
			got, held, err := m.publishOne(w, addrs, ep.target)
			if err == nil {
				bound, holders = append(bound, got...), append(holders, held...)
				for _, b := range got {
					if !w.HostIP.IsValid() {
						if h := m.holdLocalhost(ep, b); h != nil {
							holders = append(holders, h)
						}
					}
				}
				break
			}
			if w.HostPort != 0 || attempt == 20 || !errdefs.IsAlreadyExists(err) {
				return bound, holders, err
			}
		}
	}
	return bound, holders, nil
}

// defaultHostAddrs are the addresses to publish on when nobody says.
func defaultHostAddrs(chosen netip.Addr, v6 bool) []netip.Addr {
	if chosen.IsValid() {
		return []netip.Addr{chosen}
	}
	if v6 {
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	return []netip.Addr{netip.IPv4Unspecified()}
}

// publishOne takes hold of one port on several addresses.
func (m *Manager) publishOne(
	w PortBinding, addrs []netip.Addr, target func(PortBinding) netip.AddrPort,
) (bound []PortBinding, holders []*holder, err error) {
	port := w.HostPort
	for _, a := range addrs {
		b := PortBinding{w.Proto, w.ContainerPort, a, port}
		h, err := m.hold(b, target)
		if err != nil {
			for _, h := range holders {
				err = errors.Join(err, h.Close())
			}
			return nil, nil, err
		}
		holders = append(holders, h)
		if port == 0 {
			port = h.port
			b.HostPort = port
		}
		bound = append(bound, b)
	}
	return bound, holders, nil
}

// target is where connections to a port are to end, for a relay.
func (ep *endpoint) target(p PortBinding) netip.AddrPort {
	if p.HostIP.Is6() && ep.rec.IPv6.IsValid() {
		return netip.AddrPortFrom(ep.rec.IPv6.Addr(), p.ContainerPort)
	}
	return netip.AddrPortFrom(ep.rec.IPv4.Addr(), p.ContainerPort)
}

// hold takes hold of one address and port of the host.
func (m *Manager) hold(p PortBinding, target func(PortBinding) netip.AddrPort) (*holder, error) {
	var h *holder
	err := link.Enter(m.cfg.NetNS, func() (err error) {
		h, err = bind(p)
		return err
	})
	switch {
	case err == nil:
	case errors.Is(err, unix.EADDRINUSE):
		return nil, m.taken(p)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, fmt.Errorf(
			"publish port %s: %s is not an address of this host: %w", p, p.HostIP,
			errdefs.ErrInvalidArgument,
		)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return nil, fmt.Errorf(
			"publish port %s: this host has no IPv6: %w", p, errdefs.ErrFailedPrecondition,
		)
	default:
		return nil, fmt.Errorf("publish port %s: %w", p, err)
	}
	if p.Proto != SCTP && p.HostIP.Is6() {
		if err := m.relay(h, p.Proto, target(p)); err != nil {
			return nil, fmt.Errorf("publish port %s: %w", p, err)
		}
	}
	return h, nil
}

// holdLocalhost takes hold of a port of [::1] for a container without IPv6, as far as it is free:
// many programs take localhost for ::1 and do not try 127.0.0.1 after it. Nil when there is nothing
// to do.
func (m *Manager) holdLocalhost(ep *endpoint, p PortBinding) *holder {
	if ep.rec.IPv6.IsValid() || p.Proto == SCTP || p.HostIP != netip.IPv4Unspecified() {
		return nil
	}
	p.HostIP = netip.IPv6Loopback()
	var h *holder
	err := link.Enter(m.cfg.NetNS, func() (err error) {
		h, err = bind(p)
		return err
	})
	if err != nil || m.relay(h, p.Proto, ep.target(p)) != nil {
		return nil
	}
	return h
}

// relay starts the relay of a holder; on failure the holder is closed.
func (m *Manager) relay(h *holder, proto firewall.Proto, to netip.AddrPort) error {
	fd := h.fd
	h.fd = -1
	if proto == UDP {
		r, err := startDatagramRelay(fd, func() (net.Conn, error) {
			return m.names.dial("udp", to.String())
		})
		if err == nil {
			h.relay = r
		}
		return err
	}
	r, err := startRelay(fd, func() (net.Conn, error) { return m.names.dial("tcp", to.String()) })
	if err == nil {
		h.relay = r
	}
	return err
}

// bind binds a socket in the calling thread's namespace. A TCP socket listens as well: only then
// does bind(2) by others fail whatever options they set, and no connection in TIME_WAIT keeps us
// from binding.
func bind(p PortBinding) (*holder, error) {
	family, typ := unix.AF_INET, unix.SOCK_STREAM
	if p.HostIP.Is6() {
		family = unix.AF_INET6
	}
	if p.Proto == UDP {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(p.Proto))
	if err != nil {
		if p.Proto == SCTP {
			// a kernel without SCTP sockets has nobody to keep the port from
			return &holder{fd: -1}, nil
		}
		return nil, err
	}
	keep := false
	defer func() {
		if !keep {
			unix.Close(fd)
		}
	}()
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return nil, err
		}
	}
	if p.Proto == TCP {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return nil, err
		}
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(p.HostPort), Addr: as4(p.HostIP)}
	if family == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Port: int(p.HostPort), Addr: p.HostIP.As16()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return nil, err
	}
	if p.Proto == TCP {
		if err := unix.Listen(fd, 16); err != nil {
			return nil, err
		}
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	h := &holder{fd: fd}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		h.port = uint16(name.Port)
	case *unix.SockaddrInet6:
		h.port = uint16(name.Port)
	}
	keep = true
	return h, nil
}

// taken is the error for a port that somebody has, with as much as can be said of who.
func (m *Manager) taken(p PortBinding) error {
	who := m.portOwner(p)
	if who == "" {
		who = "another program"
	}
	return fmt.Errorf("port %s is already in use by %s: %w", p, who, errdefs.ErrAlreadyExists)
}

func (m *Manager) portOwner(p PortBinding) string {
	m.mu.Lock()
	for _, ep := range m.endpoints {
		for _, q := range ep.rec.Ports {
			if q.Proto == p.Proto && q.HostPort == p.HostPort && overlap(q.HostIP, p.HostIP) {
				name := ep.rec.Name
				if name == "" {
					name = ep.rec.ContainerID
				}
				m.mu.Unlock()
				return fmt.Sprintf("container %q", name)
			}
		}
	}
	m.mu.Unlock()
	var inode uint32
	// Without an owner the error is still true, only less helpful.
	_ = link.Enter(m.cfg.NetNS, func() (err error) {
		inode, err = socketInode(p)
		return err
	})
	if inode == 0 {
		return ""
	}
	return processOf(inode)
}

// overlap says whether two addresses cannot have the same port at the same time.
func overlap(a, b netip.Addr) bool {
	return a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

// socketInode asks the kernel for the socket that has the port, in the calling thread's namespace
// (sock_diag(7)).
func socketInode(p PortBinding) (uint32, error) {
	h, err := netlink.NewHandle(unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var socks []*netlink.Socket
		if p.Proto == UDP {
			socks, err = h.SocketDiagUDP(family)
		} else {
			socks, err = h.SocketDiagTCP(family)
		}
		if err != nil {
			return 0, err
		}
		const listening = 10 // TCP_LISTEN
		for _, s := range socks {
			addr, _ := netip.AddrFromSlice(s.ID.Source)
			addr = addr.Unmap()
			// A socket on :: without IPV6_V6ONLY takes the port of 0.0.0.0 as well.
			clash := overlap(addr, p.HostIP) || addr.IsUnspecified() && family == unix.AF_INET6
			if s.ID.SourcePort == p.HostPort && clash && (p.Proto == UDP || s.State == listening) {
				return s.INode, nil
			}
		}
	}
	return 0, nil
}

// processOf names the process that has a socket open.
func processOf(inode uint32) string {
	want := "socket:[" + strconv.FormatUint(uint64(inode), 10) + "]"
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != want {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		comm, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return "process " + pid
		}
		return fmt.Sprintf("process %q (pid %s)", strings.TrimSpace(string(comm)), pid)
	}
	return ""
}

// flowFilter selects connection tracking entries (implements netlink.CustomConntrackFilter).
type flowFilter func(f *netlink.ConntrackFlow) bool

// MatchConntrackFlow says whether the flow is to be deleted.
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return f(flow) }

// forgetFlows deletes what connection tracking knows of container addresses, so that no answer to a
// former holder reaches the next.
func (m *Manager) forgetFlows(addrs ...netip.Addr) error {
	ours := map[netip.Addr]bool{}
	var v4, v6 bool
	for _, a := range addrs {
		ours[a] = a.IsValid()
		v4, v6 = v4 || a.Is4(), v6 || a.Is6()
	}
	return m.deleteFlows(v4, v6, func(f *netlink.ConntrackFlow) bool {
		from, _ := netip.AddrFromSlice(f.Forward.SrcIP)
		answers, _ := netip.AddrFromSlice(f.Reverse.SrcIP)
		return ours[from.Unmap()] || ours[answers.Unmap()]
	})
}

// forgetPublished deletes the flows to published UDP ports. TCP needs none of it: a connection ends
// by itself and a new one is looked up anew.
func (m *Manager) forgetPublished(ports []firewall.Port) error {
	ours := map[uint16]bool{}
	var v4, v6 bool
	for _, p := range ports {
		if p.Proto == UDP {
			ours[p.HostPort] = true
			v4, v6 = v4 || p.HostAddr.Is4(), v6 || p.HostAddr.Is6()
		}
	}
	if len(ours) == 0 {
		return nil
	}
	return m.deleteFlows(v4, v6, func(f *netlink.ConntrackFlow) bool {
		return f.Forward.Protocol == unix.IPPROTO_UDP && ours[f.Forward.DstPort]
	})
}

func (m *Manager) deleteFlows(v4, v6 bool, match flowFilter) error {
	return link.Enter(m.cfg.NetNS, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("connection tracking: %w", err)
		}
		defer h.Close()
		for family, wanted := range map[netlink.InetFamily]bool{
			unix.AF_INET: v4, unix.AF_INET6: v6,
		} {
			if !wanted {
				continue
			}
			// ENOENT: an entry ended between the listing and its deletion.
			if _, err := h.ConntrackDeleteFilters(
				netlink.ConntrackTable, family, match,
			); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("connection tracking: %w", err)
			}
		}
		return nil
	})
}

func as4(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}
