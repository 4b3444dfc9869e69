package plan

import (
	"sort"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// procfs is the one through which the program writes parameters of the process and its namespaces.
type procfs struct {
	*files
	linux  *specs.Linux
	host   bool // the process sees the files of the host
	opened bool // fd is its root
	fd     program.Cell
}

// dir returns a descriptor of a procfs of the container's PID namespace: of the container's own
// mount if it has one, whatever is mounted over it later; else of a mount that is attached nowhere.
//
// A process in the host's view uses the host's procfs. A parameter below /proc/sys that each
// namespace has is the one of the process that opens it (fs/proc/proc_sysctl.c, sysctl_is_seen).
func (p *procfs) dir() program.Arg {
	switch {
	case p.opened:
	case p.host:
		p.use(p.Call(
			unix.SYS_OPENAT, program.Num(atFDCWD), p.Str("/proc").Ptr(),
			program.Num(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC),
		).Result())
	default:
		fs := p.Call(
			unix.SYS_FSOPEN, p.Str("proc").Ptr(), program.Num(unix.FSOPEN_CLOEXEC),
		).Result()
		p.Call(
			unix.SYS_FSCONFIG, fs.Value(), program.Num(unix.FSCONFIG_CMD_CREATE), program.Num(0),
			program.Num(0), program.Num(0),
		)
		p.use(p.Call(
			unix.SYS_FSMOUNT, fs.Value(), program.Num(unix.FSMOUNT_CLOEXEC),
			program.Num(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC),
		).Result())
	}
	return p.fd.Value()
}

// use makes fd the descriptor that dir returns.
func (p *procfs) use(fd program.Cell) { p.fd, p.opened = fd, true }

// write writes to a file of procfs that is verified to be of that procfs (CVE-2025-52881).
func (p *procfs) write(name, text string) {
	fd := p.open(
		p.dir(), name, unix.O_WRONLY,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS,
	).Result()
	p.Call(unix.SYS_WRITE, fd.Value(), p.Str(text).Ptr(), program.Num(len(text)))
}

// sysctlNames are the names in linux.sysctl, sorted.
func sysctlNames(linux *specs.Linux) []string {
	names := make([]string, 0, len(linux.Sysctl))
	for name := range linux.Sysctl {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// sysctls writes linux.sysctl in the order of names.
func (p *procfs) sysctls() {
	for _, name := range sysctlNames(p.linux) {
		p.Fieldf("linux.sysctl[%s]", name)
		p.write("sys/"+sysctlPath(name), p.linux.Sysctl[name])
	}
}

// sysctlPath turns a.b.c into a/b/c. A name with a slash is taken as it is, and then its dots are
// part of file names, as in net/ipv4/conf/eth0.1/forwarding (sysctl(8)).
func sysctlPath(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	return strings.ReplaceAll(name, ".", "/")
}
