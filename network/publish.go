package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/network/firewall"
	"strake/network/place"
)

// publisher reserves host ports for containers.
type publisher struct {
	host *host
	reg  *registry
	// dial connects from the host's namespace.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// relayPatience bounds how long a relay waits for a container to accept a connection.
const relayPatience = 5 * time.Second

// portAttempts bounds how often the kernel is asked for a port that is free on several addresses.
// Which port is free for one family is only known by binding; the other family may have it taken.
const portAttempts = 20

// publish resolves requested ports to bindings and reserves them. On failure it holds none. A port
// that is taken is a *PortInUseError.
func (p *publisher) publish(
	ep *endpoint, ports []place.Port,
) (bound []binding, held []*reservation, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(held))
			bound, held = nil, nil
		}
	}()
	for _, w := range ports {
		addrs := []netip.Addr{w.HostIP}
		if !w.HostIP.IsValid() {
			addrs = defaultHostAddrs(ep.net.opts.hostAddr, ep.rec.IPv6.IsValid())
		}
		// What is sent to [::1] is relayed, which IPv4 does as well.
		if w.HostIP.Is6() && w.HostIP != netip.IPv6Loopback() && !ep.rec.IPv6.IsValid() {
			return bound, held, fmt.Errorf(
				"port %d/%s on %s: the network has no IPv6: %w", w.ContainerPort,
				protoOf(w.Proto), w.HostIP, errdefs.ErrInvalidArgument,
			)
		}
		got, res, err := p.publishOne(ep, w, addrs)
		bound, held = append(bound, got...), append(held, res...)
		if err != nil {
			return bound, held, err
		}
		for _, b := range got {
			if w.HostIP.IsValid() {
				continue
			}
			if r := p.reserveLocalhost(ep, b); r != nil {
				held = append(held, r)
			}
		}
	}
	return bound, held, nil
}

// publishOne reserves the first free port of a range on all of addrs.
func (p *publisher) publishOne(
	ep *endpoint, w place.Port, addrs []netip.Addr,
) ([]binding, []*reservation, error) {
	port, last := uint32(w.HostPort), uint32(max(w.HostPort, w.HostPortEnd))
	for attempt := 1; ; attempt++ {
		want := binding{protoOf(w.Proto), w.ContainerPort, netip.Addr{}, uint16(port)}
		got, res, taken, err := p.reserveAll(ep, want, addrs)
		if err == nil {
			return got, res, nil
		}
		inUse := (*PortInUseError)(nil)
		if !errors.As(err, &inUse) {
			return nil, nil, err
		}
		switch {
		case port == 0 && attempt < portAttempts:
		case port != 0 && port < last:
			port++
		default:
			p.nameOwner(taken, inUse)
			return nil, nil, err
		}
	}
}

// defaultHostAddrs are the addresses to publish on where the request names none.
func defaultHostAddrs(chosen netip.Addr, v6 bool) []netip.Addr {
	if chosen.IsValid() {
		return []netip.Addr{chosen}
	}
	if v6 {
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	return []netip.Addr{netip.IPv4Unspecified()}
}

// reserveAll reserves one port on several addresses, or on none; then taken is the binding that
// failed.
func (p *publisher) reserveAll(ep *endpoint, want binding, addrs []netip.Addr) (
	bound []binding, held []*reservation, taken binding, err error,
) {
	for _, a := range addrs {
		want.HostIP = a
		r, err := p.reserve(want, ep.target(want))
		if err != nil {
			return nil, nil, want, errors.Join(err, closeAll(held))
		}
		held = append(held, r)
		if want.HostPort == 0 {
			want.HostPort = r.port
		}
		bound = append(bound, want)
	}
	return bound, held, binding{}, nil
}

// reserve takes one address and port of the host. Connections that reach the socket go to target.
func (p *publisher) reserve(b binding, target netip.AddrPort) (*reservation, error) {
	r, err := p.bind(b)
	switch {
	case err == nil:
	case errors.Is(err, unix.EADDRINUSE):
		return nil, &PortInUseError{Port: b.String()}
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, fmt.Errorf(
			"publish port %s: %s is not an address of this host: %w", b, b.HostIP,
			errdefs.ErrInvalidArgument,
		)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return nil, fmt.Errorf(
			"publish port %s: this host has no IPv6: %w", b, errdefs.ErrFailedPrecondition,
		)
	default:
		return nil, fmt.Errorf("publish port %s: %w", b, err)
	}
	if b.Proto != firewall.SCTP && b.HostIP.Is6() {
		if err := p.relay(r, b.Proto, target); err != nil {
			return nil, fmt.Errorf("publish port %s: %w", b, err)
		}
	}
	return r, nil
}

// bind binds a socket in the host's namespace.
func (p *publisher) bind(b binding) (r *reservation, err error) {
	err = p.host.enter(func() (err error) {
		r, err = bind(b)
		return err
	})
	return r, err
}

// reserveLocalhost takes a port of [::1] for a container without IPv6, if it is free: many programs
// take localhost for ::1 and do not try 127.0.0.1 after it. Nil when there is nothing to do.
func (p *publisher) reserveLocalhost(ep *endpoint, b binding) *reservation {
	if ep.rec.IPv6.IsValid() || b.Proto == firewall.SCTP || b.HostIP != netip.IPv4Unspecified() {
		return nil
	}
	b.HostIP = netip.IPv6Loopback()
	r, err := p.bind(b)
	if err != nil || p.relay(r, b.Proto, ep.target(b)) != nil {
		return nil
	}
	return r
}

// relay starts the relay of a reservation; on failure the reservation is closed.
func (p *publisher) relay(r *reservation, proto firewall.Proto, to netip.AddrPort) (err error) {
	fd := r.fd
	r.fd = -1
	dial := func() (net.Conn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), relayPatience)
		defer cancel()
		return p.dial(ctx, proto.String(), to.String())
	}
	if proto == firewall.UDP {
		r.relay, err = startDatagramRelay(fd, dial)
	} else {
		r.relay, err = startRelay(fd, dial)
	}
	if err != nil {
		r.relay = nil // not an interface that holds a nil pointer
	}
	return err
}

// restore reserves a recorded port again after a start of this process. Without an error the
// reservation of [::1] that belongs to it may come second.
func (p *publisher) restore(ep *endpoint, b binding) ([]*reservation, error) {
	r, err := p.reserve(b, ep.target(b))
	if err != nil {
		if inUse := (*PortInUseError)(nil); errors.As(err, &inUse) {
			inUse.By = "another program"
		}
		return nil, err
	}
	if local := p.reserveLocalhost(ep, b); local != nil {
		return []*reservation{r, local}, nil
	}
	return []*reservation{r}, nil
}

func closeAll(held []*reservation) error {
	var errs []error
	for _, r := range held {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

// protoOf reads the name of a protocol that Validate has accepted.
func protoOf(name string) firewall.Proto {
	switch name {
	case place.UDP:
		return firewall.UDP
	case place.SCTP:
		return firewall.SCTP
	}
	return firewall.TCP
}
