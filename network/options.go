package network

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// options are the driver options of a network, understood.
type options struct {
	device     string     // chosen name of the bridge
	mtu        int        // 0 for the kernel's default
	isolated   bool       // containers do not reach each other
	masquerade bool       // packets leave with the host's address
	hostAddr   netip.Addr // where ports are published by default; invalid for everywhere
}

// Names of the options, as Docker's bridge driver has them.
const (
	optDevice     = "com.docker.network.bridge.name"
	optMTU        = "com.docker.network.driver.mtu"
	optICC        = "com.docker.network.bridge.enable_icc"
	optMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optHostAddr   = "com.docker.network.bridge.host_binding_ipv4"
	optDefault    = "com.docker.network.bridge.default_bridge"
)

var devicePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$`)

// parseOptions understands driver options. An unknown one is an errdefs.ErrInvalidArgument that
// lists the known ones.
func parseOptions(in map[string]string) (options, error) {
	o := options{masquerade: true}
	names := make([]string, 0, len(in))
	for k := range in {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		v := in[k]
		bad := func(want string) error {
			return fmt.Errorf(
				"network option %q: %q: want %s: %w", k, v, want, errdefs.ErrInvalidArgument,
			)
		}
		var err error
		switch k {
		case optDevice:
			if o.device = v; !devicePattern.MatchString(v) {
				return o, bad("a name of 1 to 15 letters, digits, '_', '.' and '-'")
			}
		case optMTU:
			if o.mtu, err = strconv.Atoi(v); err != nil || o.mtu < 68 || o.mtu > 65535 {
				return o, bad("68 to 65535")
			}
		case optICC:
			var icc bool
			if icc, err = strconv.ParseBool(v); err != nil {
				return o, bad("true or false")
			}
			o.isolated = !icc
		case optMasquerade:
			if o.masquerade, err = strconv.ParseBool(v); err != nil {
				return o, bad("true or false")
			}
		case optHostAddr:
			if o.hostAddr, err = netip.ParseAddr(v); err != nil || !o.hostAddr.Is4() {
				return o, bad("an IPv4 address")
			}
			if o.hostAddr.IsUnspecified() {
				o.hostAddr = netip.Addr{}
			}
		case optDefault:
			// Says which network is the default; ours says so by its name.
		default:
			known := []string{optDevice, optMTU, optICC, optMasquerade, optHostAddr}
			return o, fmt.Errorf(
				"network option %q is not known; known are %s: %w", k, strings.Join(known, ", "),
				errdefs.ErrInvalidArgument,
			)
		}
	}
	return o, nil
}

// macOf derives a hardware address from an IPv4 address, so that peers' neighbour entries stay
// right when an address comes back. The first byte marks it locally administered (IEEE 802).
func macOf(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x53, b[0], b[1], b[2], b[3]}
}

// resolverMAC is the hardware address of the resolver's interface in every network.
func resolverMAC() net.HardwareAddr { return net.HardwareAddr{0x0e, 0x53, 0, 0, 0, 0x35} }
