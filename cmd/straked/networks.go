package main

import (
	"context"
	"net/netip"

	"strake/api/docker"
	"strake/network"
)

// defaultSubnets are what flags say about the default bridge; validate has seen them.
func (s *settings) defaultSubnets() (out []network.Subnet) {
	if p, err := netip.ParsePrefix(s.BIP); err == nil {
		out = append(out, network.Subnet{Prefix: p.Masked(), Gateway: p.Addr()})
	}
	if p, err := netip.ParsePrefix(s.FixedCIDRv6); err == nil {
		out = append(out, network.Subnet{Prefix: p})
	}
	return out
}

// networks is a network.Manager as the Docker API wants it.
type networks struct{ m *network.Manager }

func (n networks) Create(
	ctx context.Context, spec docker.NetworkSpec,
) (id string, warnings []string, err error) {
	created, err := n.m.CreateNetwork(ctx, managed(spec))
	return created.ID, nil, err
}

// managed is what the Docker API asks for as the manager takes it.
func managed(spec docker.NetworkSpec) network.Spec {
	s := network.Spec{
		Name: spec.Name, Driver: spec.Driver, Internal: spec.Internal, EnableIPv6: spec.EnableIPv6,
		Labels: spec.Labels, Options: spec.Options,
	}
	for i, p := range spec.Subnets {
		sub := network.Subnet{Prefix: p}
		if i < len(spec.Gateways) {
			sub.Gateway = spec.Gateways[i]
		}
		if i < len(spec.IPRanges) {
			sub.Range = spec.IPRanges[i]
		}
		if i < len(spec.Reserved) {
			sub.Reserved = spec.Reserved[i]
		}
		s.Subnets = append(s.Subnets, sub)
	}
	return s
}

func (n networks) Remove(ctx context.Context, name string) error {
	return n.m.RemoveNetwork(ctx, name)
}

func (n networks) List(ctx context.Context) ([]docker.NetworkInfo, error) {
	list, err := n.m.Networks(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]docker.NetworkInfo, 0, len(list))
	for i := range list {
		out = append(out, shown(&list[i]))
	}
	return out, nil
}

// shown is a network as the Docker API shows it.
func shown(w *network.Network) docker.NetworkInfo {
	info := docker.NetworkInfo{ID: w.ID, Created: w.Created, NetworkSpec: docker.NetworkSpec{
		Name: w.Name, Driver: w.Driver, Internal: w.Internal, EnableIPv6: w.EnableIPv6,
		Options: w.Options, Labels: w.Labels,
	}}
	for _, s := range w.Subnets {
		info.Subnets = append(info.Subnets, s.Prefix)
		info.Gateways = append(info.Gateways, s.Gateway)
		r := s.Range
		if r == s.Prefix {
			r = netip.Prefix{}
		}
		info.IPRanges = append(info.IPRanges, r)
		info.Reserved = append(info.Reserved, s.Reserved)
	}
	return info
}
