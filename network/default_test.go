package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"strake/network/link"
	"strake/network/place"
)

// TestWithoutIPv6: on a host that has none the default network is one of IPv4, and [::1] still
// leads to published ports.
func TestWithoutIPv6(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if err := link.Enter(
		l.host, func() error { return writeSysctl("net.ipv6.conf.all.disable_ipv6", "1") },
	); err != nil {
		t.Skipf("needs the kernel's IPv6, to switch it off: %v", err)
	}
	m := l.open(nil)
	a := l.attach(
		m,
		Request{
			ContainerID: "a",
			Ports:       []place.Port{{Proto: place.TCP, ContainerPort: 80, HostPort: 8080}},
		},
	)
	if a.IPv6.IsValid() || a.Gateway6.IsValid() || len(a.Ports) != 1 {
		t.Errorf("got %v by %v, ports %v; want IPv4 only", a.IPv6, a.Gateway6, a.Ports)
	}
	l.serve(a.NetNS, 80, "a")
	l.reaches("outside", l.outside, "tcp", hostAddr4+":8080", "a "+outsideAddr4)
}

// TestOnlyIPv4: a network without IPv6 on a host that has it.
func TestOnlyIPv4(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(func(c *Config) { c.DefaultIPv6 = false })
	loopback := netip.IPv6Loopback()
	a := l.attach(m, Request{ContainerID: "a", Ports: []place.Port{
		{Proto: place.TCP, ContainerPort: 80, HostPort: 8080},
		{Proto: place.UDP, ContainerPort: 80, HostPort: 8080},
		{Proto: place.TCP, ContainerPort: 80, HostPort: 8081, HostIP: loopback},
		{Proto: place.UDP, ContainerPort: 80, HostPort: 8081, HostIP: loopback},
	}})
	l.serve(a.NetNS, 80, "a")
	for _, proto := range []string{"tcp", "udp"} {
		for _, port := range []string{"8080", "8081"} {
			l.reaches("IPv6 loopback", l.host, proto, "[::1]:"+port, "a "+a.Gateway4.String())
		}
	}
	_, err := m.Attach(
		t.Context(),
		Request{
			ContainerID: "b",
			Ports: []place.Port{
				{
					Proto: place.TCP, ContainerPort: 80, HostPort: 8082,
					HostIP: netip.MustParseAddr(hostAddr6),
				},
			},
		},
	)
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "no IPv6") {
		t.Errorf("an IPv6 address for a network without: got %v", err)
	}
}

// TestDefaultNetwork: its subnets are the same in the next process, follow the configuration when
// nobody is attached, and stay when somebody is.
func TestDefaultNetwork(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	subnets := func(change func(*Config), attach string) (out []string) {
		t.Helper()
		cfg := l.config()
		cfg.PoolSize = -1
		if change != nil {
			change(&cfg)
		}
		m, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if attach != "" {
			l.attach(m, Request{ContainerID: attach})
		}
		n, err := m.InspectNetwork(t.Context(), DefaultName)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range n.Subnets {
			out = append(out, s.Prefix.String()+" by "+s.Gateway.String())
		}
		return out
	}
	equal := func(what string, got, want []string) {
		t.Helper()
		if strings.Join(got, ", ") != strings.Join(want, ", ") {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	drawn := subnets(nil, "")
	if p, err := netip.ParsePrefix(strings.Fields(drawn[1])[0]); err != nil || p.Bits() != 64 ||
		p.Addr().As16()[0] != 0xfd {
		t.Errorf("IPv6 subnet %v: want a /64 of fd00::/8 (RFC 4193)", drawn[1])
	}
	equal("the next process", subnets(nil, ""), drawn)
	chosen := func(c *Config) {
		c.DefaultSubnets = []Subnet{
			{
				Prefix:  netip.MustParsePrefix("10.99.0.0/24"),
				Gateway: netip.MustParseAddr("10.99.0.9"),
			},
			{Prefix: netip.MustParsePrefix("fd00:99::/64")},
		}
	}
	want := []string{"10.99.0.0/24 by 10.99.0.9", "fd00:99::/64 by fd00:99::1"}
	equal("chosen", subnets(chosen, ""), want)
	equal("no longer chosen, which is no wish", subnets(nil, ""), want)
	equal("IPv6 off", subnets(func(c *Config) { c.DefaultIPv6 = false }, "resident"), drawn[:1])
	equal("in use", subnets(chosen, ""), drawn[:1])
	cfg := l.config()
	cfg.DefaultIPv6 = false
	chosen(&cfg)
	if _, err := Open(cfg); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an IPv6 subnet without IPv6: %v", err)
	}
}

// TestAddressesAtOnce: an address that a container finds is usable; the kernel's search for
// duplicates (RFC 4862, 5.4) would take a second.
func TestAddressesAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(func(c *Config) { c.PoolSize = -1 })
	a := l.attach(m, Request{ContainerID: "a"})
	err := link.Enter(a.NetNS, func() error {
		// Without the search the kernel is done with an address when it has seen the other end come
		// up, in the background. Link-local ones count too: they are what neighbours are asked from.
		searches, err := filepath.Glob("/proc/sys/net/ipv6/conf/eth*/accept_dad")
		if err != nil || len(searches) != 1 {
			t.Errorf("settings of interfaces: %q, %v", searches, err)
		}
		for _, name := range searches {
			if raw, err := os.ReadFile(name); err != nil || string(raw) != "0\n" {
				t.Errorf("%s: %q, %v; want 0", name, raw, err)
			}
		}
		usable := func(flags map[string]uint64) bool {
			for _, f := range flags {
				const tentative = 0x40 // IFA_F_TENTATIVE
				if f&tentative != 0 {
					return false
				}
			}
			return len(flags) >= 2
		}
		flags, err := addressFlags()
		for deadline := time.Now().Add(10 * time.Second); err == nil && !usable(flags); {
			if time.Now().After(deadline) {
				t.Errorf("addresses %v: want the network's and a link-local one, usable", flags)
				break
			}
			flags, err = addressFlags()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
