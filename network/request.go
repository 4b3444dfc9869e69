package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"

	"github.com/containerd/errdefs"

	"strake/network/place"
)

// Recycling says what may become of a container's namespace when it is released.
type Recycling int

const (
	// DestroyAfterUse is the safe choice and the zero value.
	DestroyAfterUse Recycling = iota
	// RecycleIfUnused allows another container to get the namespace if it is found as it was made.
	// Preconditions, which nothing can check afterwards: the container had neither CAP_NET_ADMIN
	// nor CAP_SYS_ADMIN over it, no writable /proc/sys, and no net.* sysctls of its own.
	RecycleIfUnused
)

// Request asks for a container's attachment to a network.
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
	// IPv4, IPv6 and MAC are chosen by the caller, or invalid and empty, and then by the network.
	// With one of them the pool has nothing that fits, and Attach takes about a millisecond longer.
	IPv4, IPv6 netip.Addr
	MAC        net.HardwareAddr
	// Interface is the interface's name in the container; empty means the first free one of eth0,
	// eth1 and so on. Sysctls are its settings, as "net.ipv4.conf.IFNAME.log_martians=1". Both cost
	// what a chosen address costs.
	Interface string
	Sysctls   []string
	// GatewayPriority makes the network that has the highest one of the container's networks its
	// way out, for IPv4 and IPv6 on their own; of equal ones it is the network that came first.
	GatewayPriority int
	// Ports are published on the host. An invalid HostIP means the network's default, which is
	// 0.0.0.0 and, on a network with IPv6, also ::, under the same port.
	Ports []place.Port
	// DNS are name servers to ask instead of the host's for names outside.
	DNS []netip.Addr
	// Recycling counts at the container's first attachment.
	Recycling Recycling
}

// requested is what the request chooses for its interface.
func (r Request) requested() requested {
	return requested{r.IPv4, r.IPv6, r.MAC, r.Interface, r.Sysctls}
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
	// Ports are the published ports, one for each address of the host. HostIP is always valid.
	Ports []place.Bound
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
	if r.Interface != "" && !interfacePattern.MatchString(r.Interface) ||
		slices.Contains(reservedInterfaces, r.Interface) {
		return bad(
			"interface %q: want one to 15 letters, digits, '_', '.' and '-', none of %q",
			r.Interface, reservedInterfaces,
		)
	}
	for _, s := range r.Sysctls {
		if _, _, err := interfaceSysctl(s, "eth0"); err != nil {
			return bad("%w", err)
		}
	}
	for _, p := range r.Ports {
		if err := p.Validate(); err != nil {
			return fmt.Errorf("attach container %q: %w", r.ContainerID, err)
		}
	}
	for _, d := range r.DNS {
		if !d.IsValid() {
			return bad("name server: not an address")
		}
	}
	return nil
}

// interfacePattern is narrower than what the kernel takes (dev_valid_name), which is what people
// call interfaces.
var interfacePattern = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,14}$`)

// reservedInterfaces are names that the kernel keeps for loopback and for the settings of all
// interfaces.
var reservedInterfaces = []string{"lo", "all", "default"}

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
