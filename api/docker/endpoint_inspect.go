package docker

import (
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"strake/engine"
)

// wishes are what a container asks of each of its networks, whether it runs or not. A container
// that shares the network of another one has none; host and none count as networks.
func wishes(info *engine.Info) map[string]engine.EndpointSpec {
	mode := container.NetworkMode(primary(info))
	switch {
	case mode.IsContainer():
		return nil
	case info.Spec.Endpoints != nil && !mode.IsHost() && !mode.IsNone():
		return info.Spec.Endpoints
	}
	return map[string]engine.EndpointSpec{string(mode): {}}
}

// endpointSettings are all networks of a container: what it asks of them and, while it runs, its
// places in them. networking is the request's, or nil.
func endpointSettings(
	info *engine.Info, networking *network.NetworkingConfig,
) map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	for name, wish := range wishes(info) {
		settings := &network.EndpointSettings{
			Aliases: wish.Aliases, GwPriority: wish.GatewayPriority, DriverOpts: optionsOf(&wish),
		}
		settings.MacAddress.UnmarshalText([]byte(wish.MAC))
		var asked *network.EndpointSettings
		if networking != nil {
			asked = networking.EndpointsConfig[name]
		}
		settings.IPAMConfig = ipamOf(&wish, asked)
		out[name] = settings
	}
	for name, e := range info.Networks {
		settings := out[name]
		if settings == nil {
			settings = &network.EndpointSettings{}
			out[name] = settings
		}
		settings.NetworkID, settings.EndpointID = e.NetworkID, e.EndpointID
		settings.Gateway, settings.IPv6Gateway = e.GatewayIPv4, e.GatewayIPv6
		settings.Aliases, settings.DNSNames = e.Aliases, e.DNSNames
		settings.MacAddress.UnmarshalText([]byte(e.MAC))
		if e.IPv4.IsValid() {
			settings.IPAddress, settings.IPPrefixLen = e.IPv4.Addr(), e.IPv4.Bits()
		}
		if e.IPv6.IsValid() {
			settings.GlobalIPv6Address, settings.GlobalIPv6PrefixLen = e.IPv6.Addr(), e.IPv6.Bits()
		}
	}
	return out
}

// optionsOf are the driver options that a container asks of a network with; nil if there are none.
func optionsOf(wish *engine.EndpointSpec) map[string]string {
	var out map[string]string
	if wish.Interface != "" {
		setEntry(&out, optInterface, wish.Interface)
	}
	if len(wish.Sysctls) > 0 {
		setEntry(&out, optSysctls, strings.Join(wish.Sysctls, ","))
	}
	return out
}

// ipamOf are the addresses that a container asks of a network. asked is what it asked for when it
// was created. A later disconnect and connect may have changed the addresses, which the engine
// knows; only the form of a request without addresses (null or {}) is taken from asked.
func ipamOf(
	wish *engine.EndpointSpec, asked *network.EndpointSettings,
) *network.EndpointIPAMConfig {
	var old *network.EndpointIPAMConfig
	if asked != nil {
		old = asked.IPAMConfig.Copy()
	}
	if !wish.IPv4.IsValid() && !wish.IPv6.IsValid() && old == nil {
		return nil
	}
	out := &network.EndpointIPAMConfig{IPv4Address: wish.IPv4, IPv6Address: wish.IPv6}
	if old != nil {
		out.LinkLocalIPs = old.LinkLocalIPs
	}
	return out
}

// firstMAC is the MAC address that a container asks for in its first network, for versions that
// show it as the container's own.
func firstMAC(info *engine.Info) string { return wishes(info)[primary(info)].MAC }

// primary is the network that a container is in first.
func primary(info *engine.Info) string {
	if mode := container.NetworkMode(info.Spec.Network); mode != "" && !mode.IsDefault() {
		return string(mode)
	}
	return "bridge"
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
