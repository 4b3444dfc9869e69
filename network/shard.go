package network

import (
	"errors"
	"fmt"
	"hash/fnv"

	"golang.org/x/sys/unix"

	"strake/network/firewall"
	"strake/network/link"
)

// A network's first bridge carries its addresses. When its ports are used up, further bridges take
// containers, each joined to the first by a veth pair: a star, so that a frame crosses at most two
// joints. BR_MAX_PORTS of the kernel (net/bridge/br_private.h) is 1024, port 0 unused.
const (
	// portsPerShard leaves some of the 1,023 ports of every bridge for joints, the resolver and
	// what an administrator adds.
	portsPerShard = 960
	maxShards     = 64
)

// shard is one bridge of a network.
type shard struct {
	device string
	index  int // guarded by Manager.mu; 0 until it is up
	ports  int // guarded by Manager.mu; ends of pairs that are ports of it
}

// shardName derives the name of something of a network's i-th further bridge: s the bridge, u and w
// the ends of its joint.
func (m *Manager) shardName(n *network, class string, i int) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d", n.rec.ID, i)
	return fmt.Sprintf("%s%s%08x", m.cfg.Prefix, class, h.Sum32())
}

func (m *Manager) isShardOf(n *network, name string) bool {
	for i := 1; i < maxShards; i++ {
		if name == m.shardName(n, "s", i) {
			return true
		}
	}
	return false
}

// bringUpShard makes the i-th bridge, as far as it is not there. Precondition: n.setup is held.
func (m *Manager) bringUpShard(n *network, i int) error {
	s := n.shards[i]
	mac := macOf(n.v4.Gateway)
	if i > 0 {
		mac[0], mac[1] = 0x06, byte(i)
	}
	m.cfg.Fault("bring up: bridge")
	if err := m.rt.Do(link.AddBridge(s.device, mac, n.opts.mtu)); err != nil &&
		!errors.Is(err, unix.EEXIST) {
		return err
	}
	info, err := m.rt.ByName(s.device)
	if err != nil {
		return err
	}
	if info.Kind != "bridge" {
		return fmt.Errorf("interface %q exists and is not a bridge: %w", s.device, unix.EEXIST)
	}
	m.cfg.Fault("bring up: bridge settings")
	v6 := n.v6.Prefix.IsValid()
	if err := link.Enter(
		m.cfg.NetNS, func() error { return bridgeSysctls(s.device, v6, i == 0) },
	); err != nil {
		return err
	}
	m.mu.Lock()
	s.index = info.Index
	root := n.shards[0].index
	m.mu.Unlock()
	if i > 0 {
		return m.joint(n, i, root, info.Index)
	}
	m.cfg.Fault("bring up: addresses")
	for _, p := range n.bridgeAddresses() {
		if err := m.rt.Do(link.AddAddress(info.Index, p)); err != nil &&
			!errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// bridgeSysctls configures a bridge interface. These are settings of our own interface; they go
// with it.
func bridgeSysctls(device string, v6, root bool) error {
	set := func(family, key, value string) error {
		return writeSysctl(confName(family, device, key), value)
	}
	if root {
		// For answers from containers to connections that the host made to 127.0.0.1. The chain
		// "spoofed" keeps everything else out.
		if err := set("ipv4", "route_localnet", "1"); err != nil {
			return err
		}
	}
	if v6 && root {
		// Where interfaces are born without IPv6, ours gets it all the same: the network was
		// defined with it.
		return errors.Join(
			set("ipv6", "accept_dad", "0"), set("ipv6", "accept_ra", "0"),
			set("ipv6", "disable_ipv6", "0"),
		)
	}
	if err := set("ipv6", "disable_ipv6", "1"); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// joint connects the i-th bridge to the first.
func (m *Manager) joint(n *network, i, root, index int) error {
	up, down := m.shardName(n, "u", i), m.shardName(n, "w", i)
	m.cfg.Fault("bring up: joint")
	if err := m.rt.Do(link.AddVethPorts(up, root, down)); err != nil &&
		!errors.Is(err, unix.EEXIST) {
		return err
	}
	info, err := m.rt.ByName(down)
	if err != nil {
		return err
	}
	return m.rt.Do(link.SetMaster(info.Index, index), link.SetUp(info.Index))
}

// place finds a bridge of the network with a free port, and counts it as taken; it makes a further
// bridge when there is none.
func (m *Manager) place(n *network) (*shard, error) {
	take := func() *shard {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, s := range n.shards {
			if s.ports < portsPerShard {
				s.ports++
				return s
			}
		}
		return nil
	}
	if s := take(); s != nil {
		return s, nil
	}
	n.setup.Lock()
	defer n.setup.Unlock()
	if s := take(); s != nil { // somebody else made one meanwhile
		return s, nil
	}
	m.mu.Lock()
	i := len(n.shards)
	// Isolation is a matter between ports of one bridge; over a joint it would end.
	if i >= maxShards || n.opts.isolated {
		m.mu.Unlock()
		return nil, fmt.Errorf(
			"network %q has %d bridges full of containers: %w", n.rec.Name, i, unix.ENOSPC,
		)
	}
	n.shards = append(n.shards, &shard{device: m.shardName(n, "s", i), ports: portsPerShard})
	m.mu.Unlock()
	err := m.bringUpShard(n, i)
	if err == nil {
		m.mu.Lock()
		f := n.filter()
		m.mu.Unlock()
		err = m.filter(
			firewall.State{}, firewall.State{Networks: []firewall.Network{f}}, incremental,
		)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		n.shards = n.shards[:i]
		return nil, fmt.Errorf("network %q: further bridge: %w", n.rec.Name, err)
	}
	n.shards[i].ports = 1
	return n.shards[i], nil
}

// wireName draws a name for our end of a pair.
func (m *Manager) wireName() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		name := m.cfg.Prefix + "v" + randomHex(4)
		if !m.wires[name] {
			m.wires[name] = true
			return name
		}
	}
}

// rediscover finds the further bridges that a former process made, and counts their ports.
// Precondition: n.setup is held.
func (m *Manager) rediscover(n *network) error {
	links, err := m.rt.Links()
	if err != nil {
		return err
	}
	byName := map[string]link.Info{}
	ports := map[int]int{}
	for _, l := range links {
		byName[l.Name] = l
		ports[l.Master]++
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(n.shards); i < maxShards; i++ {
		l, ok := byName[m.shardName(n, "s", i)]
		if !ok {
			break
		}
		n.shards = append(n.shards, &shard{device: l.Name})
	}
	for _, s := range n.shards {
		if l, ok := byName[s.device]; ok {
			s.ports = ports[l.Index]
		}
	}
	return nil
}
