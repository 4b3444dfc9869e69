package network

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"

	"golang.org/x/sys/unix"

	"strake/network/firewall"
	"strake/network/link"
)

// A network's first bridge carries its addresses. When its ports are used up, further bridges take
// containers, each joined to the first by a veth pair: a star, so that a frame crosses at most two
// joints. BR_MAX_PORTS of the kernel (net/bridge/br_private.h) is 1024, port 0 unused.
//
// Limit: where bridged packets are filtered too (br_netfilter), a connection from a further bridge
// to another host is not translated, and so gets no answer. Connection tracking sees its first
// packet in the further bridge already, decides there that nothing is to be translated, and keeps
// the decision with the packet across the joint. addShard warns.
const (
	// portsPerShard leaves some of the 1,023 ports of every bridge for joints, the resolver and
	// what an administrator adds.
	portsPerShard = 960
	maxShards     = 64
)

// shard is one bridge of a network.
type shard struct {
	device string
	index  int // guarded by registry.mu; 0 until it is up
	ports  int // guarded by registry.mu; ends of containers' pairs that are ports of it
}

// bridges makes and removes what networks have in the kernel: bridges, sysctls, filter elements,
// and an interface of the resolver.
type bridges struct {
	cfg    *Config
	host   *host
	reg    *registry
	filter *packetFilter
	names  *nameServer
}

// shardName derives the name of something of a network's i-th further bridge: class s is the
// bridge, u and w are the ends of the pair that joins it to the first.
func (c *Config) shardName(n *network, class string, i int) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d", n.rec.ID, i)
	return fmt.Sprintf("%s%s%08x", c.Prefix, class, h.Sum32())
}

func (c *Config) isShardOf(n *network, name string) bool {
	for i := 1; i < maxShards; i++ {
		if name == c.shardName(n, "s", i) {
			return true
		}
	}
	return false
}

// bringUp makes what the network needs in the kernel, as far as it is missing.
func (b *bridges) bringUp(n *network) error {
	n.setup.Lock()
	defer n.setup.Unlock()
	if n.up {
		return nil
	}
	if err := b.makeAll(n); err != nil {
		return fmt.Errorf("bring up network %q: %w", n.rec.Name, err)
	}
	n.up = true
	return nil
}

// makeAll is bringUp. Precondition: n.setup is held.
func (b *bridges) makeAll(n *network) error {
	if err := b.host.forward(n.v6.Prefix.IsValid()); err != nil {
		return err
	}
	if err := b.rediscover(n); err != nil {
		return err
	}
	for i := range n.shards {
		if err := b.makeShard(n, i); err != nil {
			return err
		}
	}
	b.reg.mu.Lock()
	n.filtered = true
	to := firewall.State{Networks: []firewall.Network{n.filter()}}
	b.reg.mu.Unlock()
	b.cfg.Fault("bring up: filter")
	if err := b.filter.update(firewall.State{}, to); err != nil {
		return err
	}
	b.cfg.Fault("bring up: resolver")
	return b.names.join(n)
}

// makeShard makes the i-th bridge, as far as it is missing. Precondition: n.setup is held.
func (b *bridges) makeShard(n *network, i int) error {
	s := n.shards[i]
	mac := macOf(n.v4.Gateway)
	if i > 0 {
		mac[0], mac[1] = 0x06, byte(i)
	}
	b.cfg.Fault("bring up: bridge")
	if err := b.host.rt.Do(link.AddBridge(s.device, mac, n.opts.mtu)); err != nil &&
		!errors.Is(err, unix.EEXIST) {
		return err
	}
	info, err := b.host.rt.ByName(s.device)
	if err != nil {
		return err
	}
	if info.Kind != "bridge" {
		return fmt.Errorf("interface %q exists and is not a bridge: %w", s.device, unix.EEXIST)
	}
	b.cfg.Fault("bring up: bridge settings")
	v6 := n.v6.Prefix.IsValid()
	if err := b.host.enter(
		func() error { return bridgeSysctls(s.device, v6, i == 0) },
	); err != nil {
		return err
	}
	b.reg.mu.Lock()
	s.index = info.Index
	root := n.shards[0].index
	b.reg.mu.Unlock()
	if i > 0 {
		return b.joinShard(n, i, root, info.Index)
	}
	b.cfg.Fault("bring up: addresses")
	for _, p := range n.bridgeAddresses() {
		if err := b.host.rt.Do(link.AddAddress(info.Index, p)); err != nil &&
			!errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// bridgeAddresses are the addresses of the bridge itself.
func (n *network) bridgeAddresses() []netip.Prefix {
	out := []netip.Prefix{netip.PrefixFrom(n.v4.Gateway, n.v4.Prefix.Bits())}
	if n.v6.Prefix.IsValid() {
		out = append(out, netip.PrefixFrom(n.v6.Gateway, n.v6.Prefix.Bits()))
	}
	return out
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
		// Where new interfaces have no IPv6, the bridge gets it all the same: the network was
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

// joinShard connects the i-th bridge to the first.
func (b *bridges) joinShard(n *network, i, root, index int) error {
	up, down := b.cfg.shardName(n, "u", i), b.cfg.shardName(n, "w", i)
	b.cfg.Fault("bring up: joint")
	if err := b.host.rt.Do(link.AddVethPorts(up, root, down)); err != nil &&
		!errors.Is(err, unix.EEXIST) {
		return err
	}
	info, err := b.host.rt.ByName(down)
	if err != nil {
		return err
	}
	return b.host.rt.Do(link.SetMaster(info.Index, index), link.SetUp(info.Index))
}

// freePort finds a bridge of the network with a free port, and counts the port as taken. It makes a
// further bridge when there is none.
func (b *bridges) freePort(n *network) (*shard, error) {
	take := func() *shard {
		b.reg.mu.Lock()
		defer b.reg.mu.Unlock()
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
	if s := take(); s != nil { // another caller made one meanwhile
		return s, nil
	}
	return b.addShard(n)
}

// addShard makes a further bridge and counts one of its ports as taken. Precondition: n.setup is
// held.
func (b *bridges) addShard(n *network) (*shard, error) {
	b.reg.mu.Lock()
	i := len(n.shards)
	// Isolation is a matter between ports of one bridge; over a joint it would end.
	if i >= maxShards || n.opts.isolated {
		b.reg.mu.Unlock()
		return nil, fmt.Errorf(
			"network %q has %d bridges full of containers: %w", n.rec.Name, i, unix.ENOSPC,
		)
	}
	n.shards = append(n.shards, &shard{device: b.cfg.shardName(n, "s", i), ports: portsPerShard})
	b.reg.mu.Unlock()
	if filtered, err := b.host.bridgedFiltered(); err != nil || filtered {
		b.cfg.Logger.Warn(
			"further containers of the network reach no other host while net.bridge.bridge-nf-call-iptables is 1",
			"network", n.rec.Name, "containers", portsPerShard, "error", err,
		)
	}
	err := b.makeShard(n, i)
	if err == nil {
		b.reg.mu.Lock()
		to := firewall.State{Networks: []firewall.Network{n.filter()}}
		b.reg.mu.Unlock()
		err = b.filter.update(firewall.State{}, to)
	}
	b.reg.mu.Lock()
	defer b.reg.mu.Unlock()
	if err != nil {
		n.shards = n.shards[:i]
		return nil, fmt.Errorf("network %q: further bridge: %w", n.rec.Name, err)
	}
	n.shards[i].ports = 1
	return n.shards[i], nil
}

// rediscover finds the further bridges that a former process made, and which recorded attachment is
// a port of which bridge. Precondition: n.setup is held.
func (b *bridges) rediscover(n *network) error {
	links, err := b.host.rt.Links()
	if err != nil {
		return err
	}
	byName := map[string]link.Info{}
	for _, l := range links {
		byName[l.Name] = l
	}
	b.reg.mu.Lock()
	defer b.reg.mu.Unlock()
	for i := len(n.shards); i < maxShards; i++ {
		l, ok := byName[b.cfg.shardName(n, "s", i)]
		if !ok {
			break
		}
		n.shards = append(n.shards, &shard{device: l.Name})
	}
	byIndex := map[int]*shard{}
	for _, s := range n.shards {
		if l, ok := byName[s.device]; ok {
			byIndex[l.Index] = s
		}
	}
	for _, ep := range b.reg.endpoints {
		if ep.net != n || ep.veth.shard != nil {
			continue
		}
		if s := byIndex[byName[ep.veth.host].Master]; s != nil {
			ep.veth.shard = s
			s.ports++
		}
	}
	return nil
}

// takeDown removes a network's bridges and their ports.
func (b *bridges) takeDown(n *network) error {
	links, err := b.host.rt.Links()
	if err != nil {
		return err
	}
	var ports, devices []link.Request
	for _, l := range links {
		if l.Kind != "bridge" || l.Name != n.rec.Device && !b.cfg.isShardOf(n, l.Name) {
			continue
		}
		devices = append(devices, link.Delete(l.Index))
		for _, port := range links {
			if port.Master == l.Index && b.host.own.MatchString(port.Name) {
				ports = append(ports, link.Delete(port.Index))
			}
		}
	}
	return errors.Join(b.host.deleteAll(ports), b.host.deleteAll(devices))
}

// discard removes everything that a network has in the kernel, and keeps it from coming up again.
// Precondition: no container is attached to it, and its pool is drained.
func (b *bridges) discard(n *network) error {
	// A namespace that is being prepared in the background finds the network gone and destroys
	// itself; its pair goes with the bridge's ports.
	n.setup.Lock()
	defer n.setup.Unlock()
	n.up = false
	b.reg.mu.Lock()
	was := firewall.State{Networks: []firewall.Network{n.filter()}}
	filtered := n.filtered
	n.filtered = false
	b.reg.mu.Unlock()
	b.cfg.Fault("discard: filter")
	var errs []error
	if filtered {
		errs = append(errs, b.filter.update(was, firewall.State{}))
	}
	errs = append(errs, b.names.leave(n))
	b.cfg.Fault("discard: bridges")
	return errors.Join(append(errs, b.takeDown(n))...)
}
