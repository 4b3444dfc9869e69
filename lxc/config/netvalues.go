package config

import (
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Kinds of values of interfaces.
var (
	netType       = kind{set: setNetType, get: getNetType, clear: clearNetType}
	netFlags      = kind{set: setNetFlags, get: getNetFlags}
	linkName      = kind{set: setLinkName}
	interfaceName = kind{set: setInterfaceName}
	hardware      = kind{set: setHardware}
	mtu           = kind{set: setMTU, get: getPositive}
	queues        = kind{set: setQueues, get: getPositive}
	vlan          = kind{set: setVLAN}
	bridgeVLAN    = kind{set: setBridgeVLAN}
	taggedVLANs   = kind{set: setTaggedVLAN, get: getTaggedVLANs, clear: clearTaggedVLANs}
	vethMode      = kind{set: setVethMode, get: getVethMode}
	macvlanMode   = kind{set: setMACVLANMode, get: getMACVLANMode}
	ipvlanMode    = kind{set: setIPVLANMode, get: getIPVLANMode}
	isolation     = kind{set: setIsolation, get: getIsolation}
	ipv4Address   = kind{set: setIPv4Address, get: getAddresses, clear: clearAddresses}
	ipv6Address   = kind{set: setIPv6Address, get: getAddresses, clear: clearAddresses}
	ipv4Gateway   = kind{set: setIPv4Gateway, get: getGateway, clear: clearGateway}
	ipv6Gateway   = kind{set: setIPv6Gateway, get: getGateway, clear: clearGateway}
	ipv4Route     = kind{set: setIPv4Route, get: getRoutes, clear: clearRoutes}
	ipv6Route     = kind{set: setIPv6Route, get: getRoutes, clear: clearRoutes}
)

var netTypes = []string{"veth", "macvlan", "ipvlan", "vlan", "phys", "none", "empty"}

func setNetType(at any, _, value string) error {
	if err := oneOf(value, netTypes); err != nil {
		return err
	}
	n := at.(*Net)
	*n = Net{Index: n.Index, Type: value}
	return nil
}

func getNetType(at any, _ string) []string { return show(&at.(*Net).Type) }

func clearNetType(at any, _ string) {
	n := at.(*Net)
	*n = Net{Index: n.Index}
}

func setNetFlags(at any, _, value string) error {
	if value != "up" {
		return want("up, or nothing")
	}
	*at.(*bool) = true
	return nil
}

func getNetFlags(at any, _ string) []string {
	if *at.(*bool) {
		return []string{"up"}
	}
	return nil
}

// checkInterface refuses what the kernel does not take as a name of an interface.
func checkInterface(value string) error {
	if len(value) > 15 || value == "." || value == ".." || strings.ContainsAny(value, "/: \t") {
		return want("an interface: at most 15 bytes without white space, slash and colon")
	}
	return nil
}

func setLinkName(at any, _, value string) error { return setInterfaceName(at, "", value) }

func setInterfaceName(at any, _, value string) error {
	if err := checkInterface(value); err != nil {
		return err
	}
	*at.(*string) = value
	return nil
}

// setHardware takes a MAC address in which x stands for a digit that is chosen at random.
func setHardware(at any, _, value string) error {
	const form = "six bytes in hexadecimal with colons between them, where x stands for any digit"
	groups := strings.Split(value, ":")
	if len(groups) != 6 {
		return want(form)
	}
	for _, g := range groups {
		if len(g) != 2 || strings.Trim(g, "0123456789abcdefABCDEFxX") != "" {
			return want(form)
		}
	}
	if strings.ContainsRune("13579bdfBDF", rune(groups[0][1])) {
		return want("the address of one interface: the second digit is even")
	}
	*at.(*string) = value
	return nil
}

// CompleteHWAddr replaces every x of a hardware address, as lxc.net.N.hwaddr has it, by a digit
// that is read from random. The address stays that of one interface. The error is that of random.
func CompleteHWAddr(written string, random io.Reader) (string, error) {
	address := []byte(written)
	var b [1]byte
	for i, digit := range address {
		if digit != 'x' && digit != 'X' {
			continue
		}
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return "", err
		}
		if i == 1 {
			b[0] &^= 1 // the bit that says group
		}
		address[i] = "0123456789abcdef"[b[0]&15]
	}
	return string(address), nil
}

func setMTU(at any, _, value string) error { return setNumber(at, value, 68, 65535) }

func setQueues(at any, _, value string) error { return setNumber(at, value, 1, 4096) }

// getPositive prints nothing for a number that was not given.
func getPositive(at any, _ string) []string {
	if *at.(*int) == 0 {
		return nil
	}
	return show(at)
}

// lastVLAN is the highest number that 802.1Q leaves for use.
const lastVLAN = 4094

func setVLAN(at any, _, value string) error { return setNumber(at, value, 0, lastVLAN) }

func setBridgeVLAN(at any, _, value string) error {
	n, err := number(value, 0, lastVLAN)
	if err != nil && value != "none" {
		return want("none or a number from 0 to %d", lastVLAN)
	}
	if err == nil {
		value = strconv.FormatInt(n, 10)
	}
	*at.(*string) = value
	return nil
}

func setTaggedVLAN(at any, _, value string) error {
	n, err := number(value, 0, lastVLAN)
	if err == nil {
		p := at.(*[]int)
		*p = append(slices.Clip(*p), int(n))
	}
	return err
}

func getTaggedVLANs(at any, _ string) []string {
	var all []string
	for _, n := range *at.(*[]int) {
		all = append(all, strconv.Itoa(n))
	}
	return all
}

func clearTaggedVLANs(at any, _ string) { *at.(*[]int) = nil }

// Modes by type of interface. The first is the default.
var (
	vethModes    = []string{"bridge", "router"}
	macvlanModes = []string{"private", "vepa", "bridge", "passthru"}
	ipvlanModes  = []string{"l3", "l3s", "l2"}
	isolations   = []string{"bridge", "private", "vepa"}
)

func setMode(at any, value string, modes []string) error {
	err := oneOf(value, modes)
	if err == nil {
		*at.(*string) = value
	}
	return err
}

// getMode prints the mode of an interface, the default too if the interface is of the type.
func getMode(at any, modes []string) []string {
	if *at.(*string) == "" {
		return modes[:1:1]
	}
	return show(at)
}

func setVethMode(at any, _, value string) error { return setMode(at, value, vethModes) }

func getVethMode(at any, _ string) []string { return getMode(at, vethModes) }

func setMACVLANMode(at any, _, value string) error { return setMode(at, value, macvlanModes) }

func getMACVLANMode(at any, _ string) []string { return getMode(at, macvlanModes) }

func setIPVLANMode(at any, _, value string) error { return setMode(at, value, ipvlanModes) }

func getIPVLANMode(at any, _ string) []string { return getMode(at, ipvlanModes) }

func setIsolation(at any, _, value string) error { return setMode(at, value, isolations) }

func getIsolation(at any, _ string) []string { return getMode(at, isolations) }

// readAddress reads an address of one family with a prefix length, which may be missing if there is
// a default.
func readAddress(value string, v6 bool, missing func(netip.Addr) int) (netip.Prefix, bool) {
	text, length, more := strings.Cut(value, "/")
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Is6() != v6 || addr.Zone() != "" {
		return netip.Prefix{}, false
	}
	var bits int64
	switch {
	case more:
		if bits, err = number(length, 0, int64(addr.BitLen())); err != nil {
			return netip.Prefix{}, false
		}
	case missing != nil:
		bits = int64(missing(addr))
	default:
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, int(bits)), true
}

// classful is the prefix length that an IPv4 address had before there were prefix lengths.
func classful(addr netip.Addr) int {
	switch first := addr.As4()[0]; {
	case first < 128:
		return 8
	case first < 192:
		return 16
	case first < 224:
		return 24
	}
	return 0
}

func sixtyFour(netip.Addr) int { return 64 }

func setIPv4Address(at any, _, value string) error {
	const form = "an IPv4 address with its prefix length, and a broadcast address after a space " +
		"if it is to be set, as in 10.0.0.2/24 10.0.0.255"
	fields := strings.Fields(value)
	if len(fields) != 1 && len(fields) != 2 {
		return want(form)
	}
	prefix, ok := readAddress(fields[0], false, classful)
	if !ok {
		return want(form)
	}
	a := Address{Prefix: prefix}
	if len(fields) == 2 {
		broadcast, err := netip.ParseAddr(fields[1])
		if err != nil || !broadcast.Is4() {
			return want(form)
		}
		a.Broadcast = broadcast
	}
	p := at.(*[]Address)
	*p = append(slices.Clip(*p), a)
	return nil
}

func setIPv6Address(at any, _, value string) error {
	prefix, ok := readAddress(value, true, sixtyFour)
	if !ok {
		return want("an IPv6 address with its prefix length, as in 2001:db8::2/64")
	}
	p := at.(*[]Address)
	*p = append(slices.Clip(*p), Address{Prefix: prefix})
	return nil
}

func getAddresses(at any, _ string) []string {
	var all []string
	for _, a := range *at.(*[]Address) {
		all = append(all, a.Prefix.String())
	}
	return all
}

func clearAddresses(at any, _ string) { *at.(*[]Address) = nil }

func setGateway(at any, value string, v6 bool) error {
	g := at.(*Gateway)
	switch value {
	case "auto":
		*g = Gateway{Auto: true}
		return nil
	case "dev":
		*g = Gateway{Dev: true}
		return nil
	}
	addr, err := netip.ParseAddr(value)
	if err != nil || addr.Is6() != v6 || addr.Zone() != "" {
		return want("auto, dev or an address of the same family")
	}
	*g = Gateway{Addr: addr}
	return nil
}

func setIPv4Gateway(at any, _, value string) error { return setGateway(at, value, false) }

func setIPv6Gateway(at any, _, value string) error { return setGateway(at, value, true) }

func getGateway(at any, _ string) []string {
	switch g := at.(*Gateway); {
	case g.Auto:
		return []string{"auto"}
	case g.Dev:
		return []string{"dev"}
	case g.Addr.IsValid():
		return []string{g.Addr.String()}
	}
	return nil
}

func clearGateway(at any, _ string) { *at.(*Gateway) = Gateway{} }

func setRoute(at any, value string, v6 bool) error {
	prefix, ok := readAddress(value, v6, nil)
	if !ok {
		return want("a network of the key's family with its prefix length, as in 192.0.2.0/24 or " +
			"2001:db8::/64")
	}
	p := at.(*[]netip.Prefix)
	*p = append(slices.Clip(*p), prefix)
	return nil
}

func setIPv4Route(at any, _, value string) error { return setRoute(at, value, false) }

func setIPv6Route(at any, _, value string) error { return setRoute(at, value, true) }

func getRoutes(at any, _ string) []string {
	var all []string
	for _, r := range *at.(*[]netip.Prefix) {
		all = append(all, r.String())
	}
	return all
}

func clearRoutes(at any, _ string) { *at.(*[]netip.Prefix) = nil }
