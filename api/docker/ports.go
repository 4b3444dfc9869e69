package docker

import (
	"sort"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"strake/engine"
)

// portsOf translates published and exposed ports.
func portsOf(s *engine.Spec, c *container.Config, h *container.HostConfig) error {
	for p := range c.ExposedPorts {
		s.Exposed = append(s.Exposed, p.String())
	}
	sort.Strings(s.Exposed)
	for p, bindings := range h.PortBindings {
		if !p.IsValid() || p.Num() == 0 {
			return invalid("invalid port specification: %q", p.String())
		}
		switch p.Proto() {
		case network.TCP, network.UDP, network.SCTP:
		default:
			return invalid("invalid port specification: %q: want tcp, udp or sctp", p.String())
		}
		if len(bindings) == 0 {
			bindings = []network.PortBinding{{}}
		}
		for _, b := range bindings {
			out := engine.PortBinding{
				Proto: string(p.Proto()), ContainerPort: p.Num(), HostIP: b.HostIP,
			}
			if b.HostPort != "" {
				first, last, ranged := strings.Cut(b.HostPort, "-")
				n, err := strconv.ParseUint(first, 10, 16)
				if err != nil {
					return invalid("invalid port specification: %q", b.HostPort)
				}
				out.HostPort = uint16(n)
				if ranged {
					end, err := strconv.ParseUint(last, 10, 16)
					if err != nil || end < n {
						return invalid("invalid port specification: %q", b.HostPort)
					}
					out.HostPortEnd = uint16(end)
				}
			}
			s.Ports = append(s.Ports, out)
		}
	}
	sort.SliceStable(s.Ports, func(i, k int) bool {
		return s.Ports[i].ContainerPort < s.Ports[k].ContainerPort
	})
	return nil
}
