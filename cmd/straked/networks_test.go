package main

import (
	"net/netip"
	"reflect"
	"testing"

	"strake/api/docker"
	"strake/network"
)

// TestNetworkShape: what the Docker API asks of a network reaches the manager, and comes back.
func TestNetworkShape(t *testing.T) {
	t.Parallel()
	spec := docker.NetworkSpec{
		Name: "n", Driver: "bridge", Internal: true, EnableIPv6: true,
		Subnets: []netip.Prefix{
			netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd01::/64"),
		},
		Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.7"), netip.MustParseAddr("fd01::7")},
		IPRanges: []netip.Prefix{netip.MustParsePrefix("10.1.5.0/24"), {}},
		Reserved: []map[string]netip.Addr{{"router": netip.MustParseAddr("10.1.5.0")}, nil},
		Options:  map[string]string{"o": "1"}, Labels: map[string]string{"l": "1"},
	}
	s := managed(spec)
	want := []network.Subnet{
		{
			Prefix: spec.Subnets[0], Gateway: spec.Gateways[0], Range: spec.IPRanges[0],
			Reserved: spec.Reserved[0],
		},
		{Prefix: spec.Subnets[1], Gateway: spec.Gateways[1]},
	}
	if !reflect.DeepEqual(s.Subnets, want) {
		t.Errorf("got the subnets %+v, want %+v", s.Subnets, want)
	}
	back := shown(&network.Network{
		ID: "id", Name: s.Name, Driver: s.Driver, Internal: s.Internal, EnableIPv6: s.EnableIPv6,
		Options: s.Options, Labels: s.Labels, Subnets: s.Subnets,
	})
	if back.ID != "id" || !reflect.DeepEqual(back.NetworkSpec, spec) {
		t.Errorf("got %+v, want %+v", back.NetworkSpec, spec)
	}
}
