package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"strake/internal/message"
	"strake/network"
	"strake/network/place"
)

// NewNetwork makes a network.Manager the engine's Network. hostsFile and resolvConf are the host's
// own files.
func NewNetwork(m *network.Manager, hostsFile, resolvConf string) Network {
	return &managed{m: m, hosts: hostsFile, resolv: resolvConf}
}

type managed struct {
	m             *network.Manager
	hosts, resolv string
}

// Attach implements Network: the primary network first, for it is the way out and publishes the
// ports.
func (n *managed) Attach(ctx context.Context, req *NetworkRequest) (_ *NetworkPlace, err error) {
	ports, err := portWishes(req)
	if err != nil {
		return nil, err
	}
	dns, err := addresses("DNS", req.DNS)
	if err != nil {
		return nil, err
	}
	place := &NetworkPlace{Endpoints: map[string]EndpointInfo{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.m.Release(context.WithoutCancel(ctx), req.ID))
		}
	}()
	var own []netip.Addr
	var gateway netip.Addr
	for i, name := range networkOrder(req) {
		r, err := endpointRequest(req, name, dns)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			a, err := n.attachPublishing(ctx, r, ports)
			if err != nil {
				return nil, err
			}
			place.NetnsPath, gateway = a.NetNSPath, a.Gateway4
			place.Ports = boundPorts(a.Ports)
			place.Endpoints[name] = endpointInfo(a, &r)
			own = append(own, a.IPv4.Addr(), a.IPv6.Addr())
			continue
		}
		a, err := n.m.Attach(ctx, r)
		if err != nil {
			return nil, err
		}
		place.Endpoints[name] = endpointInfo(a, &r)
		own = append(own, a.IPv4.Addr(), a.IPv6.Addr())
	}
	extra, err := extraHosts(req.ExtraHosts, gateway)
	if err != nil {
		return nil, err
	}
	host, err := os.ReadFile(n.resolv)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	place.Hosts = network.HostsFile(req.Hostname, req.Domainname, own, extra)
	place.ResolvConf = network.ResolvConf(network.Resolv{
		Nameservers: []netip.Addr{network.ResolverAddr}, Search: req.DNSSearch,
		Options: req.DNSOptions, Host: host,
	})
	return place, nil
}

// networkOrder is the primary network, then the others by name.
func networkOrder(req *NetworkRequest) []string {
	names := sortedKeys(req.Endpoints)
	if i := slices.Index(names, req.Primary); i > 0 {
		names = append([]string{req.Primary}, slices.Delete(names, i, i+1)...)
	}
	return names
}

func endpointRequest(req *NetworkRequest, name string, dns []netip.Addr) (network.Request, error) {
	ep := req.Endpoints[name]
	r := network.Request{
		ContainerID: req.ID, Network: name, Name: req.Name, Hostname: req.Hostname,
		Aliases: ep.Aliases, IPv4: ep.IPv4, IPv6: ep.IPv6, DNS: dns,
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

// portWish is a port with the range that its host port may come from.
type portWish struct {
	place.Port
	end uint16
}

// portWishes are the ports asked for, and with PublishAll those that are exposed and not among
// them.
func portWishes(req *NetworkRequest) ([]portWish, error) {
	var out []portWish
	asked := map[string]bool{}
	add := func(proto string, port uint16, ip netip.Addr, first, last uint16) error {
		p, err := parseProto(proto)
		if err != nil {
			return err
		}
		if last != 0 && last < first {
			return message.New(
				errdefs.ErrInvalidArgument, "port %d/%s: invalid range of host ports %d-%d", port,
				proto, first, last,
			)
		}
		asked[fmt.Sprintf("%d/%s", port, p)] = true
		out = append(
			out,
			portWish{
				place.Port{Proto: p, ContainerPort: port, HostIP: ip, HostPort: first},
				last,
			},
		)
		return nil
	}
	for _, b := range req.Ports {
		if err := add(b.Proto, b.ContainerPort, b.HostIP, b.HostPort, b.HostPortEnd); err != nil {
			return nil, err
		}
	}
	if !req.PublishAll {
		return out, nil
	}
	for _, e := range req.Exposed {
		ports, proto, _ := strings.Cut(e, "/")
		first, last, _ := strings.Cut(ports, "-")
		if last == "" {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || a > b {
			return nil, message.New(
				errdefs.ErrInvalidArgument, "exposed port %q: want PORT[-PORT][/PROTOCOL]", e,
			)
		}
		for port := a; port <= b; port++ {
			p, err := parseProto(proto)
			if err != nil {
				return nil, err
			}
			if !asked[fmt.Sprintf("%d/%s", port, p)] {
				if err := add(proto, uint16(port), netip.Addr{}, 0, 0); err != nil {
					return nil, err
				}
			}
		}
	}
	return out, nil
}

func parseProto(s string) (string, error) {
	switch s {
	case "", "tcp":
		return place.TCP, nil
	case "udp":
		return place.UDP, nil
	case "sctp":
		return place.SCTP, nil
	}
	return "", message.New(errdefs.ErrInvalidArgument, "protocol %q: want tcp, udp or sctp", s)
}

// attachPublishing attaches with ports. Those with a range are tried one after the other, until
// none is taken.
func (n *managed) attachPublishing(
	ctx context.Context, r network.Request, wishes []portWish,
) (*network.Attachment, error) {
	next := make([]uint16, len(wishes))
	for i, w := range wishes {
		next[i] = w.HostPort
	}
	for {
		r.Ports = r.Ports[:0:0]
		for i, w := range wishes {
			w.HostPort = next[i]
			r.Ports = append(r.Ports, w.Port)
		}
		a, err := n.m.Attach(ctx, r)
		if err == nil || !errdefs.IsAlreadyExists(err) {
			return a, err
		}
		// Which one was taken the error says in words only: the first range with room moves on.
		i := slices.IndexFunc(wishes, func(w portWish) bool { return w.end != 0 })
		for i >= 0 && i < len(wishes) && (wishes[i].end == 0 || next[i] >= wishes[i].end) {
			i++
		}
		if i < 0 || i == len(wishes) {
			return nil, message.New(
				errdefs.ErrConflict,
				"driver failed programming external connectivity on endpoint %s: port is already allocated: %w",
				r.Name, err,
			)
		}
		next[i]++
	}
}

func boundPorts(in []place.Bound) []BoundPort {
	var out []BoundPort
	for _, p := range in {
		out = append(
			out,
			BoundPort{
				Proto: p.Proto, ContainerPort: p.ContainerPort, HostIP: p.HostIP,
				HostPort: p.HostPort,
			},
		)
	}
	return out
}

func endpointInfo(a *network.Attachment, r *network.Request) EndpointInfo {
	names := []string{r.Name}
	for _, x := range append(slices.Clone(r.Aliases), shortID(r.ContainerID), r.Hostname) {
		if x != "" && !slices.Contains(names, x) {
			names = append(names, x)
		}
	}
	return EndpointInfo{
		NetworkID: a.NetworkID, EndpointID: a.EndpointID, IPv4: a.IPv4, IPv6: a.IPv6,
		GatewayIPv4: a.Gateway4, GatewayIPv6: a.Gateway6,
		MAC: a.MAC.String(), Aliases: r.Aliases, DNSNames: names,
	}
}

func addresses(field string, list []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, message.New(
				errdefs.ErrInvalidArgument, "%s %q: want an IP address", field, s,
			)
		}
		out = append(out, a)
	}
	return out, nil
}

// extraHosts reads "name:address" and "name:host-gateway".
func extraHosts(list []string, gateway netip.Addr) ([]network.HostLine, error) {
	var out []network.HostLine
	for _, s := range list {
		name, text, ok := strings.Cut(s, ":")
		if !ok {
			name, text, ok = strings.Cut(s, "=")
		}
		if !ok || name == "" {
			return nil, message.New(errdefs.ErrInvalidArgument, "bad format for add-host: %q", s)
		}
		if text == "host-gateway" {
			if !gateway.IsValid() {
				return nil, message.New(
					errdefs.ErrInvalidArgument,
					"unable to derive the IP value for host-gateway: the container's network has no gateway",
				)
			}
			out = append(out, network.HostLine{Addr: gateway, Names: []string{name}})
			continue
		}
		a, err := netip.ParseAddr(strings.Trim(text, "[]"))
		if err != nil {
			return nil, message.New(
				errdefs.ErrInvalidArgument, "invalid IP address in add-host: %q", text,
			)
		}
		out = append(out, network.HostLine{Addr: a, Names: []string{name}})
	}
	return out, nil
}

// HostFiles implements Network.
func (n *managed) HostFiles(req *NetworkRequest, none bool) (hosts, resolvConf []byte, err error) {
	dns, err := addresses("DNS", req.DNS)
	if err != nil {
		return nil, nil, err
	}
	host, err := os.ReadFile(n.resolv)
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
	hosts, err = os.ReadFile(n.hosts)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	for _, l := range extra {
		hosts = append(hosts, l.Addr.String()+"\t"+strings.Join(l.Names, " ")+"\n"...)
	}
	return hosts, resolvConf, nil
}

// Detach implements Network.
func (n *managed) Detach(ctx context.Context, id string) error { return n.m.Release(ctx, id) }

// Reconcile implements Network.
func (n *managed) Reconcile(ctx context.Context, live map[string]LivePlace) error {
	var list []network.Live
	for id, place := range live {
		l := network.Live{ContainerID: id, NetNS: place.NetnsPath, Endpoints: []string{}}
		for _, ep := range place.Endpoints {
			l.Endpoints = append(l.Endpoints, ep.EndpointID)
		}
		list = append(list, l)
	}
	return n.m.Reconcile(ctx, "docker", list)
}

// Spoil implements Network.
func (n *managed) Spoil(id string) { n.m.ForbidRecycling(id) }

// Connect implements Network.
func (n *managed) Connect(
	ctx context.Context, req *NetworkRequest, name string,
) (EndpointInfo, error) {
	r, err := endpointRequest(req, name, nil)
	if err != nil {
		return EndpointInfo{}, err
	}
	a, err := n.m.Attach(ctx, r)
	if err != nil {
		return EndpointInfo{}, err
	}
	return endpointInfo(a, &r), nil
}

// Disconnect implements Network.
func (n *managed) Disconnect(ctx context.Context, endpointID string) error {
	return n.m.Detach(ctx, endpointID)
}
