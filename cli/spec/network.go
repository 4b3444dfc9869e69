package spec

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"strake/cli/api"
)

func (f *Flags) putNetworks(r *api.CreateRequest, _ Source) error {
	h := &r.HostConfig
	h.DNSSearch, h.DNSOptions = f.dnsSearch, f.dnsOpt
	for _, d := range f.dns {
		if err := checkAddr("dns", d, anyFamily); err != nil {
			return err
		}
	}
	h.DNS = f.dns
	if len(f.networks) == 0 || f.networks[0] == "bridge" || f.networks[0] == "default" {
		h.Links = f.links
	}
	for _, a := range f.addHost {
		host, err := extraHost(a)
		if err != nil {
			return err
		}
		h.ExtraHosts = append(h.ExtraHosts, host)
	}
	var nets []attachment
	for _, n := range f.networks {
		a, err := parseNetwork(n)
		if err != nil {
			return err
		}
		nets = append(nets, a)
	}
	if len(nets) == 0 {
		nets = []attachment{{name: "default"}}
	} else {
		h.NetworkMode = nets[0].name
	}
	if err := f.firstNetwork(&nets[0]); err != nil {
		return err
	}
	if len(nets) > 1 {
		for _, n := range nets {
			if isSpecial(n.name) {
				return fmt.Errorf(
					"conflicting options: cannot attach both to %s and to other networks", n.name,
				)
			}
		}
	}
	ends := map[string]*api.Endpoint{}
	for i := range nets {
		n := &nets[i]
		if ends[n.name] != nil {
			return fmt.Errorf("network %q is specified multiple times", n.name)
		}
		ends[n.name] = &n.Endpoint
	}
	// A single network without options is said by the mode alone.
	if only := nets[0]; len(nets) == 1 && only.IPAMConfig == nil &&
		len(only.Aliases)+len(only.Links)+len(only.DriverOpts) == 0 &&
		only.MacAddress == "" && only.GwPriority == 0 {
		return nil
	}
	r.NetworkingConfig = &api.NetworkingConfig{EndpointsConfig: ends}
	return nil
}

// isSpecial says whether a network mode is not a network that others can stand beside.
func isSpecial(name string) bool {
	return name == "none" || name == "host" || strings.HasPrefix(name, "container:")
}

// firstNetwork puts the flags that speak of "the" network on the first one.
func (f *Flags) firstNetwork(n *attachment) error {
	for _, set := range []struct {
		flag  string
		given bool
	}{
		{"network-alias", len(f.networkAliases) > 0}, {"ip", f.ip != ""}, {"ip6", f.ip6 != ""},
		{"link-local-ip", len(f.linkLocalIPs) > 0},
	} {
		if set.given && isSpecial(n.name) {
			return fmt.Errorf("conflicting options: --%s and the network mode %q", set.flag, n.name)
		}
	}
	if f.ip != "" && n.IPAMConfig != nil && n.IPAMConfig.IPv4Address != "" {
		return errors.New(
			"conflicting options: cannot specify both --ip and per-network IPv4 address",
		)
	}
	if f.ip6 != "" && n.IPAMConfig != nil && n.IPAMConfig.IPv6Address != "" {
		return errors.New(
			"conflicting options: cannot specify both --ip6 and per-network IPv6 address",
		)
	}
	if len(f.networkAliases) > 0 && len(n.Aliases) > 0 {
		return errors.New(
			"conflicting options: cannot specify both --network-alias and per-network alias",
		)
	}
	if f.mac != "" && n.MacAddress != "" {
		return errors.New(
			"conflicting options: cannot specify both --mac-address and per-network MAC address",
		)
	}
	n.Aliases = append(n.Aliases, f.networkAliases...)
	if n.name != "default" && n.name != "bridge" {
		n.Links = f.links // on the default network links are the container's, not the network's
	}
	if f.mac != "" {
		n.MacAddress = f.mac
	}
	if f.ip != "" {
		if err := checkAddr("ip", f.ip, ipv4); err != nil {
			return err
		}
		n.ipam().IPv4Address = f.ip
	}
	if f.ip6 != "" {
		if err := checkAddr("ip6", f.ip6, ipv6); err != nil {
			return err
		}
		n.ipam().IPv6Address = f.ip6
	}
	for _, a := range f.linkLocalIPs {
		if err := checkAddr("link-local-ip", a, anyFamily); err != nil {
			return err
		}
		n.ipam().LinkLocalIPs = append(n.ipam().LinkLocalIPs, a)
	}
	return nil
}

type attachment struct {
	name string
	api.Endpoint
}

func (a *attachment) ipam() *api.EndpointIPAM {
	if a.IPAMConfig == nil {
		a.IPAMConfig = &api.EndpointIPAM{}
	}
	return a.IPAMConfig
}

func checkNetwork(s string) error { _, err := parseNetwork(s); return err }

// parseNetwork reads the name of a network, or KEY=VALUE separated by commas, where KEY is one of
// name, alias, ip, ip6, mac-address, driver-opt, link-local-ip and gw-priority.
func parseNetwork(s string) (attachment, error) {
	if !strings.Contains(s, "=") {
		if s == "" {
			return attachment{}, errors.New("empty name")
		}
		return attachment{name: s}, nil
	}
	var a attachment
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return a, fmt.Errorf("%q: %w", s, err)
	}
	for _, field := range fields {
		key, v, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok || v == "" {
			return a, fmt.Errorf("invalid field %s: want KEY=VALUE", field)
		}
		switch strings.ToLower(key) {
		case "name":
			a.name = v
		case "alias":
			a.Aliases = append(a.Aliases, v)
		case "ip":
			if err = checkAddr("network ip", v, ipv4); err == nil {
				a.ipam().IPv4Address = v
			}
		case "ip6":
			if err = checkAddr("network ip6", v, ipv6); err == nil {
				a.ipam().IPv6Address = v
			}
		case "link-local-ip":
			if err = checkAddr("network link-local-ip", v, anyFamily); err == nil {
				a.ipam().LinkLocalIPs = append(a.ipam().LinkLocalIPs, v)
			}
		case "mac-address":
			a.MacAddress = v
		case "driver-opt":
			name, value, ok := strings.Cut(v, "=")
			if !ok || name == "" {
				return a, fmt.Errorf("invalid field %s: want driver-opt=NAME=VALUE", field)
			}
			if a.DriverOpts == nil {
				a.DriverOpts = map[string]string{}
			}
			a.DriverOpts[name] = value
		case "gw-priority":
			if a.GwPriority, err = strconv.Atoi(v); err != nil {
				err = fmt.Errorf("invalid gw-priority %q: want a number", v)
			}
		default:
			return a, fmt.Errorf(
				"invalid field key %s: want name, alias, ip, ip6, link-local-ip, mac-address, "+
					"driver-opt or gw-priority",
				key,
			)
		}
		if err != nil {
			return a, err
		}
	}
	if a.name == "" {
		return a, errors.New("network name/id is not specified")
	}
	return a, nil
}

type family int

const (
	anyFamily family = iota
	ipv4
	ipv6
)

func checkAddr(flag, s string, want family) error {
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return fmt.Errorf("--%s %q: not an IP address", flag, s)
	case want == ipv4 && !addr.Is4():
		return fmt.Errorf("--%s %q: not an IPv4 address", flag, s)
	case want == ipv6 && !addr.Is6():
		return fmt.Errorf("--%s %q: not an IPv6 address", flag, s)
	}
	return nil
}

// extraHost reads HOST:ADDRESS or HOST=ADDRESS, brackets allowed.
func extraHost(s string) (string, error) {
	name, addr, ok := strings.Cut(s, "=")
	if !ok {
		name, addr, ok = strings.Cut(s, ":")
	}
	if !ok || name == "" {
		return "", fmt.Errorf("--add-host %q: want HOST:ADDRESS", s)
	}
	if in, ok := strings.CutPrefix(addr, "["); ok {
		if addr, ok = strings.CutSuffix(in, "]"); !ok {
			return "", fmt.Errorf("--add-host %q: missing ]", s)
		}
	}
	if addr != "host-gateway" {
		if _, err := netip.ParseAddr(addr); err != nil {
			return "", fmt.Errorf("--add-host %q: invalid IP address: %s", s, addr)
		}
	}
	return name + ":" + addr, nil
}
