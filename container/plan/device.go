package plan

import (
	"fmt"
	"os"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// devices are the device nodes and links of /dev, and the console there.
type devices struct {
	*files
	spec       *specs.Spec
	namespaces *namespaces
	targets    *targets
}

// defaultDevices are the ones that every container has (runtime-spec config-linux.md, Default
// Devices).
var defaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// deviceLinks are made in /dev beside the devices.
var deviceLinks = [][2]string{
	{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"},
	{"/proc/kcore", "core"},
}

// bound says that /dev is a bind mount, whose source has the devices already.
func (p *devices) bound() bool {
	for i := range p.spec.Mounts {
		m := &p.spec.Mounts[i]
		if path.Clean("/"+m.Destination) == "/dev" &&
			(m.Type == "bind" || parseOptions(m.Options).bind) {
			return true
		}
	}
	return false
}

// make makes device nodes and links. All names are relative to descriptors of directories in the
// container, so a /dev of the image that is a link to elsewhere changes the container only
// (CVE-2026-41579).
func (p *devices) make() {
	if p.bound() {
		return
	}
	p.Field("linux.devices")
	p.Call(unix.SYS_UMASK, program.Num(0))
	list := defaultDevices
	own := make(map[string]bool, len(p.spec.Linux.Devices))
	for i := range p.spec.Linux.Devices {
		own[path.Clean("/"+p.spec.Linux.Devices[i].Path)] = true
	}
	dirs := make(map[string]program.Cell, 2)
	dir := func(field, name string) program.Cell {
		if fd, ok := p.targets.fresh.get(name); ok {
			return fd
		}
		fd, ok := dirs[name]
		if !ok {
			fd = p.targets.target(field, name, aDirectory, program.Num(0), resolveInRoot)
			dirs[name] = fd
		}
		return fd
	}
	for i := range list {
		if !own[list[i].Path] {
			p.Fieldf("linux.devices (%s)", list[i].Path)
			p.node(dir("linux.devices", "/dev"), &list[i])
		}
	}
	for i := range p.spec.Linux.Devices {
		d := &p.spec.Linux.Devices[i]
		if path.Clean("/"+d.Path) == "/dev/ptmx" {
			// Engines list all devices of the host for a privileged container. The host's
			// multiplexer would open terminals of the host; below, the name becomes a link to the
			// container's own.
			continue
		}
		field := fmt.Sprintf("linux.devices[%d] (%s)", i, d.Path)
		p.Field(field)
		p.node(dir(field, path.Dir(path.Clean("/"+d.Path))), d)
	}
	p.Field("linux.devices (links)")
	dev := dir("linux.devices", "/dev")
	for _, l := range deviceLinks {
		p.Call(unix.SYS_SYMLINKAT, p.Str(l[0]).Ptr(), dev.Value(), p.Str(l[1]).Ptr()).Ignore(
			errnos(unix.EEXIST)...,
		)
	}
	if _, ok := p.targets.fresh.get("/dev"); !ok {
		p.Call(unix.SYS_UNLINKAT, dev.Value(), p.Str("ptmx").Ptr(), program.Num(0)).Ignore(
			errnos(unix.ENOENT)...,
		)
	}
	p.Call(unix.SYS_SYMLINKAT, p.Str("pts/ptmx").Ptr(), dev.Value(), p.Str("ptmx").Ptr())
}

// node makes one node in a directory. In a user namespace mknod(2) is refused; what is bound there
// instead is a node that the spawner makes, or the host's.
func (p *devices) node(dir program.Cell, d *specs.LinuxDevice) {
	name := p.Str(path.Base(d.Path)).Ptr()
	if p.namespaces.user {
		tree := p.tree(
			Tree{
				Name: "device " + d.Path, Field: "linux.devices (" + d.Path + ")",
				Path: path.Clean("/" + d.Path), Node: mappedNode(&p.out, d),
			},
		)
		p.Call(
			unix.SYS_MKNODAT, dir.Value(), name, program.Num(unix.S_IFREG|0o666), program.Num(0),
		).Ignore(errnos(unix.EEXIST)...)
		at := p.Call(
			unix.SYS_OPENAT, dir.Value(), name,
			program.Num(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC),
		).Result()
		// As with crun: a node is neither a program nor one with an owner's rights.
		p.setattr(tree, mountAttr{set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}, false)
		p.attach(tree, at.Value())
		return
	}
	n := nodeOf(d)
	p.Call(unix.SYS_MKNODAT, dir.Value(), name, program.Num(n.Mode), program.Num(n.Dev)).Ignore(
		errnos(unix.EEXIST)...,
	)
	if n.UID != 0 || n.GID != 0 {
		p.Call(
			unix.SYS_FCHOWNAT, dir.Value(), name, program.Num(n.UID), program.Num(n.GID),
			program.Num(unix.AT_SYMLINK_NOFOLLOW),
		)
	}
}

// nodeOf is a device with its defaults and the IDs of the configuration.
func nodeOf(d *specs.LinuxDevice) Node {
	n := Node{Mode: 0o666, Dev: unix.Mkdev(uint32(d.Major), uint32(d.Minor))}
	if d.FileMode != nil {
		n.Mode = uint32(*d.FileMode & os.ModePerm)
	}
	switch d.Type {
	case "b":
		n.Mode |= unix.S_IFBLK
	case "p":
		n.Mode |= unix.S_IFIFO
	default:
		n.Mode |= unix.S_IFCHR
	}
	if d.UID != nil {
		n.UID = *d.UID
	}
	if d.GID != nil {
		n.GID = *d.GID
	}
	return n
}

// mappedNode is what the spawner makes for a device of a container with a new user namespace, or
// nil if it is one of those that every host has, or its owner has no ID on the host.
func mappedNode(out *Plan, d *specs.LinuxDevice) *Node {
	for i := range defaultDevices {
		if d == &defaultDevices[i] {
			return nil
		}
	}
	n := nodeOf(d)
	uid, known := hostID(out.UIDMap, n.UID)
	gid, mapped := hostID(out.GIDMap, n.GID)
	if !known || !mapped {
		return nil
	}
	n.UID, n.GID = uid, gid
	return &n
}

// hostID is the ID outside of a user namespace that an ID in it is mapped to.
func hostID(list []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, m := range list {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return 0, false
}

// console puts the process's end of its terminal on /dev/console.
func (p *devices) console(tty program.Cell) {
	if p.bound() {
		return
	}
	p.Field("process.terminal (/dev/console)")
	dev := p.targets.target("process.terminal", "/dev", aDirectory, program.Num(0), resolveInRoot)
	name := p.Str("console").Ptr()
	p.Call(
		unix.SYS_MKNODAT, dev.Value(), name, program.Num(unix.S_IFREG|0o620), program.Num(0),
	).Ignore(errnos(unix.EEXIST)...)
	at := p.Call(
		unix.SYS_OPENAT, dev.Value(), name, program.Num(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC),
	).Result()
	p.attach(p.cloneTree(tty.Value(), false).Value(), at.Value())
}
