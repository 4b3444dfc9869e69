// Package sandboxnet gives sandboxes their place in the networks of a network.Manager, in the types
// of package network/place.
//
// Where a Manager attaches one container to one network, this package attaches a sandbox to all of
// its networks, publishes its ports through the right one, and writes its hosts and resolv.conf.
//
// Promises:
//
//   - Attach leaves nothing behind if it fails.
//   - Sentences that clients of the Docker Engine API look for are those of dockerd (package
//     internal/message).
//
// Not for: the network modes host, none and container:NAME, except for the files that the first two
// need (HostFiles).
//
// Tested by tables for the decisions, and with a Manager in a network namespace of the test's own
// (needs root).
package sandboxnet

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containerd/errdefs"

	"strake/internal/message"
	"strake/internal/rawfile"
	"strake/network"
	"strake/network/place"
)

// Network attaches sandboxes. All methods may be called concurrently.
type Network struct {
	m             *network.Manager
	hosts, resolv string
}

// New returns a Network over m, which stays the caller's. hostsFile and resolvConf are paths of the
// host's own files.
func New(m *network.Manager, hostsFile, resolvConf string) *Network {
	return &Network{m: m, hosts: hostsFile, resolv: resolvConf}
}

// Attach makes a network namespace with everything that the request asks for. Errors are those of
// network.Manager.Attach, except that a host port that is taken is an errdefs.ErrConflict.
func (n *Network) Attach(ctx context.Context, req *place.Request) (_ *place.Place, err error) {
	ports, err := wantedPorts(req)
	if err != nil {
		return nil, err
	}
	dns, err := addresses("DNS", req.DNS)
	if err != nil {
		return nil, err
	}
	order := networkOrder(req)
	ranked := byPriority(req, order)
	publisher, err := n.publisher(ctx, ranked, ports)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.m.Release(context.WithoutCancel(ctx), req.ID))
		}
	}()
	out := &place.Place{Endpoints: map[string]place.Endpoint{}}
	var own []netip.Addr
	gateways := map[string]netip.Addr{}
	for _, name := range order {
		r, err := endpointRequest(req, name, dns)
		if err != nil {
			return nil, err
		}
		if name == publisher {
			r.Ports = ports
		}
		a, err := n.m.Attach(ctx, r)
		if err != nil {
			return nil, taken(r.Name, err)
		}
		gateways[name] = a.Gateway4
		out.NetnsPath = a.NetNSPath
		out.Ports = append(out.Ports, a.Ports...)
		out.Endpoints[name] = endpointOf(a, &r)
		own = append(own, a.IPv4.Addr(), a.IPv6.Addr())
	}
	var gateway netip.Addr
	for _, name := range ranked {
		if !gateway.IsValid() {
			gateway = gateways[name]
		}
	}
	extra, err := extraHosts(req.ExtraHosts, gateway)
	if err != nil {
		return nil, err
	}
	host, err := rawfile.Read(n.resolv)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	out.Hosts = network.HostsFile(req.Hostname, req.Domainname, own, extra)
	out.ResolvConf = network.ResolvConf(network.Resolv{
		Nameservers: []netip.Addr{network.ResolverAddr}, Search: req.DNSSearch,
		Options: req.DNSOptions, Host: host,
	})
	return out, nil
}

// publisher chooses the network that publishes the ports: the first, by
// priority, that is not internal. The
// Manager makes the same one the way out, so answers to a published port leave by it. If all are
// internal it is the first, whose refusal names the port.
func (n *Network) publisher(
	ctx context.Context, order []string, ports []place.Port,
) (string, error) {
	if len(order) == 0 {
		return "", nil
	}
	if len(ports) == 0 || len(order) == 1 {
		return order[0], nil
	}
	for _, name := range order {
		w, err := n.m.InspectNetwork(ctx, name)
		if err != nil {
			return "", err
		}
		if !w.Internal {
			return name, nil
		}
	}
	return order[0], nil
}

// taken gives the error for a host port that is taken the words of dockerd.
func taken(name string, err error) error {
	if inUse := (*network.PortInUseError)(nil); !errors.As(err, &inUse) {
		return err
	}
	return message.New(
		errdefs.ErrConflict,
		"driver failed programming external connectivity on endpoint %s: port is already allocated: %w",
		name, err,
	)
}

// networkOrder is the primary network, then the others by name.
func networkOrder(req *place.Request) []string {
	names := slices.Sorted(maps.Keys(req.Endpoints))
	if i := slices.Index(names, req.Primary); i > 0 {
		names = append([]string{req.Primary}, slices.Delete(names, i, i+1)...)
	}
	return names
}

// byPriority puts the networks in the order in which they become the way out.
func byPriority(req *place.Request, order []string) []string {
	ranked := slices.Clone(order)
	slices.SortStableFunc(ranked, func(a, b string) int {
		return cmp.Compare(
			req.Endpoints[b].GatewayPriority, req.Endpoints[a].GatewayPriority,
		)
	})
	return ranked
}

func endpointRequest(
	req *place.Request, name string, dns []netip.Addr,
) (network.Request, error) {
	ep := req.Endpoints[name]
	r := network.Request{
		Owner: req.Owner, ContainerID: req.ID, Network: name, Name: req.Name,
		Hostname: req.Hostname, Aliases: ep.Aliases, IPv4: ep.IPv4, IPv6: ep.IPv6, DNS: dns,
		GatewayPriority: ep.GatewayPriority, Interface: ep.Interface, Sysctls: ep.Sysctls,
	}
	if req.Recycle {
		r.Recycling = network.RecycleIfUnused
	}
	if ep.MAC != "" {
		mac, err := net.ParseMAC(ep.MAC)
		if err != nil {
			return r, message.New(
				errdefs.ErrInvalidArgument, "network %q: MAC address %q: %w", name, ep.MAC, err,
			)
		}
		r.MAC = mac
	}
	return r, nil
}

func endpointOf(a *network.Attachment, r *network.Request) place.Endpoint {
	names := []string{r.Name}
	for _, x := range append(
		slices.Clone(r.Aliases), r.ContainerID[:min(12, len(r.ContainerID))], r.Hostname,
	) {
		if x != "" && !slices.Contains(names, x) {
			names = append(names, x)
		}
	}
	return place.Endpoint{
		NetworkID: a.NetworkID, EndpointID: a.EndpointID, IPv4: a.IPv4, IPv6: a.IPv6,
		GatewayIPv4: a.Gateway4, GatewayIPv6: a.Gateway6,
		MAC: a.MAC.String(), Aliases: r.Aliases, DNSNames: names,
	}
}

// Detach undoes Attach. An unknown ID is no error. Precondition: no process is left in the sandbox.
func (n *Network) Detach(ctx context.Context, id string) error { return n.m.Release(ctx, id) }

// Reconcile detaches all sandboxes of an owner but those named, by ID, and those from all networks
// but the ones they know of. Each owner calls it once, before its first Attach.
func (n *Network) Reconcile(
	ctx context.Context, owner string, live map[string]place.Live,
) error {
	var list []network.Live
	for id, at := range live {
		l := network.Live{ContainerID: id, NetNS: at.NetnsPath, Endpoints: []string{}}
		for _, ep := range at.Endpoints {
			l.Endpoints = append(l.Endpoints, ep.EndpointID)
		}
		list = append(list, l)
	}
	return n.m.Reconcile(ctx, owner, list)
}

// Spoil says that place.Request.Recycle is no longer true of a sandbox. An unknown ID is no error.
func (n *Network) Spoil(id string) { n.m.ForbidRecycling(id) }

// Connect puts a running sandbox into one more network, which req.Endpoints may describe. It
// publishes no ports.
func (n *Network) Connect(
	ctx context.Context, req *place.Request, name string,
) (place.Endpoint, error) {
	r, err := endpointRequest(req, name, nil)
	if err != nil {
		return place.Endpoint{}, err
	}
	a, err := n.m.Attach(ctx, r)
	if err != nil {
		return place.Endpoint{}, err
	}
	return endpointOf(a, &r), nil
}

// Disconnect takes a running sandbox out of one network. An unknown endpoint is no error.
func (n *Network) Disconnect(ctx context.Context, endpointID string) error {
	return n.m.Detach(ctx, endpointID)
}

// HostFiles are hosts and resolv.conf for a sandbox with the host's network, or with none (none
// true).
func (n *Network) HostFiles(req *place.Request, none bool) (hosts, resolvConf []byte, err error) {
	dns, err := addresses("DNS", req.DNS)
	if err != nil {
		return nil, nil, err
	}
	host, err := rawfile.Read(n.resolv)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	resolvConf = network.ResolvConf(
		network.Resolv{
			Nameservers: dns, Search: req.DNSSearch, Options: req.DNSOptions, Host: host,
		},
	)
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	extra, err := extraHosts(req.ExtraHosts, loopback)
	if err != nil {
		return nil, nil, err
	}
	if none {
		return network.HostsFile("", "", nil, extra), resolvConf, nil
	}
	hosts, err = rawfile.Read(n.hosts)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	return append(hosts, network.HostLines(extra)...), resolvConf, nil
}
