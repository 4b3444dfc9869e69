package docker

import (
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

// Options of a place in a network that are known (EndpointsConfig.DriverOpts).
const (
	optInterface = "com.docker.network.endpoint.ifname"
	optSysctls   = "com.docker.network.endpoint.sysctls"
)

func endpointOf(e *network.EndpointSettings) (engine.EndpointSpec, error) {
	out := engine.EndpointSpec{Aliases: e.Aliases, GatewayPriority: e.GwPriority}
	for _, name := range sortedKeys(e.DriverOpts) {
		switch value := e.DriverOpts[name]; name {
		case optInterface:
			out.Interface = value
		case optSysctls:
			out.Sysctls = strings.Split(value, ",")
		default:
			return out, notImplemented("EndpointsConfig.DriverOpts " + name)
		}
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
