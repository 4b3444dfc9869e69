package plan

import (
	"fmt"
	"os"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

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

// devIsBound says that /dev is a bind mount, whose source has the devices already.
func (p *planner) devIsBound() bool {
	for i := range p.spec.Mounts {
		m := &p.spec.Mounts[i]
		if path.Clean("/"+m.Destination) == "/dev" &&
			(m.Type == "bind" || parseOptions(m.Options).bind) {
			return true
		}
	}
	return false
}

// devices makes device nodes and links. All names are relative to descriptors of directories in the
// container, so a /dev of the image that is a link to elsewhere changes the container only
// (CVE-2026-41579).
func (p *planner) devices() {
	if p.devIsBound() {
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
		if fd, ok := p.fresh[name]; ok {
			return fd
		}
		fd, ok := dirs[name]
		if !ok {
			fd = p.target(field, name, aDirectory, program.Num(0), resolveInRoot)
			dirs[name] = fd
		}
		return fd
	}
	for i := range list {
		if !own[list[i].Path] {
			p.Fieldf("linux.devices (%s)", list[i].Path)
			p.device(dir("linux.devices", "/dev"), &list[i])
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
		p.device(dir(field, path.Dir(path.Clean("/"+d.Path))), d)
	}
	p.Field("linux.devices (links)")
	dev := dir("linux.devices", "/dev")
	for _, l := range deviceLinks {
		p.Call(unix.SYS_SYMLINKAT, p.Str(l[0]).Ptr(), dev.Value(), p.Str(l[1]).Ptr()).Ignore(
			errnos(unix.EEXIST)...,
		)
	}
	if _, ok := p.fresh["/dev"]; !ok {
		p.Call(unix.SYS_UNLINKAT, dev.Value(), p.Str("ptmx").Ptr(), program.Num(0)).Ignore(
			errnos(unix.ENOENT)...,
		)
	}
	p.Call(unix.SYS_SYMLINKAT, p.Str("pts/ptmx").Ptr(), dev.Value(), p.Str("ptmx").Ptr())
}

// device makes one node in a directory. In a user namespace mknod(2) is refused; what is bound there
// instead is a node that the spawner makes, or the host's.
func (p *planner) device(dir program.Cell, d *specs.LinuxDevice) {
	name := p.Str(path.Base(d.Path)).Ptr()
	if p.userns {
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

// mappedNode is what the spawner makes for a device of a container with a new user namespace, or nil if it
// is one of those that every host has, or its owner has no ID on the host.
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

// terminal opens a new pseudo-terminal of the container's own devpts, sends its master to the
// spawner, and puts the other end on /dev/console. That end is known by its descriptor only
// (TIOCGPTPEER), never by a name that another process could have replaced (CVE-2025-52565).
func (p *planner) terminal() {
	proc := p.spec.Process
	if proc == nil || !proc.Terminal {
		return
	}
	p.openTerminal(proc, p.root.Value())
	if p.devIsBound() {
		return
	}
	p.Field("process.terminal (/dev/console)")
	dev := p.target("process.terminal", "/dev", aDirectory, program.Num(0), resolveInRoot)
	name := p.Str("console").Ptr()
	p.Call(
		unix.SYS_MKNODAT, dev.Value(), name, program.Num(unix.S_IFREG|0o620), program.Num(0),
	).Ignore(errnos(unix.EEXIST)...)
	at := p.Call(
		unix.SYS_OPENAT, dev.Value(), name, program.Num(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC),
	).Result()
	p.attach(p.cloneTree(p.tty.Value(), false).Value(), at.Value())
}

// openTerminal leaves the container's end in p.tty.
func (p *planner) openTerminal(proc *specs.Process, root program.Arg) {
	const devptsMagic = 0x1cd1
	p.Field("process.terminal (/dev/pts/ptmx)")
	master := p.open(root, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, resolveInRoot).Result()
	buf := p.Room(120) // struct statfs
	genuine := p.Label()
	p.Call(unix.SYS_FSTATFS, master.Value(), buf.Ptr())
	p.If(buf.Load(0, 8), ^uint64(0), program.Equal, program.Num(devptsMagic), genuine)
	p.Fail(program.Num(uint64(unix.ENOTTY)))
	p.Place(genuine)
	p.Call(unix.SYS_IOCTL, master.Value(), program.Num(unix.TIOCSPTLCK), p.Room(8).Ptr())
	p.tty = p.Call(
		unix.SYS_IOCTL, master.Value(), program.Num(unix.TIOCGPTPEER),
		program.Num(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC),
	).Result()
	p.prepareTerminal(proc)
	p.SendFD(p.Input(program.InputSync), program.StageTTY, master.Value())
	p.Call(unix.SYS_CLOSE, master.Value())
}

// prepareTerminal gives the process's end its size and its owner.
func (p *planner) prepareTerminal(proc *specs.Process) {
	if s := proc.ConsoleSize; s != nil {
		p.Field("process.consoleSize")
		size := p.Bytes(
			[]byte{
				byte(s.Height), byte(s.Height >> 8), byte(s.Width), byte(s.Width >> 8), 0, 0, 0, 0,
			},
		)
		p.Call(unix.SYS_IOCTL, p.tty.Value(), program.Num(unix.TIOCSWINSZ), size.Ptr())
	}
	p.Field("process.terminal")
	p.plainNewlines()
	p.Call(
		unix.SYS_FCHOWN, p.tty.Value(), program.Num(proc.User.UID), program.Num(uint32(0xffffffff)),
	).Ignore(errnos(unix.EPERM, unix.EINVAL)...)
}

// plainNewlines lets newlines of the terminal's output through as they are, if that was asked for
// (termios(3), ONLCR). The process's first output may come before the spawner has the terminal.
func (p *planner) plainNewlines() {
	if !p.opt.PlainTerminal {
		return
	}
	termios := p.Room(64) // struct termios of the kernel: the output flags are its second number
	p.Call(unix.SYS_IOCTL, p.tty.Value(), program.Num(unix.TCGETS), termios.Ptr())
	p.Set(
		p.CellIn(termios, 0), termios.Load(0, 8), program.And,
		program.Num(^(uint64(unix.ONLCR) << 32)),
	)
	p.Call(unix.SYS_IOCTL, p.tty.Value(), program.Num(unix.TCSETS), termios.Ptr())
}
