package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"strake/network/firewall"
	"strake/network/place"
)

// endpoint is a container's attachment to a network.
type endpoint struct {
	rec     endpointRecord // constant
	net     *network
	sandbox *sandbox
	veth    vethPair
	held    []*reservation // of Ports; guarded by sandbox.mu
}

// target is where connections to a port end, for a relay.
func (ep *endpoint) target(b binding) netip.AddrPort {
	if b.HostIP.Is6() && ep.rec.IPv6.IsValid() {
		return netip.AddrPortFrom(ep.rec.IPv6.Addr(), b.ContainerPort)
	}
	return netip.AddrPortFrom(ep.rec.IPv4.Addr(), b.ContainerPort)
}

// filter is the nftables table's view of the endpoint's ports.
func (ep *endpoint) filter() []firewall.Port {
	var out []firewall.Port
	for _, b := range ep.rec.Ports {
		to := ep.rec.IPv4.Addr()
		if b.HostIP.Is6() {
			to = ep.rec.IPv6.Addr()
		}
		if to.IsValid() {
			out = append(
				out,
				firewall.Port{
					Proto: b.Proto, HostAddr: b.HostIP, HostPort: b.HostPort,
					To: netip.AddrPortFrom(to, b.ContainerPort),
				},
			)
		}
	}
	return out
}

// attachment is what the caller of Attach gets to see.
func (ep *endpoint) attachment() *Attachment {
	a := &Attachment{
		EndpointID: ep.rec.ID, NetworkID: ep.rec.NetworkID, NetNS: ep.sandbox.ns,
		NetNSPath: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ep.sandbox.ns.Fd()),
		Interface: ep.veth.name, IPv4: ep.veth.v4, IPv6: ep.veth.v6,
		MAC: append(net.HardwareAddr(nil), ep.veth.mac...),
	}
	for _, b := range ep.rec.Ports {
		a.Ports = append(a.Ports, place.Bound{
			Proto: b.Proto.String(), ContainerPort: b.ContainerPort, HostIP: b.HostIP,
			HostPort: b.HostPort,
		})
	}
	for _, gw := range ep.net.gateways() {
		if gw.Is4() {
			a.Gateway4 = gw
		} else {
			a.Gateway6 = gw
		}
	}
	return a
}

// endpoints registers attachments whose interfaces are in place, and takes them back: records,
// ports, names.
type endpoints struct {
	cfg       *Config
	host      *host
	store     *store
	reg       *registry
	filter    *packetFilter
	names     *nameServer
	publisher *publisher
}

// register makes an interface of a container an endpoint. On failure nothing of it stays.
// Precondition: sb.mu is held.
func (e *endpoints) register(
	sb *sandbox, n *network, req Request, veth vethPair,
) (*endpoint, error) {
	info, err := e.host.rt.ByName(veth.host)
	if err != nil {
		return nil, err
	}
	ep := &endpoint{net: n, sandbox: sb, veth: veth, rec: endpointRecord{
		Version: recordVersion, ID: req.EndpointID, Owner: sb.owner,
		ContainerID: req.ContainerID, NetworkID: n.rec.ID, Name: req.Name,
		Names: callable(req), DNS: req.DNS, IPv4: veth.v4, IPv6: veth.v6, MAC: veth.mac.String(),
		Host: veth.host, Interface: veth.name, Cookie: sb.cookie, Recycling: req.Recycling,
		Place: len(sb.endpoints), GatewayPriority: req.GatewayPriority,
		Baseline: statsOf(info.Stats),
	}}
	if ep.rec.Ports, ep.held, err = e.publisher.publish(ep, req.Ports); err != nil {
		return nil, err
	}
	e.cfg.Fault("attach: record")
	err = e.store.quick(endpointFile(ep.rec.ID), ep.rec)
	if err == nil {
		err = e.reg.addEndpoint(ep)
	}
	if err == nil && len(ep.rec.Ports) > 0 {
		err = e.openPorts(ep, info.Index)
	}
	if err != nil {
		return nil, errors.Join(
			err, e.closeReservations(ep), e.store.remove(endpointFile(ep.rec.ID)),
		)
	}
	sb.endpoints = append(sb.endpoints, ep)
	e.names.add(ep)
	e.cfg.Fault("attach: done")
	return ep, nil
}

// openPorts lets packets to the published ports through. index is that of the host's end of the
// pair. On failure the endpoint is registered no more.
func (e *endpoints) openPorts(ep *endpoint, index int) error {
	e.cfg.Fault("attach: filter")
	s := firewall.State{Ports: ep.filter()}
	err := e.host.hairpin(index)
	if err == nil {
		err = e.filter.update(firewall.State{}, s)
	}
	if err == nil {
		// A flow that began before the port was published would go on past the new rule.
		err = e.host.forgetPublished(s.Ports)
	}
	if err == nil {
		return nil
	}
	e.reg.dropEndpoint(ep.rec.ID)
	return errors.Join(err, e.filter.update(s, firewall.State{}))
}

// restore registers a recorded endpoint again after a start of this process.
func (e *endpoints) restore(ep *endpoint) {
	for _, b := range ep.rec.Ports {
		held, err := e.publisher.restore(ep, b)
		if err != nil {
			// While no process held it, another program took the port. Packets still go to the
			// container: the rule stands before any socket.
			e.cfg.Logger.Warn(
				"published port is taken", "port", b.String(), "container", ep.rec.Name, "error",
				err,
			)
		}
		ep.held = append(ep.held, held...)
	}
	e.names.add(ep)
}

// unregister undoes register. The interface stays. Precondition: ep.sandbox.mu is held.
func (e *endpoints) unregister(ep *endpoint) error {
	e.names.drop(ep)
	e.reg.dropEndpoint(ep.rec.ID)
	var errs []error
	if len(ep.rec.Ports) > 0 {
		s := firewall.State{Ports: ep.filter()}
		e.cfg.Fault("detach: filter")
		errs = append(
			errs, e.filter.update(s, firewall.State{}), e.host.forgetPublished(s.Ports),
		)
	}
	errs = append(errs, e.closeReservations(ep))
	e.cfg.Fault("detach: record")
	errs = append(errs, e.store.remove(endpointFile(ep.rec.ID)))
	return errors.Join(errs...)
}

func (e *endpoints) closeReservations(ep *endpoint) error {
	held := ep.held
	ep.held = nil
	return closeAll(held)
}

// callable is everything that other containers can call a container.
func callable(req Request) []string {
	var out []string
	seen := map[string]bool{"": true}
	for _, n := range append(
		[]string{req.Name, req.Hostname, req.ContainerID[:min(12, len(req.ContainerID))]},
		req.Aliases...,
	) {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}
