package lxc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"strake/lxc/config"
	"strake/lxc/ocispec"
	"strake/network/link"
)

// nic is an interface of a container as it is recorded.
type nic struct {
	// Host is the host's end, or for a phys interface its name on the host.
	Host string `json:"host,omitempty"`
	Name string `json:"name"` // in the container
	Type string `json:"type"`
	Link string `json:"link,omitempty"`
	Down string `json:"down,omitempty"` // lxc.net.N.script.down
}

// network makes the container's network namespace with its interfaces.
func (l *starting) network(ctx context.Context) error {
	nets := l.cfg.Nets
	for _, n := range nets {
		if n.Type == "none" {
			return nil // the host's
		}
	}
	if _, shared := l.cfg.Namespace.Share["net"]; shared {
		return nil
	}
	if len(l.cfg.IDMap) > 0 {
		return nil // see lateNetwork
	}
	ns, err := link.Create(func(*os.File) error { return loopback() })
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer ns.Close()
	place := filepath.Join(l.c.run, "netns")
	if err := os.WriteFile(place, nil, 0o600); err != nil {
		return err
	}
	from := "/proc/self/fd/" + strconv.Itoa(int(ns.Fd()))
	if err := unix.Mount(from, place, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("keep network namespace: %w", err)
	}
	l.in.Netns = place
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()))
	if err != nil {
		return err
	}
	defer inside.Close()
	for i := range nets {
		if err := l.connect(ctx, &nets[i], ns, inside); err != nil {
			return fmt.Errorf("lxc.net.%d: %w", nets[i].Index, err)
		}
	}
	return nil
}

// lateNetwork makes the interfaces of a container with a user namespace of its own when its network
// namespace exists, which has to belong to that user namespace.
func (l *starting) lateNetwork(ctx context.Context) error {
	if len(l.cfg.IDMap) == 0 || len(l.cfg.Nets) == 0 || l.in.Shared["net"] != "" {
		return nil
	}
	ns, err := l.task.Namespace(specs.NetworkNamespace)
	if err != nil {
		return err
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()))
	if err != nil {
		return err
	}
	defer inside.Close()
	for i := range l.cfg.Nets {
		if err := l.connect(ctx, &l.cfg.Nets[i], ns, inside); err != nil {
			return fmt.Errorf("lxc.net.%d: %w", l.cfg.Nets[i].Index, err)
		}
	}
	return nil
}

// loopback brings the loopback interface of the calling thread's namespace up.
func loopback() error {
	s, err := link.Open()
	if err != nil {
		return err
	}
	defer s.Close()
	lo, err := s.ByName("lo")
	if err != nil {
		return err
	}
	return s.Do(link.SetUp(lo.Index))
}

// hostEnd names the host's end of an interface: it follows from the container's name, so that what
// a killed start has left is found.
func (c *Container) hostEnd(index int) string {
	sum := sha256.Sum256([]byte(c.dir + "\x00" + c.path.run + "\x00" + strconv.Itoa(index)))
	return "slx" + hex.EncodeToString(sum[:])[:10]
}

// connect makes one interface.
func (l *starting) connect(
	ctx context.Context, n *config.Net, ns *os.File, inside *netlink.Handle,
) error {
	made := nic{Type: n.Type, Link: n.Link, Name: n.Name, Down: n.ScriptDown}
	if made.Name == "" {
		made.Name = "eth" + strconv.Itoa(n.Index)
	}
	if n.Type == "empty" || n.Type == "" {
		return nil
	}
	made.Host = l.c.hostEnd(n.Index)
	if n.VethPair != "" && n.Type == "veth" {
		made.Host = n.VethPair
	}
	if n.Type == "phys" {
		made.Host = n.Link
	}
	// Recorded before it is made.
	l.rec.Nics = append(l.rec.Nics, made)
	if err := l.c.save(l.rec); err != nil {
		return err
	}
	if n.Type != "phys" {
		if old, err := netlink.LinkByName(made.Host); err == nil {
			if err := netlink.LinkDel(old); err != nil {
				return fmt.Errorf("remove a left interface %s: %w", made.Host, err)
			}
		}
	}
	name, err := addLink(n, &made, ns)
	if err != nil {
		return err
	}
	if err := configure(n, &made, name, inside); err != nil {
		return err
	}
	if n.ScriptUp != "" {
		return l.c.script(ctx, l.cfg, n.ScriptUp, "up", &made)
	}
	return nil
}

// addLink makes the interface in the namespace, or moves it there, and returns what it is called
// there for now.
func addLink(n *config.Net, made *nic, ns *os.File) (name string, err error) {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = made.Host, n.MTU
	var master netlink.Link
	if n.Link != "" {
		if master, err = netlink.LinkByName(n.Link); err != nil {
			return "", fmt.Errorf("link %q: %w", n.Link, err)
		}
	} else if n.Type != "veth" {
		return "", fmt.Errorf("type %s: want lxc.net.N.link: %w", n.Type, errdefs.ErrInvalidArgument)
	}
	if n.Type == "phys" {
		return n.Link, netlink.LinkSetNsFd(master, int(ns.Fd()))
	}
	if n.Type == "veth" {
		if master != nil && n.VethMode != "router" {
			a.MasterIndex = master.Attrs().Index
		}
		peer := made.Host[:min(len(made.Host), 14)] + "p"
		v := &netlink.Veth{
			LinkAttrs: a, PeerName: peer, PeerNamespace: netlink.NsFd(ns.Fd()),
			PeerMTU: uint32(n.MTU),
		}
		if n.VethTxQueues > 0 {
			v.NumTxQueues = n.VethTxQueues
		}
		if n.VethRxQueues > 0 {
			v.NumRxQueues = n.VethRxQueues
		}
		if err := netlink.LinkAdd(v); err != nil {
			return "", fmt.Errorf("add veth: %w", err)
		}
		return peer, netlink.LinkSetUp(v)
	}
	a.ParentIndex = master.Attrs().Index
	a.Namespace = netlink.NsFd(ns.Fd())
	var made2 netlink.Link
	switch n.Type {
	case "macvlan":
		made2 = &netlink.Macvlan{LinkAttrs: a, Mode: macvlanModes[n.MACVLANMode]}
	case "ipvlan":
		made2 = &netlink.IPVlan{
			LinkAttrs: a, Mode: ipvlanModes[n.IPVLANMode], Flag: ipvlanFlags[n.IPVLANIsolated],
		}
	case "vlan":
		made2 = &netlink.Vlan{LinkAttrs: a, VlanId: n.VLANID, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	default:
		return "", fmt.Errorf(
			"type %q: want veth, macvlan, ipvlan, vlan, phys, none or empty: %w", n.Type,
			errdefs.ErrInvalidArgument,
		)
	}
	if err := netlink.LinkAdd(made2); err != nil {
		return "", fmt.Errorf("add %s on %s: %w", n.Type, n.Link, err)
	}
	return made.Host, nil
}

var (
	macvlanModes = map[string]netlink.MacvlanMode{
		"": netlink.MACVLAN_MODE_PRIVATE, "private": netlink.MACVLAN_MODE_PRIVATE,
		"vepa": netlink.MACVLAN_MODE_VEPA, "bridge": netlink.MACVLAN_MODE_BRIDGE,
		"passthru": netlink.MACVLAN_MODE_PASSTHRU,
	}
	ipvlanModes = map[string]netlink.IPVlanMode{
		"": netlink.IPVLAN_MODE_L3, "l3": netlink.IPVLAN_MODE_L3, "l3s": netlink.IPVLAN_MODE_L3S,
		"l2": netlink.IPVLAN_MODE_L2,
	}
	ipvlanFlags = map[string]netlink.IPVlanFlag{
		"": netlink.IPVLAN_FLAG_BRIDGE, "bridge": netlink.IPVLAN_FLAG_BRIDGE,
		"private": netlink.IPVLAN_FLAG_PRIVATE, "vepa": netlink.IPVLAN_FLAG_VEPA,
	}
)

// configure gives an interface in the container its name, addresses and routes.
func configure(n *config.Net, made *nic, name string, inside *netlink.Handle) error {
	l, err := inside.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %q: %w", name, err)
	}
	if made.Name != name {
		if err := inside.LinkSetName(l, made.Name); err != nil {
			return fmt.Errorf("name %q: %w", made.Name, err)
		}
	}
	if n.HWAddr != "" {
		mac, err := hardware(n.HWAddr)
		if err == nil {
			err = inside.LinkSetHardwareAddr(l, mac)
		}
		if err != nil {
			return fmt.Errorf("hwaddr %q: %w", n.HWAddr, err)
		}
	}
	for _, a := range append(n.IPv4[:len(n.IPv4):len(n.IPv4)], n.IPv6...) {
		addr := &netlink.Addr{IPNet: ipNet(a.Prefix)}
		if a.Broadcast.IsValid() {
			addr.Broadcast = net.IP(a.Broadcast.AsSlice())
		}
		if err := inside.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("address %s: %w", a.Prefix, err)
		}
	}
	if !n.Up {
		return nil
	}
	if err := inside.LinkSetUp(l); err != nil {
		return err
	}
	for family, g := range map[int]config.Gateway{
		netlink.FAMILY_V4: n.IPv4Gateway, netlink.FAMILY_V6: n.IPv6Gateway,
	} {
		if err := route(n, g, family, l, inside); err != nil {
			return err
		}
	}
	return nil
}

// route makes a default route.
func route(
	n *config.Net, g config.Gateway, family int, l netlink.Link, inside *netlink.Handle,
) error {
	r := &netlink.Route{LinkIndex: l.Attrs().Index}
	switch {
	case g.Auto:
		via, err := netlink.LinkByName(n.Link)
		if err != nil {
			return fmt.Errorf("gateway auto: link %q: %w", n.Link, err)
		}
		list, err := netlink.AddrList(via, family)
		if err != nil {
			return err
		}
		for _, a := range list {
			if a.IP.IsGlobalUnicast() {
				r.Gw = a.IP
				break
			}
		}
		if r.Gw == nil {
			return fmt.Errorf("gateway auto: %s has no address: %w", n.Link, errdefs.ErrFailedPrecondition)
		}
	case g.Dev:
		zero := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if family == netlink.FAMILY_V6 {
			zero = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		r.Dst, r.Scope = ipNet(zero), netlink.SCOPE_LINK
	case g.Addr.IsValid():
		r.Gw = net.IP(g.Addr.AsSlice())
	default:
		return nil
	}
	if err := inside.RouteAdd(r); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP: net.IP(p.Addr().AsSlice()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}
}

// hardware is a hardware address with random digits in the place of each x.
func hardware(s string) (net.HardwareAddr, error) {
	const digits = "0123456789abcdef"
	random := make([]byte, len(s))
	rand.Read(random)
	out := []byte(strings.ToLower(s))
	for i, c := range out {
		if c == 'x' {
			out[i] = digits[random[i]&15]
		}
	}
	return net.ParseMAC(string(out))
}

// script executes lxc.net.N.script.up or .down.
func (c *Container) script(
	ctx context.Context, cfg *config.Config, command, event string, made *nic,
) error {
	in := &ocispec.Input{
		Name: c.name, Config: cfg, ConfigFile: filepath.Join(c.dir, "config"), LXCPath: c.path.dir,
		Environ: os.Environ(),
	}
	args, env := ocispec.HookCall(in, event, command, ocispec.Moment{
		Section: "net", Args: []string{made.Type, made.Link, made.Host},
	})
	if said, err := runHook(ctx, args, env); err != nil {
		return fmt.Errorf("script.%s %q: %w: %s", event, command, err, said)
	}
	return nil
}

// removeNetwork removes what network has made. What is not there is no error.
func (c *Container) removeNetwork(ctx context.Context, cfg *config.Config, nics []nic) error {
	var errs []error
	place := filepath.Join(c.run, "netns")
	for i := range nics {
		n := &nics[i]
		if n.Down != "" && cfg != nil {
			if err := c.script(ctx, cfg, n.Down, "down", n); err != nil {
				c.path.log.Error("a script failed", "container", c.name, "error", err)
			}
		}
		switch n.Type {
		case "phys":
			errs = append(errs, giveBack(place, n))
		case "veth":
			l, err := netlink.LinkByName(n.Host)
			if err == nil {
				err = netlink.LinkDel(l)
			}
			var missing netlink.LinkNotFoundError
			if !errors.As(err, &missing) && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, err)
			}
		}
	}
	err := unix.Unmount(place, unix.MNT_DETACH)
	if err != nil && err != unix.ENOENT && err != unix.EINVAL {
		errs = append(errs, fmt.Errorf("unmount %q: %w", place, err))
	}
	return errors.Join(errs...)
}

// giveBack moves a physical interface back to the host's namespace under its name there.
func giveBack(place string, n *nic) error {
	if _, err := netlink.LinkByName(n.Host); err == nil {
		return nil
	}
	own, err := link.Current()
	if err != nil {
		return err
	}
	defer own.Close()
	ns, err := os.Open(place)
	if err != nil {
		return nil // the kernel gives it back when the namespace ends
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()))
	if err != nil {
		return err
	}
	defer inside.Close()
	l, err := inside.LinkByName(n.Name)
	if err != nil {
		return nil
	}
	if err := inside.LinkSetDown(l); err != nil {
		return err
	}
	if err := inside.LinkSetName(l, n.Host); err != nil {
		return err
	}
	return inside.LinkSetNsFd(l, int(own.Fd()))
}
