// Package place has the types that a front end and the networks of a host share: what a sandbox
// asks of the network, what it gets, and a published port.
//
// A front end that stores or shows these types compiles without the networks' implementation
// (package network) and without the adapter that serves them (package network/sandboxnet).
//
// Promises: the JSON forms are stable, because front ends record them. Port and EndpointSpec have
// lower-case names; Bound and Endpoint have the names of their fields.
//
// Not for: decisions, checks against the state of a host, Docker's wire format.
//
// Tested by golden JSON and a table.
package place

import (
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
)

// Protocols of published ports.
const (
	TCP  = "tcp"
	UDP  = "udp"
	SCTP = "sctp"
)

// Port asks for one port of a sandbox to be published.
type Port struct {
	Proto         string     `json:"proto"`         // TCP, UDP or SCTP; empty means TCP
	ContainerPort uint16     `json:"containerPort"` // 1 to 65535
	HostIP        netip.Addr `json:"hostIP,omitzero"`
	// HostPort 0 lets the kernel choose one of its ephemeral ports.
	HostPort uint16 `json:"hostPort,omitempty"`
	// HostPortEnd, unless 0, makes HostPort the first of a range of which the first free port is
	// taken.
	HostPortEnd uint16 `json:"hostPortEnd,omitempty"`
}

// Validate names what is wrong with the port whatever the host's state, as an
// errdefs.ErrInvalidArgument.
func (p Port) Validate() error {
	switch p.Proto {
	case "", TCP, UDP, SCTP:
	default:
		return fmt.Errorf(
			"protocol %q: want tcp, udp or sctp: %w", p.Proto, errdefs.ErrInvalidArgument,
		)
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf(
			"port %d/%s: "+format+": %w",
			append(append([]any{p.ContainerPort, p.Proto}, args...), errdefs.ErrInvalidArgument)...,
		)
	}
	switch {
	case p.ContainerPort == 0:
		return bad("want a container port of 1 to 65535")
	case p.HostPortEnd != 0 && p.HostPortEnd < p.HostPort:
		return bad("invalid range of host ports %d-%d", p.HostPort, p.HostPortEnd)
	case p.HostIP.Is4In6():
		return bad("host address %q: write it as %q", p.HostIP, p.HostIP.Unmap())
	case p.Proto == SCTP && p.HostPort == 0:
		return bad("a host port has to be chosen")
	}
	return nil
}

// Bound is a published port as it is bound: nothing in it is left to choose.
type Bound struct {
	Proto         string
	ContainerPort uint16
	HostIP        netip.Addr
	HostPort      uint16
}

// EndpointSpec is what a sandbox asks of one network. Invalid addresses and an empty MAC leave the
// choice to the network.
type EndpointSpec struct {
	Aliases []string   `json:"aliases,omitempty"`
	IPv4    netip.Addr `json:"ipv4,omitzero"`
	IPv6    netip.Addr `json:"ipv6,omitzero"`
	MAC     string     `json:"mac,omitempty"`
	// GatewayPriority makes the network with the highest one the way out; of equal ones it is the
	// first.
	GatewayPriority int `json:"gatewayPriority,omitempty"`
	// Interface is the name of the interface in the sandbox; empty leaves the choice to the network.
	Interface string `json:"interface,omitempty"`
	// Sysctls are settings of the interface, as "net.ipv4.conf.IFNAME.log_martians=1".
	Sysctls []string `json:"sysctls,omitempty"`
}

// Endpoint is a sandbox's place in one network.
type Endpoint struct {
	NetworkID, EndpointID    string
	IPv4, IPv6               netip.Prefix
	GatewayIPv4, GatewayIPv6 netip.Addr
	MAC                      string
	Aliases, DNSNames        []string
}

// Request asks for a sandbox's place in the networks.
type Request struct {
	// Owner names the front end that the sandbox belongs to ("docker", "cri", ...). Empty means
	// network.Config.LegacyOwner.
	Owner string
	// ID is the sandbox's ID. Name is what error messages call the sandbox, and the first of the
	// names that others in its networks resolve to it.
	ID, Name, Hostname, Domainname string
	// Endpoints by network name. The first network is Primary, or the first by name where Primary
	// is none of them. Ports are published through the one that is the way out: of those that are
	// not internal the one of the highest priority, of these the first.
	Endpoints map[string]EndpointSpec
	Primary   string
	Ports     []Port
	// PublishAll publishes what Exposed lists and Ports does not, on ports that the kernel chooses.
	PublishAll bool
	Exposed    []string // "80", "80/tcp", "80-90/udp"
	DNS        []string // servers to ask about names outside instead of the host's
	DNSSearch  []string
	DNSOptions []string
	ExtraHosts []string // "name:address" or "name:host-gateway"
	// Recycle says that nothing in the sandbox can change its network namespace, so that another
	// sandbox may get the namespace.
	Recycle bool
}

// Place is a sandbox's place in the networks.
type Place struct {
	// NetnsPath is the network namespace. It is valid while the process that made the Place lives.
	NetnsPath string
	Endpoints map[string]Endpoint // by network name
	Ports     []Bound
	// Hosts and ResolvConf are the contents of the sandbox's files.
	Hosts, ResolvConf []byte
}

// Live is where a running sandbox is.
type Live struct {
	// NetnsPath is the network namespace: /proc/PID/ns/net, or /proc/self/fd/N for a descriptor
	// that the caller holds.
	NetnsPath string
	Endpoints map[string]Endpoint // by network name
}
