package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

var networks = kind{set: setNetwork, get: getNetwork, clear: clearNetwork}

// netKey is one row of the table of what follows lxc.net.N and a dot.
type netKey struct {
	name string
	// of is the type of network that has this key; "": all have it.
	of string
	at func(*Net) any
	*kind
}

func wholeNet(n *Net) any { return n }

// netKeys are in the order in which lxc-info lists them.
var netKeys = []netKey{
	{"type", "", wholeNet, &netType},
	{"script.up", "", func(n *Net) any { return &n.ScriptUp }, &text},
	{"script.down", "", func(n *Net) any { return &n.ScriptDown }, &text},
	{"flags", "", func(n *Net) any { return &n.Up }, &netFlags},
	{"link", "", func(n *Net) any { return &n.Link }, &linkName},
	{"l2proxy", "", func(n *Net) any { return &n.L2Proxy }, &boolean},
	{"name", "", func(n *Net) any { return &n.Name }, &interfaceName},
	{"hwaddr", "", func(n *Net) any { return &n.HWAddr }, &hardware},
	{"mtu", "", func(n *Net) any { return &n.MTU }, &mtu},
	{"ipv6.address", "", func(n *Net) any { return &n.IPv6 }, &ipv6Address},
	{"ipv6.gateway", "", func(n *Net) any { return &n.IPv6Gateway }, &ipv6Gateway},
	{"ipv4.address", "", func(n *Net) any { return &n.IPv4 }, &ipv4Address},
	{"ipv4.gateway", "", func(n *Net) any { return &n.IPv4Gateway }, &ipv4Gateway},
	{"veth.mode", "veth", func(n *Net) any { return &n.VethMode }, &vethMode},
	{"veth.pair", "veth", func(n *Net) any { return &n.VethPair }, &interfaceName},
	{"veth.n_rxqueues", "veth", func(n *Net) any { return &n.VethRxQueues }, &queues},
	{"veth.n_txqueues", "veth", func(n *Net) any { return &n.VethTxQueues }, &queues},
	{"veth.ipv4.route", "veth", func(n *Net) any { return &n.VethIPv4Routes }, &ipv4Route},
	{"veth.ipv6.route", "veth", func(n *Net) any { return &n.VethIPv6Routes }, &ipv6Route},
	{"veth.vlan.id", "veth", func(n *Net) any { return &n.VethVLANID }, &bridgeVLAN},
	{"veth.vlan.tagged.id", "veth", func(n *Net) any { return &n.VethVLANTagged }, &taggedVLANs},
	{"macvlan.mode", "macvlan", func(n *Net) any { return &n.MACVLANMode }, &macvlanMode},
	{"ipvlan.mode", "ipvlan", func(n *Net) any { return &n.IPVLANMode }, &ipvlanMode},
	{"ipvlan.isolation", "ipvlan", func(n *Net) any { return &n.IPVLANIsolated }, &isolation},
	{"vlan.id", "vlan", func(n *Net) any { return &n.VLANID }, &vlan},
}

// cutNetKey splits "lxc.net.0.link" into "lxc.net.0." and "link".
func cutNetKey(name string) (prefix, word string, ok bool) {
	rest, ok := strings.CutPrefix(name, "lxc.net.")
	digits, word, found := strings.Cut(rest, ".")
	if _, err := netIndex(digits); !ok || !found || err != nil {
		return "", "", false
	}
	return name[:len(name)-len(word)], word, true
}

// netIndex reads the number of an interface, which is in decimal without leading zeros.
func netIndex(digits string) (int, error) {
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n >= maxInt32 || strconv.Itoa(n) != digits {
		return 0, refusal("want the number of an interface, as in lxc.net.0.type")
	}
	return n, nil
}

// splitNet reads what follows "lxc.net.": the number, and the row of the sub key if there is one.
func splitNet(sub string) (int, *netKey, error) {
	digits, word, more := strings.Cut(sub, ".")
	index, err := netIndex(digits)
	if err != nil || !more {
		return index, nil, err
	}
	for i := range netKeys {
		if netKeys[i].name == word {
			return index, &netKeys[i], nil
		}
	}
	return 0, nil, noKey("")
}

// findNet says where the interface with a number is in Nets, or belongs.
func (c *Config) findNet(index int) (int, bool) {
	return slices.BinarySearchFunc(c.Nets, index, func(n Net, i int) int { return n.Index - i })
}

// setNetwork sets one key of one interface, which is made if it is not there. A type, as in LXC,
// takes away what the interface had before, so it comes first.
func setNetwork(at any, sub, value string) error {
	c := at.(*Config)
	if sub == "" {
		return refusal("this key clears all networks and takes no value")
	}
	index, k, err := splitNet(sub)
	if err != nil {
		return err
	}
	if k == nil {
		return refusal("this key clears the network and takes no value")
	}
	i, found := c.findNet(index)
	n := Net{Index: index}
	if found {
		n = c.Nets[i]
	}
	if err := k.belongs(&n); err != nil {
		return err
	}
	if err := k.set(k.at(&n), "", value); err != nil {
		return err
	}
	if !found {
		c.Nets = slices.Insert(c.Nets, i, n)
	}
	c.Nets[i] = n
	return nil
}

// belongs refuses a key that the type of an interface does not have.
func (k *netKey) belongs(n *Net) error {
	if k.of == "" || k.of == n.Type {
		return nil
	}
	if n.Type == "" {
		return refusal(fmt.Sprintf("only for type %s: set lxc.net.%d.type first", k.of, n.Index))
	}
	return refusal(fmt.Sprintf("only for type %s: lxc.net.%d has type %s", k.of, n.Index, n.Type))
}

// getNetwork prints the types of all interfaces, the names of the sub keys of one, or a value.
func getNetwork(at any, sub string) []string {
	c := at.(*Config)
	if sub == "" {
		var types []string
		for _, n := range c.Nets {
			if n.Type == "" {
				n.Type = "(invalid)"
			}
			types = append(types, n.Type)
		}
		return types
	}
	index, k, err := splitNet(sub)
	i, found := c.findNet(index)
	if err != nil || !found {
		return nil
	}
	n := &c.Nets[i]
	if k == nil {
		return n.subKeys()
	}
	if k.get != nil {
		return k.get(k.at(n), n.Type)
	}
	return show(k.at(n))
}

// subKeys are the names of what an interface of its type can have.
func (n *Net) subKeys() []string {
	var names []string
	for i := range netKeys {
		k := &netKeys[i]
		if n.Type == "empty" && i >= 3 || k.belongs(n) != nil {
			continue
		}
		names = append(names, k.name)
	}
	return names
}

func clearNetwork(at any, sub string) {
	c := at.(*Config)
	if sub == "" {
		c.Nets = nil
		return
	}
	index, k, err := splitNet(sub)
	i, found := c.findNet(index)
	if err != nil || !found {
		return
	}
	switch {
	case k == nil:
		if c.Nets = slices.Delete(c.Nets, i, i+1); len(c.Nets) == 0 {
			c.Nets = nil
		}
	case k.clear != nil:
		k.clear(k.at(&c.Nets[i]), "")
	default:
		reset(k.at(&c.Nets[i]))
	}
}
