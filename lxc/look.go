package lxc

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/lxc/config"
)

// Look is what lxc-info and lxc-ls show of a container beside its state. What cannot be told is
// zero.
type Look struct {
	Auto         bool
	Groups       []string
	Unprivileged bool

	Interfaces []string // in the container
	IPv4, IPv6 []string
	Links      []Link

	Memory, Swap, KernelMemory uint64 // bytes
	CPUNanos                   uint64
	IOBytes                    uint64
}

// Link is a host's end of an interface with what the container has sent and received.
type Link struct {
	Name             string
	TxBytes, RxBytes uint64
}

// Look reads what can be seen of a container of a status.
func (c *Container) Look(st *Status) (*Look, error) {
	l := &Look{}
	cfg, err := c.Config()
	if st.State != Stopped {
		if kept, keptErr := config.Load(filepath.Join(c.run, "config")); keptErr == nil {
			cfg, err = kept, nil
		}
	}
	if err != nil {
		return l, err
	}
	l.Auto, l.Groups, l.Unprivileged = cfg.Start.Auto, cfg.Groups, len(cfg.IDMap) > 0
	if st.Pid == 0 {
		return l, nil
	}
	l.lookNetwork(st)
	l.lookGroup(st)
	return l, nil
}

// lookNetwork reads addresses in the container's namespace. One that ends meanwhile has none.
func (l *Look) lookNetwork(st *Status) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", st.Pid))
	if err != nil {
		return
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()))
	if err != nil {
		return
	}
	defer inside.Close()
	list, err := inside.LinkList()
	if err != nil {
		return
	}
	for _, link := range list {
		l.Interfaces = append(l.Interfaces, link.Attrs().Name)
		if link.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := inside.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			ip, ok := netip.AddrFromSlice(a.IP)
			switch {
			case !ok || ip.IsLinkLocalUnicast():
			case ip.Unmap().Is4():
				l.IPv4 = append(l.IPv4, ip.Unmap().String())
			default:
				l.IPv6 = append(l.IPv6, ip.String())
			}
		}
	}
	slices.Sort(l.Interfaces)
	for _, name := range st.Nics {
		link, err := netlink.LinkByName(name)
		if err != nil || link.Attrs().Statistics == nil {
			continue
		}
		// What the host's end receives the container has sent.
		s := link.Attrs().Statistics
		l.Links = append(l.Links, Link{Name: name, TxBytes: s.RxBytes, RxBytes: s.TxBytes})
	}
}

func (l *Look) lookGroup(st *Status) {
	host, err := cgroup.Detect("")
	if err != nil {
		return
	}
	g, err := host.At(st.Group)
	if err != nil {
		return
	}
	stats, err := g.Stats()
	if err != nil {
		return
	}
	l.Memory, l.Swap, l.CPUNanos = stats.Memory.Usage, stats.Memory.SwapUsage, stats.CPU.TotalNanos
	l.KernelMemory = stats.Memory.Stat["kernel"]
	const kmem = "memory.kmem.usage_in_bytes" // version 1 has it in a file of its own
	if dir, err := groupDir(g, host.Hierarchies(), kmem); err == nil {
		if raw, err := os.ReadFile(filepath.Join(dir, kmem)); err == nil {
			// What is no number is shown as what cannot be told.
			l.KernelMemory, _ = strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
		}
	}
	for _, e := range stats.IO {
		l.IOBytes += e.Bytes
	}
}

// Item is what the configuration of the container says of a key: that of its run, if it runs.
func (c *Container) Item(key string) ([]string, error) {
	cfg, err := config.Load(filepath.Join(c.run, "config"))
	if errors.Is(err, os.ErrNotExist) {
		cfg, err = c.Config()
	}
	if err != nil {
		return nil, err
	}
	return cfg.Get(key)
}

// InGroups says whether the container is in one of some groups.
func (l *Look) InGroups(groups []string) bool {
	return slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(l.Groups, g) })
}

// mountedBelow lists mount points below a directory, the innermost first.
func mountedBelow(dir string) (list []string, err error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		const mountPoint = 4
		if len(f) > mountPoint && strings.HasPrefix(f[mountPoint]+"/", dir+"/") {
			list = append(list, f[mountPoint])
		}
	}
	slices.Reverse(list)
	return list, nil
}

// unmountBelow unmounts what is mounted below a directory.
func unmountBelow(dir string) error {
	list, err := mountedBelow(dir)
	errs := []error{err}
	for _, m := range list {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("unmount %q: %w", m, err))
		}
	}
	return errors.Join(errs...)
}
