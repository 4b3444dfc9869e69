package network

import (
	"net/netip"
	"time"
)

// DefaultName is the name of the network that always exists.
const DefaultName = "bridge"

// ResolverAddr is the name server of every container on one of our networks. It is link-local: on
// each network's link it is our resolver.
var ResolverAddr = netip.AddrFrom4([4]byte{169, 254, 53, 53})

// Spec describes a network to create.
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
	// Reserved are addresses that are not handed out. The key is a label that this package does not
	// use (Docker's auxiliary addresses).
	Reserved map[string]netip.Addr `json:",omitempty"`
}

// Network describes a network.
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
