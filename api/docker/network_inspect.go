package docker

import (
	"encoding/binary"
	"math"
	"net/netip"

	"github.com/moby/moby/api/types/network"

	"strake/engine"
)

func inspectOfNetwork(n *NetworkInfo, containers []engine.Info) network.Inspect {
	out := network.Inspect{Network: network.Network{
		Name: n.Name, ID: n.ID, Created: n.Created.UTC(), Scope: "local", Driver: n.Driver,
		EnableIPv4: n.Driver == "bridge", EnableIPv6: n.EnableIPv6,
		Internal: n.Internal, Options: n.Options, Labels: n.Labels,
		IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
	}, Containers: map[string]network.EndpointResource{}}
	if out.Options == nil {
		out.Options = map[string]string{}
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	for i, sub := range n.Subnets {
		c := network.IPAMConfig{Subnet: sub}
		if i < len(n.Gateways) {
			c.Gateway = n.Gateways[i]
		}
		if i < len(n.IPRanges) {
			c.IPRange = n.IPRanges[i]
		}
		if i < len(n.Reserved) {
			c.AuxAddress = n.Reserved[i]
		}
		out.IPAM.Config = append(out.IPAM.Config, c)
	}
	for i := range containers {
		c := &containers[i]
		e, ok := c.Networks[n.Name]
		if _, builtin := builtinNetwork(n.Name); builtin && primary(c) == n.Name && alive(c) {
			e, ok = engine.EndpointInfo{EndpointID: fixedID(n.Name + " " + c.ID)}, true
		}
		if !ok {
			continue
		}
		res := network.EndpointResource{
			Name: c.Spec.Name, EndpointID: e.EndpointID, IPv4Address: e.IPv4, IPv6Address: e.IPv6,
		}
		res.MacAddress.UnmarshalText([]byte(e.MAC))
		out.Containers[c.ID] = res
	}
	return out
}

// subnetStatus counts the used and the free addresses of each subnet. The address of the subnet,
// its gateway, reserved addresses and, in IPv4, the broadcast address are in use.
func subnetStatus(
	n *NetworkInfo, endpoints map[string]network.EndpointResource,
) network.SubnetStatuses {
	out := network.SubnetStatuses{}
	for i, subnet := range n.Subnets {
		var used, usedInRange uint64
		from := subnet
		if i < len(n.IPRanges) && n.IPRanges[i].IsValid() {
			from = n.IPRanges[i]
		}
		take := func(a netip.Addr) {
			if subnet.Contains(a) {
				used++
			}
			if from.Contains(a) {
				usedInRange++
			}
		}
		take(subnet.Masked().Addr())
		if i < len(n.Gateways) {
			take(n.Gateways[i])
		}
		if i < len(n.Reserved) {
			for _, a := range n.Reserved[i] {
				take(a)
			}
		}
		if b := subnet.Masked().Addr(); b.Is4() && subnet.Bits() < 31 {
			raw := b.As4()
			last := binary.BigEndian.Uint32(raw[:]) | (1<<(32-subnet.Bits()) - 1)
			binary.BigEndian.PutUint32(raw[:], last)
			take(netip.AddrFrom4(raw))
		}
		for _, e := range endpoints {
			take(e.IPv4Address.Addr())
			take(e.IPv6Address.Addr())
		}
		available := uint64(math.MaxUint64) // also for larger ranges
		switch host := from.Addr().BitLen() - from.Bits(); {
		case host < 64:
			size := uint64(1) << host
			available = size - min(usedInRange, size)
		case host == 64 && usedInRange > 0:
			available = -usedInRange // of 2^64
		}
		out[subnet] = network.SubnetStatus{IPsInUse: used, DynamicIPsAvailable: available}
	}
	return out
}
