package network

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"time"

	"github.com/containerd/errdefs"

	"strake/network/ipam"
)

// Config says how a Manager works. Its zero value plus StateDir is usable.
type Config struct {
	// StateDir holds the records: <StateDir>/networks, endpoints, host.json. It is made when
	// missing. It must outlive the process but may be lost with a reboot, except that user-made
	// networks are lost with it. One Manager at a time; a lock says so.
	StateDir string

	// RunDir holds <RunDir>/endpoints, the records of attachments, which end with the host's boot:
	// best on a tmpfs. Empty means StateDir. Records of an earlier version in StateDir are moved.
	RunDir string

	// Prefix starts the name of every interface of this instance and is part of its nftables
	// table's name, so that engines with different Prefix live side by side. One to six letters and
	// digits, the first a letter, lower case. Empty means "strake".
	Prefix string

	// Pools are the ranges from which networks without a chosen subnet get one, in order; what
	// overlaps a route or an address of the host is passed over. Empty means DefaultPools.
	Pools []ipam.Block

	// PoolV6 is the range from which each network with IPv6 gets a /64. The zero value means a
	// random unique local /48 (RFC 4193), drawn once and kept in StateDir.
	PoolV6 netip.Prefix

	// DefaultIPv6 gives the network "bridge" IPv6, if the host has it
	// (net.ipv6.conf.all.disable_ipv6 is 0). IPv6 makes the host a router: Linux then accepts
	// router advertisements only on interfaces with accept_ra=2, which is set where it was 1.
	DefaultIPv6 bool

	// DefaultSubnets are what the network "bridge" has, at most one of each family; a family
	// without one gets one from the pools. An IPv6 one needs DefaultIPv6. A change of these two
	// takes effect in the first process that finds no container attached to the network.
	DefaultSubnets []Subnet

	// PoolSize is how many prepared namespaces wait for containers of the network "bridge"; other
	// networks keep a quarter of it once they are in use. Zero means 8, negative none. A waiting
	// namespace costs the kernel about 100 KiB.
	PoolSize int

	// MaxPooled bounds the waiting namespaces of one network including recycled ones. Zero means
	// 64.
	MaxPooled int

	// AddressDelay is how long a used address rests before another container may get it. Zero means
	// ten seconds.
	AddressDelay time.Duration

	// LegacyOwner is the owner of attachments whose Request or record names none: records of
	// versions that knew a single front end. Empty means "docker".
	LegacyOwner string

	// ResolvConf is the host's resolver configuration, read for the servers that questions are sent
	// on to. Empty means /etc/resolv.conf.
	ResolvConf string

	// Sysctls are set in each new namespace, for example net.ipv4.ip_unprivileged_port_start. Nil
	// means DefaultSysctls.
	Sysctls map[string]string

	// NetNS is the network namespace that plays the host. Nil means the process's own. The caller
	// keeps it open.
	NetNS *os.File

	// Logger receives what has no caller to return to. Nil discards.
	Logger *slog.Logger

	// Fault, if not nil, is called before each step that changes the kernel or the disk, with the
	// step's name: tests end the process there.
	Fault func(step string)
}

// DefaultPools are the private ranges that others customarily leave to containers: a /16 for the
// first network, then 224 times a /20, then 256 times a /24.
func DefaultPools() []ipam.Block {
	blocks := []ipam.Block{{Base: netip.MustParsePrefix("172.17.0.0/16"), Bits: 16}}
	for i := byte(18); i <= 31; i++ {
		blocks = append(
			blocks,
			ipam.Block{Base: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i}), 16), Bits: 20},
		)
	}
	return append(blocks, ipam.Block{Base: netip.MustParsePrefix("192.168.0.0/16"), Bits: 24})
}

// DefaultSysctls are those for which no container needs a privilege in a namespace of its own: low
// ports and ping.
func DefaultSysctls() map[string]string {
	return map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647",
	}
}

var (
	prefixPattern = regexp.MustCompile(`^[a-z][a-z0-9]{0,5}$`)
	namePattern   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)
	// networkPattern allows spaces inside of a name, which dockerd does too.
	networkPattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_. -]{0,126}[a-zA-Z0-9_.-])?$`)
	ownerPattern   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	sysctlPattern  = regexp.MustCompile(`^net(\.[a-zA-Z0-9_-]+)+$`)
)

// complete fills in the defaults and names the first field that cannot be used, as an
// errdefs.ErrInvalidArgument.
func (c Config) complete() (Config, error) {
	if c.Prefix == "" {
		c.Prefix = "strake"
	}
	if len(c.Pools) == 0 {
		c.Pools = DefaultPools()
	}
	if c.LegacyOwner == "" {
		c.LegacyOwner = "docker"
	}
	if c.Sysctls == nil {
		c.Sysctls = DefaultSysctls()
	}
	if c.PoolSize == 0 {
		c.PoolSize = 8
	}
	c.PoolSize = max(c.PoolSize, 0)
	if c.MaxPooled == 0 {
		c.MaxPooled = 64
	}
	c.MaxPooled = max(c.MaxPooled, c.PoolSize)
	if c.AddressDelay == 0 {
		c.AddressDelay = 10 * time.Second
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Fault == nil {
		c.Fault = func(string) {}
	}
	return c, c.validate()
}

// validate names the first field of a complete Config that cannot be used.
func (c Config) validate() error {
	if c.StateDir == "" {
		return fmt.Errorf(
			"network: StateDir is empty, want a directory: %w", errdefs.ErrInvalidArgument,
		)
	}
	if !prefixPattern.MatchString(c.Prefix) {
		return fmt.Errorf(
			"network: Prefix %q: want one to six of a-z and 0-9, the first a letter: %w", c.Prefix,
			errdefs.ErrInvalidArgument,
		)
	}
	for _, b := range c.Pools {
		if err := b.Validate(); err != nil {
			return fmt.Errorf("network: Pools: %w", err)
		}
		if !b.Base.Addr().Is4() || b.Bits > 29 {
			return fmt.Errorf(
				"network: Pools: %s by /%d: want IPv4, subnets of /29 or larger: %w", b.Base,
				b.Bits, errdefs.ErrInvalidArgument,
			)
		}
	}
	if c.PoolV6.IsValid() && (!c.PoolV6.Addr().Is6() || c.PoolV6.Bits() > 64) {
		return fmt.Errorf(
			"network: PoolV6 %q: want an IPv6 range of /64 or larger: %w", c.PoolV6,
			errdefs.ErrInvalidArgument,
		)
	}
	for _, s := range c.DefaultSubnets {
		if s.Prefix.IsValid() && s.Prefix.Addr().Is6() && !c.DefaultIPv6 {
			return fmt.Errorf(
				"network: DefaultSubnets: %s needs DefaultIPv6: %w", s.Prefix,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	if !ownerPattern.MatchString(c.LegacyOwner) {
		return fmt.Errorf(
			"network: LegacyOwner %q: want one to 32 of a-z, 0-9 and '-', the first a letter: %w",
			c.LegacyOwner, errdefs.ErrInvalidArgument,
		)
	}
	for k := range c.Sysctls {
		if !sysctlPattern.MatchString(k) {
			return fmt.Errorf(
				"network: Sysctls: %q: want a name that starts with net.: %w", k,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	return nil
}

// owner is the owner that a request or a record means by name.
func (c *Config) owner(name string) string {
	if name == "" {
		return c.LegacyOwner
	}
	return name
}

// tableName is the nftables table of an instance. All instances' names start the same way, so that
// one can see whether others are left.
func tableName(prefix string) string {
	if prefix == "strake" {
		return "strake"
	}
	return "strake_" + prefix
}

// ownInterface recognises the names of interfaces of an instance: bridges (0, -), veth ends towards
// containers (v) and the resolver (r), further bridges of a large network (s) and both ends of what
// joins them (u, w). No name of one prefix is a name of another.
func ownInterface(prefix string) *regexp.Regexp {
	return regexp.MustCompile(`^` + prefix + `(0|[-vrsuw][0-9a-f]{8})$`)
}
