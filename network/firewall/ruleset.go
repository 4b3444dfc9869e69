// Package firewall is the packet filter and address translation of strake's networks: one nftables
// table of our own, and nothing else.
//
// The rules are fixed; networks and published ports are elements of sets and maps. So a packet
// costs the same with one published port and with ten thousand, and publishing a port adds an
// element to a map in one transaction instead of rewriting rules.
//
// Promises (the first three are packet tests of package network):
//
//   - A container is reached from outside its network only on published ports. A neighbour that
//     routes to a container's address, or that sends frames for 127.0.0.1 to us, gets nothing.
//   - Networks do not reach one another, except through a published port; a network marked internal
//     reaches nothing and is reached by nothing.
//   - A published port works from other hosts, from this host (also over 127.0.0.1) and from
//     containers, the publishing one included, and the container sees the real source address
//     wherever the answer can find its way back.
//   - The table appears, changes and goes in atomic transactions. No rule of others is read,
//     changed or relied on.
//
// The chains sit at the customary priorities, so an administrator can rule before us: a chain of
// type filter on hook prerouting with a priority between -199 and -101 sees published ports with
// their original destination (ct original), before our translation. An accept of ours cannot undo a
// drop of others: where another table drops forwarded packets by policy, containers do not get out
// until its owner allows the bridges (package network warns about it).
//
// Not for: filtering within a network, rate limits, the host's own firewall, kernels before 5.8
// (iifname in postrouting).
//
// Tested by golden files of the printed rule set, by round trips through the kernel in a network
// namespace of the test's own (what the kernel returns is decompiled and compared with the text),
// and by the packet tests of package network.
package firewall

import (
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names of the sets and maps. They are fixed: what changes is their elements.
const (
	setBridges   = "bridges"  // every bridge of ours
	setSame      = "same"     // pairs of interfaces between which packets pass: a bridge and itself
	setInternal  = "internal" // bridges without a way out
	setMasked    = "masked"   // bridges whose packets leave with the host's address
	setNear4     = "near4"    // bridges with the addresses behind them
	setNear6     = "near6"
	mapPorts4    = "ports4"    // published on one IPv4 address of the host
	mapPorts4Any = "ports4any" // published on all of them
	mapPorts6    = "ports6"
	mapPorts6Any = "ports6any"
)

// Set is a named set, or a map when Data is not empty. Key and Data are nft(8) type names.
type Set struct {
	Name      string
	Key, Data []string
	Interval  bool
}

// sets are what every table of ours has, in the order in which they are made and printed.
func sets() []Set {
	return []Set{
		{Name: setBridges, Key: []string{"ifname"}},
		{Name: setSame, Key: []string{"ifname", "ifname"}},
		{Name: setInternal, Key: []string{"ifname"}},
		{Name: setMasked, Key: []string{"ifname"}},
		{Name: setNear4, Key: []string{"ifname", "ipv4_addr"}, Interval: true},
		{Name: setNear6, Key: []string{"ifname", "ipv6_addr"}, Interval: true},
		{
			Name: mapPorts4, Key: []string{"inet_proto", "ipv4_addr", "inet_service"},
			Data: []string{"ipv4_addr", "inet_service"},
		},
		{
			Name: mapPorts4Any, Key: []string{"inet_proto", "inet_service"},
			Data: []string{"ipv4_addr", "inet_service"},
		},
		{
			Name: mapPorts6, Key: []string{"inet_proto", "ipv6_addr", "inet_service"},
			Data: []string{"ipv6_addr", "inet_service"},
		},
		{
			Name: mapPorts6Any, Key: []string{"inet_proto", "inet_service"},
			Data: []string{"ipv6_addr", "inet_service"},
		},
	}
}

// Chain is a base chain.
type Chain struct {
	Name, Type, Hook string
	Priority         int
	Rules            []Rule
}

// Rule is a sequence of statements: as a person writes them and as the kernel takes them.
type Rule struct {
	Text  string
	exprs []expr.Any
}

// chains are the rules. They depend on nothing.
func chains() []Chain {
	var (
		fromOurs  = iface(expr.MetaKeyIIFNAME, "iifname", setBridges, in)
		toOurs    = iface(expr.MetaKeyOIFNAME, "oifname", setBridges, in)
		toOthers  = iface(expr.MetaKeyOIFNAME, "oifname", setBridges, notIn)
		sameNet   = pair(setSame)
		dstLocal4 = prefix4("daddr", 16)
		srcLocal4 = prefix4("saddr", 12)
		natted    = ctBits(expr.CtKeySTATUS, "ct status dnat", ipsDstNAT)
	)
	publish := []Rule{
		rule(publishedPort(mapPorts4)),
		rule(publishedPort(mapPorts4Any)),
		rule(publishedPort(mapPorts6)),
		rule(publishedPort(mapPorts6Any)),
	}
	return []Chain{
		{Name: "spoofed", Type: "filter", Hook: "prerouting", Priority: -300, Rules: []Rule{
			// route_localnet on our bridges, which 127.0.0.1 as a published address needs, must not
			// open the host's loopback to containers.
			rule(fromOurs, dstLocal4, verdict(expr.VerdictDrop)),
			rule(fromOurs, srcLocal4, verdict(expr.VerdictDrop)),
		}},
		{Name: "published", Type: "nat", Hook: "prerouting", Priority: -100, Rules: append([]Rule{
			// Ports published on 127.0.0.1 are for this host: translated here, a neighbour's packet
			// would escape the martian check.
			rule(dstLocal4, verdict(expr.VerdictReturn)),
			rule(notLocal(), verdict(expr.VerdictReturn)),
		}, publish...)},
		{Name: "published_local", Type: "nat", Hook: "output", Priority: -100, Rules: append([]Rule{
			rule(notLocal(), verdict(expr.VerdictReturn)),
			// The kernel routes no packet with source ::1 off the loopback device; a relay serves
			// [::1].
			rule(loopback6(), verdict(expr.VerdictReturn)),
		}, publish...)},
		{Name: "forward", Type: "filter", Hook: "forward", Priority: 0, Rules: []Rule{
			rule(
				ctBits(expr.CtKeySTATE, "ct state established,related", ctEstablished|ctRelated),
				verdict(expr.VerdictAccept),
			),
			rule(sameNet, verdict(expr.VerdictAccept)),
			rule(iface(expr.MetaKeyIIFNAME, "iifname", setInternal, in), verdict(expr.VerdictDrop)),
			rule(iface(expr.MetaKeyOIFNAME, "oifname", setInternal, in), verdict(expr.VerdictDrop)),
			// An invalid packet is not translated: it would leave with a container's address.
			rule(
				fromOurs, toOthers, ctBits(expr.CtKeySTATE, "ct state invalid", ctInvalid),
				verdict(expr.VerdictDrop),
			),
			rule(toOurs, natted, verdict(expr.VerdictAccept)),
			rule(toOurs, verdict(expr.VerdictDrop)),
		}},
		{Name: "masquerade", Type: "nat", Hook: "postrouting", Priority: 100, Rules: []Rule{
			rule(toOurs, srcLocal4, masquerade()),
			// A container that reaches a neighbour, or itself, through a published port: the answer
			// must come back through us. Told by the source address, not by iifname: where bridged
			// packets are filtered too (br_netfilter), such a packet never leaves the bridge and
			// has none here.
			rule(near(setNear4), natted, masquerade()),
			rule(near(setNear6), natted, masquerade()),
			rule(iface(expr.MetaKeyIIFNAME, "iifname", setMasked, in), toOthers, masquerade()),
		}},
	}
}

// Render prints a table with the elements of a state the way nft(8) does, sorted, for people and
// for golden tests.
func Render(table string, s State) string {
	var b strings.Builder
	elements := s.elements()
	fmt.Fprintf(&b, "table inet %s {\n", table)
	for _, set := range sets() {
		kind, typ := "set", strings.Join(set.Key, " . ")
		if set.Data != nil {
			kind, typ = "map", typ+" : "+strings.Join(set.Data, " . ")
		}
		fmt.Fprintf(&b, "\t%s %s {\n\t\ttype %s\n", kind, set.Name, typ)
		if set.Interval {
			b.WriteString("\t\tflags interval\n")
		}
		if e := elements[set.Name]; len(e) > 0 {
			fmt.Fprintf(&b, "\t\telements = { %s }\n", strings.Join(texts(e), ",\n\t\t\t"))
		}
		b.WriteString("\t}\n")
	}
	for _, c := range chains() {
		fmt.Fprintf(
			&b, "\tchain %s {\n\t\ttype %s hook %s priority %d; policy accept;\n", c.Name, c.Type,
			c.Hook, c.Priority,
		)
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", r.Text)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// Bits of the kernel's connection tracking (linux/netfilter/nf_conntrack_common.h): IPS_DST_NAT,
// and the state bits as nft_ct.c presents them.
const (
	ipsDstNAT     = 1 << 5
	ctInvalid     = 1 << 0
	ctEstablished = 1 << 1
	ctRelated     = 1 << 2
)

// reg0 is the first of the sixteen 32-bit registers (NFT_REG32_00); a concatenation lies in
// consecutive ones.
const reg0 = unix.NFT_REG32_00
