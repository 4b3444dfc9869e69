package lxc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/internal/inroot"
)

// Group is the control group of a running container. Its methods may be called concurrently.
type Group struct{ c *Container }

// Group is the container's.
func (c *Container) Group() Group { return Group{c} }

// File is the path of a file of the container's control group, "memory.max", by the kernel's
// name for it. A file that the host does not have is errdefs.ErrNotFound.
func (g Group) File(file string) (string, error) {
	c := g.c
	r, err := c.running()
	if err != nil {
		return "", err
	}
	if strings.Contains(file, "/") || !strings.Contains(file, ".") {
		return "", fmt.Errorf(
			"%q: want the name of a control group's file: %w", file, errdefs.ErrInvalidArgument,
		)
	}
	host, err := cgroup.Detect("")
	if err != nil {
		return "", err
	}
	at, err := host.At(r.Task.Group)
	if err != nil {
		return "", err
	}
	dir, err := groupDir(at, host.Hierarchies(), file)
	return filepath.Join(dir, file), err
}

// Usage is what the container has used so far.
func (g Group) Usage() (*cgroup.Stats, error) {
	c := g.c
	r, err := c.running()
	if err != nil {
		return nil, err
	}
	host, err := cgroup.Detect("")
	if err != nil {
		return nil, err
	}
	at, err := host.At(r.Task.Group)
	if err != nil {
		return nil, err
	}
	return at.Stats()
}

// Devices are those of the host that a running container has been given. Its methods may be called
// concurrently.
type Devices struct{ c *Container }

// Devices are the container's.
func (c *Container) Devices() *Devices { return &Devices{c} }

// Add gives the running container a device of the host: a network interface, which moves into
// it, or the node at a path, with the right to use it. It keeps them until it ends. As is the name
// or the path in the container.
func (d *Devices) Add(ctx context.Context, name, as string) error {
	c := d.c
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := c.running()
	if err != nil {
		return err
	}
	if _, err := netlink.LinkByName(name); err == nil {
		return moveLink(c.name, "/proc/self/ns/net", nsPath(r.Pid), name, as)
	}
	return d.node(r, name, as, true)
}

// Remove takes a device from the running container: a network interface moves to the host, a
// node is removed with the right to use it. As is the interface's name on the host, or the node's
// path in the container.
func (d *Devices) Remove(ctx context.Context, name, as string) error {
	c := d.c
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := c.running()
	if err != nil {
		return err
	}
	err = moveLink(c.name, nsPath(r.Pid), "/proc/self/ns/net", name, as)
	if errdefs.IsNotFound(err) {
		return d.node(r, name, as, false)
	}
	return err
}

func nsPath(pid int) string { return fmt.Sprintf("/proc/%d/ns/net", pid) }

// moveLink moves an interface from one network namespace to another, where it has another name and
// is down. One that does not exist is errdefs.ErrNotFound.
func moveLink(container, from, to, name, as string) error {
	if len(as) >= unix.IFNAMSIZ || strings.ContainsAny(as, "/ \t") {
		if strings.Contains(name, "/") {
			return fmt.Errorf("interface %q: %w", name, errdefs.ErrNotFound)
		}
		return fmt.Errorf("%q: want the name of an interface: %w", as, errdefs.ErrInvalidArgument)
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Open(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	h, err := netlink.NewHandleAt(netns.NsHandle(src.Fd()))
	if err != nil {
		return err
	}
	defer h.Close()
	other, err := netlink.NewHandleAt(netns.NsHandle(dst.Fd()))
	if err != nil {
		return err
	}
	defer other.Close()
	l, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) || err == nil && l.Attrs().Flags&net.FlagLoopback != 0 {
		return fmt.Errorf(
			"container %q: interface %q: %w", container, name, errdefs.ErrNotFound,
		)
	}
	if err != nil {
		return err
	}
	if _, err := other.LinkByName(as); err == nil {
		return fmt.Errorf(
			"interface %q is there already: %w", as, errdefs.ErrAlreadyExists,
		)
	}
	if err := h.LinkSetDown(l); err != nil {
		return fmt.Errorf("interface %q: %w", name, err)
	}
	if as != name {
		// A name that is free where it comes from, too; otherwise the kernel says so.
		if err := h.LinkSetName(l, as); err != nil {
			return fmt.Errorf("name interface %q %q: %w", name, as, err)
		}
	}
	if err := h.LinkSetNsFd(l, int(dst.Fd())); err != nil {
		if as != name {
			err = errors.Join(err, h.LinkSetName(l, name))
		}
		return fmt.Errorf("move interface %q: %w", name, err)
	}
	return nil
}

// node makes or removes a device's node in the container and the right to use it.
func (d *Devices) node(r *record, name, as string, add bool) error {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return fmt.Errorf("device %q: %w", name, err)
	}
	kind := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		kind = "c"
	case unix.S_IFBLK:
		kind = "b"
	default:
		return fmt.Errorf(
			"%q: want an interface of the network or a device: %w", name, errdefs.ErrInvalidArgument,
		)
	}
	major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	rule := specs.LinuxDeviceCgroup{
		Allow: add, Type: kind, Major: &major, Minor: &minor, Access: "rwm",
	}
	if add {
		if err := d.allow(r, rule); err != nil {
			return err
		}
		return placeNode(r.Pid, as, &st)
	}
	return errors.Join(placeNode(r.Pid, as, nil), d.allow(r, rule))
}

// placeNode makes a node in the root file system of a process, or removes it. The tree is not
// trusted: its links lead nowhere else.
func placeNode(pid int, name string, st *unix.Stat_t) error {
	root, err := unix.Open(
		fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0,
	)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	name = path.Clean("/" + name)
	parent := path.Dir(name)
	if st != nil {
		if err := inroot.Make(root, parent, true, nil); err != nil {
			return fmt.Errorf("make %q in the container: %w", parent, err)
		}
	}
	dir, err := unix.Openat2(root, parent, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return fmt.Errorf("open %q in the container: %w", parent, err)
	}
	defer unix.Close(dir)
	base := path.Base(name)
	if err := unix.Unlinkat(dir, base, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %q from the container: %w", name, err)
	}
	if st == nil {
		return nil
	}
	if err := unix.Mknodat(dir, base, st.Mode, int(st.Rdev)); err != nil {
		return fmt.Errorf("make %q in the container: %w", name, err)
	}
	// The mask of this process is not to matter.
	return unix.Fchmodat(dir, base, st.Mode&0o7777, 0)
}

// allow adds a rule to those for the container's devices.
func (d *Devices) allow(r *record, rule specs.LinuxDeviceCgroup) error {
	c := d.c
	file := filepath.Join(c.run, "spec")
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(raw, spec); err != nil {
		return fmt.Errorf("specification of container %q: %w", c.name, err)
	}
	if spec.Linux == nil || spec.Linux.Resources == nil || len(spec.Linux.Resources.Devices) == 0 {
		if rule.Allow {
			return nil // All devices are allowed.
		}
		all := specs.LinuxDeviceCgroup{Allow: true, Type: "a", Access: "rwm"}
		spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{all}}
	}
	rules := append(spec.Linux.Resources.Devices, rule)
	host, err := cgroup.Detect("")
	if err != nil {
		return err
	}
	g, err := host.At(r.Task.Group)
	if err != nil {
		return err
	}
	change := rules
	if host.Version() == 1 {
		change = []specs.LinuxDeviceCgroup{rule} // The kernel keeps what was said before.
	}
	if err := g.Update(&specs.LinuxResources{Devices: change}); err != nil {
		return err
	}
	spec.Linux.Resources.Devices = rules
	if raw, err = json.Marshal(spec); err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
