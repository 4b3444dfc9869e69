package sandboxnet

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"strake/internal/message"
	"strake/network"
	"strake/network/place"
)

// wantedPorts are the ports asked for, and with PublishAll those that are exposed and not among
// them.
func wantedPorts(req *place.Request) ([]place.Port, error) {
	var out []place.Port
	asked := map[string]bool{}
	for _, p := range req.Ports {
		var err error
		if p.Proto, err = proto(p.Proto); err != nil {
			return nil, err
		}
		if p.HostPortEnd != 0 && p.HostPortEnd < p.HostPort {
			return nil, message.New(
				errdefs.ErrInvalidArgument, "port %d/%s: invalid range of host ports %d-%d",
				p.ContainerPort, p.Proto, p.HostPort, p.HostPortEnd,
			)
		}
		asked[fmt.Sprintf("%d/%s", p.ContainerPort, p.Proto)] = true
		out = append(out, p)
	}
	if !req.PublishAll {
		return out, nil
	}
	for _, e := range req.Exposed {
		first, last, name, err := exposed(e)
		if err != nil {
			return nil, err
		}
		for port := first; port <= last; port++ {
			if key := fmt.Sprintf("%d/%s", port, name); !asked[key] {
				asked[key] = true
				out = append(out, place.Port{Proto: name, ContainerPort: uint16(port)})
			}
		}
	}
	return out, nil
}

// exposed reads "PORT[-PORT][/PROTOCOL]".
func exposed(s string) (first, last uint64, name string, err error) {
	ports, name, _ := strings.Cut(s, "/")
	from, to, _ := strings.Cut(ports, "-")
	if to == "" {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil || first > last {
		return 0, 0, "", message.New(
			errdefs.ErrInvalidArgument, "exposed port %q: want PORT[-PORT][/PROTOCOL]", s,
		)
	}
	name, err = proto(name)
	return first, last, name, err
}

func proto(s string) (string, error) {
	switch s {
	case "":
		return place.TCP, nil
	case place.TCP, place.UDP, place.SCTP:
		return s, nil
	}
	return "", message.New(
		errdefs.ErrInvalidArgument, "protocol %q: want tcp, udp or sctp", s,
	)
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

// extraHosts reads "name:address", "name=address" and "name:host-gateway", which stands for
// gateway.
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
