package docker

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/network"

	"strake/engine"
)

// endpointsOf translates the settings for each network: addresses, MAC address and aliases.
func endpointsOf(s *engine.Spec, n *network.NetworkingConfig) error {
	if n == nil {
		return nil
	}
	if err := gatewayOf(s.Network, n.EndpointsConfig); err != nil {
		return err
	}
	for name, e := range n.EndpointsConfig {
		if e == nil {
			continue
		}
		out, err := endpointOf(e)
		if err != nil {
			return err
		}
		if s.Endpoints == nil {
			s.Endpoints = map[string]engine.EndpointSpec{}
		}
		s.Endpoints[name] = out
	}
	return nil
}

// gatewayOf refuses priorities (GwPriority) that select the gateway of another network than the
// first one.
func gatewayOf(first string, ends map[string]*network.EndpointSettings) error {
	highest := 0
	if e := ends[first]; e != nil {
		highest = e.GwPriority
	}
	for _, name := range sortedKeys(ends) {
		if e := ends[name]; e != nil && e.GwPriority > highest {
			return notImplemented(
				fmt.Sprintf(
					"EndpointsConfig[%s].GwPriority %d: a gateway in another network than %s, "+
						"the first one,",
					name, e.GwPriority, first,
				),
			)
		}
	}
	return nil
}

func endpointOf(e *network.EndpointSettings) (engine.EndpointSpec, error) {
	out := engine.EndpointSpec{Aliases: e.Aliases}
	if len(e.DriverOpts) > 0 {
		return out, notImplemented(
			"EndpointsConfig.DriverOpts (" + strings.Join(sortedKeys(e.DriverOpts), ", ") + ")",
		)
	}
	if len(e.MacAddress) > 0 {
		out.MAC = e.MacAddress.String()
	}
	if c := e.IPAMConfig; c != nil {
		for _, a := range []netip.Addr{c.IPv4Address, c.IPv6Address} {
			if a.IsValid() && a.IsUnspecified() {
				return out, invalid("invalid endpoint settings: address %s", a)
			}
		}
		out.IPv4, out.IPv6 = c.IPv4Address, c.IPv6Address
	}
	return out, nil
}
