package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/containerd/errdefs"

	"strake/network/firewall"
)

// DefaultName is the name of the network that exists always.
const DefaultName = "bridge"

// ResolverAddr is the name server of every container on one of our networks. It is link-local: on
// each network's link it is our resolver.
var ResolverAddr = netip.AddrFrom4([4]byte{169, 254, 53, 53})

// Spec is the wish for a network.
type Spec struct {
	// Name is unique among networks: a letter or digit, then up to 127 letters, digits, "_", "."
	// and "-".
	Name string
	// Driver is "bridge" or empty, which means the same.
	Driver string
	// Subnets are at most one of IPv4 and one of IPv6. A family without one gets one from the
	// pools: IPv4 always, IPv6 with EnableIPv6.
	Subnets []Subnet
	// Internal networks have no way out, no way in, and no answers to names outside.
	Internal   bool
	EnableIPv6 bool
	Labels     map[string]string
	// Options are those of Docker's bridge driver that are supported (parseOptions lists them); any
	// other is refused.
	Options map[string]string
}

// Subnet is one range of addresses of a network.
type Subnet struct {
	Prefix netip.Prefix
	// Gateway is the bridge's own address; invalid means the first of Prefix.
	Gateway netip.Addr
	// Range limits the addresses that are handed out; invalid means Prefix.
	Range netip.Prefix
	// Reserved are addresses that are not handed out, by a name that nothing here uses (Docker's
	// auxiliary addresses).
	Reserved map[string]netip.Addr `json:",omitempty"`
}

// Network is what there is to know of a network.
type Network struct {
	ID         string // 64 hexadecimal digits
	Name       string
	Driver     string
	Created    time.Time
	Subnets    []Subnet
	Internal   bool
	EnableIPv6 bool
	Labels     map[string]string
	Options    map[string]string
	// Device is the bridge interface; it exists once the network has been used.
	Device string
	// Endpoints are the attachments, in InspectNetwork only.
	Endpoints []Endpoint
}

// Endpoint is a container's place in a network.
type Endpoint struct {
	ID          string // 64 hexadecimal digits
	ContainerID string
	Name        string
	IPv4, IPv6  netip.Prefix
	MAC         string
}

// Protocols of published ports.
const (
	TCP  = firewall.TCP
	UDP  = firewall.UDP
	SCTP = firewall.SCTP
)

// PortBinding is a wish to publish a port, and, in an Attachment, what came of it.
type PortBinding struct {
	Proto         firewall.Proto
	ContainerPort uint16
	// HostIP is the host's address to publish on. Invalid means the network's default, which is
	// 0.0.0.0 and, on a network with IPv6, also ::, under the same port. In an Attachment it is
	// always valid.
	HostIP netip.Addr
	// HostPort 0 lets the kernel choose one of its ephemeral ports.
	HostPort uint16
}

func (p PortBinding) String() string {
	return netip.AddrPortFrom(p.HostIP, p.HostPort).String() + "/" + p.Proto.String()
}

// Recycling says what may become of a container's namespace when it is released.
type Recycling int

const (
	// DestroyAfterUse is the safe choice and the zero value.
	DestroyAfterUse Recycling = iota
	// RecycleIfClean allows another container to get the namespace if it is found as it was made.
	// Preconditions, which nothing can check afterwards: the container had neither CAP_NET_ADMIN
	// nor CAP_SYS_ADMIN over it, no writable /proc/sys, and no net.* sysctls of its own.
	RecycleIfClean
)

// Request is the wish to attach a container to a network.
type Request struct {
	// Owner names the front end that the container belongs to ("docker", "cri", ...): one to 32
	// lower-case letters, digits and "-". Empty means Config.LegacyOwner. All attachments of a
	// container have the same owner. Reconcile removes the attachments of one owner only.
	Owner string
	// EndpointID is the attachment's name, 64 hexadecimal digits; empty lets Attach choose one.
	EndpointID string
	// ContainerID names the container. Its first attachment makes its network namespace, later ones
	// add interfaces to it.
	ContainerID string
	// Network is a network's name, ID, or the beginning of its ID.
	Network string
	// Name, Hostname and Aliases are what other containers of the network can call it; its short ID
	// is added. Aliases of several containers resolve to all of them.
	Name, Hostname string
	Aliases        []string
	// IPv4, IPv6 and MAC are wishes; invalid or empty for none. Attaching with a wish takes about a
	// millisecond longer.
	IPv4, IPv6 netip.Addr
	MAC        net.HardwareAddr
	Ports      []PortBinding
	// DNS are name servers to ask instead of the host's for names outside.
	DNS []netip.Addr
	// Recycling counts at the container's first attachment.
	Recycling Recycling
}

// Attachment is a container's new interface.
type Attachment struct {
	EndpointID string
	NetworkID  string
	// NetNS is the container's network namespace. It belongs to the Manager: valid until Release or
	// Close, not to be closed.
	NetNS *os.File
	// NetNSPath names the same for joining by path; it is valid while this process lives and NetNS
	// is.
	NetNSPath string
	// Interface is its name in the container: eth0, eth1, ...
	Interface          string
	IPv4, IPv6         netip.Prefix
	Gateway4, Gateway6 netip.Addr // invalid where there is no way out
	MAC                net.HardwareAddr
	Ports              []PortBinding
}

// validate names the first field that cannot be granted whatever the state, as an
// errdefs.ErrInvalidArgument.
func (r Request) validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf(
			"attach container %q: "+format+": %w",
			append(append([]any{r.ContainerID}, args...), errdefs.ErrInvalidArgument)...,
		)
	}
	if !namePattern.MatchString(r.ContainerID) {
		return bad("container ID: want a letter or digit, then up to 127 letters, digits, '_', '.' and '-'")
	}
	if r.Owner != "" && !ownerPattern.MatchString(r.Owner) {
		return bad("owner %q: want one to 32 of a-z, 0-9 and '-', the first a letter", r.Owner)
	}
	if r.EndpointID != "" && !isID(r.EndpointID) {
		return bad("endpoint ID %q: want 64 hexadecimal digits", r.EndpointID)
	}
	if r.IPv4.IsValid() && !r.IPv4.Is4() {
		return bad("IPv4 address %q: not one", r.IPv4)
	}
	if r.IPv6.IsValid() && (!r.IPv6.Is6() || r.IPv6.Is4In6()) {
		return bad("IPv6 address %q: not one", r.IPv6)
	}
	if r.MAC != nil && (len(r.MAC) != 6 || r.MAC[0]&1 != 0) {
		return bad("hardware address %q: want six bytes, not a multicast address", r.MAC)
	}
	for _, p := range r.Ports {
		if p.Proto != TCP && p.Proto != UDP && p.Proto != SCTP {
			return bad("port %d: %s: want tcp, udp or sctp", p.ContainerPort, p.Proto)
		}
		if p.ContainerPort == 0 {
			return bad("container port 0: want 1 to 65535")
		}
		if p.HostIP.Is4In6() {
			return bad("host address %q: write it as %q", p.HostIP, p.HostIP.Unmap())
		}
		if p.Proto == SCTP && p.HostPort == 0 {
			return bad("container port %d/sctp: a host port has to be chosen", p.ContainerPort)
		}
	}
	for _, d := range r.DNS {
		if !d.IsValid() {
			return bad("name server: not an address")
		}
	}
	return nil
}

func isID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
