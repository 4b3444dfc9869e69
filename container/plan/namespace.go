package plan

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// namespaceFlags maps the names of runtime-spec config-linux.md, Namespaces, to clone flags.
var namespaceFlags = table[specs.LinuxNamespaceType, uint64]{
	{specs.PIDNamespace, unix.CLONE_NEWPID},
	{specs.NetworkNamespace, unix.CLONE_NEWNET},
	{specs.MountNamespace, unix.CLONE_NEWNS},
	{specs.IPCNamespace, unix.CLONE_NEWIPC},
	{specs.UTSNamespace, unix.CLONE_NEWUTS},
	{specs.UserNamespace, unix.CLONE_NEWUSER},
	{specs.CgroupNamespace, unix.CLONE_NEWCGROUP},
	{specs.TimeNamespace, unix.CLONE_NEWTIME},
}

// namespaces decides which namespaces are made and which are joined, and how the child is cloned:
// directly into the new ones, or, when a user or PID namespace is joined, plainly, to fork once
// more when it has joined.
func (p *planner) namespaces() {
	for i, ns := range p.spec.Linux.Namespaces {
		flag, _ := namespaceFlags.get(ns.Type)
		if ns.Path == "" {
			p.flags |= flag
			continue
		}
		field := fmt.Sprintf("linux.namespaces[%d] (%s)", i, ns.Type)
		p.out.Namespaces = append(p.out.Namespaces, Namespace{
			Name: "namespace/" + string(ns.Type), Field: field, Path: ns.Path, Type: flag,
			ChangedBy: p.changedBy(ns.Type),
		})
		p.joins = append(
			p.joins, join{field: field, input: "namespace/" + string(ns.Type), flag: flag},
		)
	}
	p.userns = p.has(unix.CLONE_NEWUSER)
	if p.flags&unix.CLONE_NEWUSER != 0 {
		p.out.UIDMap, p.out.GIDMap = p.spec.Linux.UIDMappings, p.spec.Linux.GIDMappings
	}
	if p.flags&unix.CLONE_NEWTIME != 0 {
		var clocks []string
		for clock := range p.spec.Linux.TimeOffsets {
			clocks = append(clocks, clock)
		}
		sort.Strings(clocks)
		for _, clock := range clocks {
			off := p.spec.Linux.TimeOffsets[clock]
			p.out.TimeOffsets += clock + " " + strconv.FormatInt(
				off.Secs, 10,
			) + " " + strconv.FormatUint(uint64(off.Nanosecs), 10) + "\n"
		}
	}
	if !p.twoStages() {
		// A cgroup namespace shows as its root the group that its maker is in, so it has to wait
		// for that.
		p.Clone(p.flags &^ unix.CLONE_NEWCGROUP)
	} else if p.flags&unix.CLONE_NEWTIME != 0 {
		// The offsets are the spawner's to write, so the time namespace is the one that it clones
		// into.
		p.Clone(unix.CLONE_NEWTIME)
	}
}

// changedBy is the first field that changes something in the container's namespace of a type, or
// empty.
func (p *planner) changedBy(t specs.LinuxNamespaceType) string {
	if t == specs.UTSNamespace && p.spec.Hostname != "" {
		return "hostname"
	}
	if t == specs.UTSNamespace && p.spec.Domainname != "" {
		return "domainname"
	}
	for _, name := range p.sysctlNames() {
		if sysctlNamespace(sysctlPath(name)) == t {
			return fmt.Sprintf("linux.sysctl[%s]", name)
		}
	}
	return ""
}

// has says whether the container has a namespace of its own of this type, new or joined.
func (p *planner) has(flag uint64) bool {
	if p.flags&flag != 0 {
		return true
	}
	return p.joined(flag)
}

func (p *planner) joined(flag uint64) bool {
	for _, j := range p.joins {
		if j.flag == flag {
			return true
		}
	}
	return false
}

// twoStages says whether one clone is not enough: children of the process, not itself, enter a
// joined PID namespace (setns(2)); new namespaces belong to the user namespace in which they are
// made; and in a new user namespace there is no right any more to join what belongs to others.
func (p *planner) twoStages() bool {
	return p.joined(unix.CLONE_NEWPID) || p.joined(unix.CLONE_NEWUSER) ||
		p.flags&unix.CLONE_NEWUSER != 0 && len(p.joins) > 0
}

// enter joins namespaces and makes the ones that must wait for that.
func (p *planner) enter() {
	if !p.twoStages() {
		p.mapped()
	}
	sort.SliceStable(p.joins, func(i, k int) bool {
		// The view of the host goes last.
		return p.joins[i].flag != unix.CLONE_NEWNS && p.joins[k].flag == unix.CLONE_NEWNS
	})
	p.join(p.joins)
	if p.twoStages() {
		p.Field("linux.namespaces")
		p.Fork(p.flags &^ (unix.CLONE_NEWTIME | unix.CLONE_NEWCGROUP))
		p.mapped()
	}
	if len(p.opt.TaskPaths) == 0 || p.grouped {
		p.cgroupNamespace()
	}
	p.Field("process")
	p.Call(unix.SYS_SETSID).Ignore(errnos(unix.EPERM)...)
	if !p.opt.NoNewKeyring && !p.userns {
		p.Field("process (session keyring)")
		// The name is what runc uses; kernels without keys answer ENOSYS.
		p.Call(unix.SYS_KEYCTL, program.Num(unix.KEYCTL_JOIN_SESSION_KEYRING), program.Num(0)).
			Ignore(errnos(unix.ENOSYS, unix.EPERM, unix.EDQUOT)...)
	}
}

// mapped waits, in a new user namespace, for its mappings.
func (p *planner) mapped() {
	if p.flags&unix.CLONE_NEWUSER != 0 {
		p.Field("linux.uidMappings")
		p.Await()
		p.becomeRoot()
	}
}

// join joins namespaces (setns(2)), in their order, and the user namespace when the spawner's own
// rights are not needed any more: they let it join what belongs to other user namespaces. What it
// has no right to join it tries again as the root of the user namespace.
func (p *planner) join(list []join) {
	user := slices.IndexFunc(list, func(j join) bool { return j.flag == unix.CLONE_NEWUSER })
	refused := make([]program.Cell, len(list))
	for i, j := range list {
		if i == user {
			continue
		}
		p.Field(j.field)
		call := p.Call(unix.SYS_SETNS, p.Input(j.input), program.Num(j.flag))
		if user >= 0 {
			refused[i] = call.Ignore(errnos(unix.EPERM)...).Result()
			continue
		}
		p.Call(unix.SYS_CLOSE, p.Input(j.input))
	}
	if user < 0 {
		return
	}
	p.Field(list[user].field)
	p.Call(unix.SYS_SETNS, p.Input(list[user].input), program.Num(unix.CLONE_NEWUSER))
	p.Call(unix.SYS_CLOSE, p.Input(list[user].input))
	p.becomeRoot()
	for i, j := range list {
		if i == user {
			continue
		}
		p.Field(j.field)
		joined := p.Label()
		p.If(refused[i].Value(), ^uint64(0), program.Equal, program.Num(0), joined)
		p.Call(unix.SYS_SETNS, p.Input(j.input), program.Num(j.flag))
		p.Place(joined)
		p.Call(unix.SYS_CLOSE, p.Input(j.input))
	}
}

// loopback brings up lo in a network namespace that is made for the container; its addresses come
// by themselves. In one that is joined it is the maker's affair.
func (p *planner) loopback() {
	if p.flags&unix.CLONE_NEWNET == 0 {
		return
	}
	p.Field("linux.namespaces (network, lo)")
	req := make([]byte, 40) // struct ifreq (netdevice(7))
	copy(req, "lo")
	binary.LittleEndian.PutUint16(req[unix.IFNAMSIZ:], unix.IFF_UP)
	done := p.Label()
	fd := p.Call(
		unix.SYS_SOCKET, program.Num(unix.AF_INET),
		program.Num(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), program.Num(0),
	).Ignore(errnos(unix.EAFNOSUPPORT)...).Else(done).Result()
	p.Call(unix.SYS_IOCTL, fd.Value(), program.Num(unix.SIOCSIFFLAGS), p.Bytes(req).Ptr())
	p.Call(unix.SYS_CLOSE, fd.Value())
	p.Place(done)
}

// netDevices has the spawner move devices into the network namespace, before anything is set there.
func (p *planner) netDevices() {
	if len(p.spec.Linux.NetDevices) == 0 {
		return
	}
	p.Field("linux.netDevices")
	a := Assist{Kind: MoveDevices, Field: "linux.netDevices", Continue: p.waits()}
	p.assist(a, p.root.Value(), p.root.Value())
}

// becomeRoot takes the identity that a new member of a user namespace needs to act in it.
func (p *planner) becomeRoot() {
	p.Field("linux.uidMappings")
	p.Call(unix.SYS_SETRESGID, program.Num(0), program.Num(0), program.Num(0))
	// setgroups(2) is refused where the namespace was made without privilege.
	p.Call(unix.SYS_SETGROUPS, program.Num(0), program.Num(0)).Ignore(errnos(unix.EPERM)...)
	p.Call(unix.SYS_SETRESUID, program.Num(0), program.Num(0), program.Num(0))
	// Whether a process is dumpable after a change of identity is the kernel's choice. This one
	// must not be: no other process in the namespace may look at it.
	p.Call(
		unix.SYS_PRCTL, program.Num(unix.PR_SET_DUMPABLE), program.Num(0), program.Num(0),
		program.Num(0), program.Num(0),
	)
}

// cgroups enters the version 1 groups. A process that moves itself through "tasks" does not wait
// for the lock that moving another one takes (kernel/cgroup/cgroup.c, cgroup_procs_write_start);
// version 2 needs nothing: the child is born there.
func (p *planner) cgroups() {
	if p.opt.Grouped && len(p.opt.TaskPaths) > 0 {
		p.grouped = true
		p.Field("linux.cgroupsPath")
		p.openCgroups()
	}
	if p.opt.Tasks == 0 {
		return
	}
	p.Field("linux.cgroupsPath")
	zero := p.Str("0").Ptr()
	for i := range p.opt.Tasks {
		fd := p.Input(InputTasks + strconv.Itoa(i))
		p.Call(unix.SYS_WRITE, fd, zero, program.Num(1))
		// Nothing of the host's cgroup tree stays open where a process in a joined namespace could
		// find it.
		p.Call(unix.SYS_CLOSE, fd)
	}
}

// lateCgroups waits until the groups exist and enters them, at the latest point at which it does
// not matter yet that the process was not in them: before anything of the container's own choice
// runs, and before a mount shows the groups.
func (p *planner) lateCgroups() {
	if len(p.opt.TaskPaths) == 0 || p.grouped {
		return
	}
	p.grouped = true
	p.Field("linux.cgroupsPath")
	p.Await()
	p.openCgroups()
	p.cgroupNamespace()
}

// openCgroups enters the groups of TaskPaths.
func (p *planner) openCgroups() {
	dir := p.Input(InputCgroups)
	zero := p.Str("0").Ptr()
	for _, name := range p.opt.TaskPaths {
		fd := p.open(
			dir, name, unix.O_WRONLY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS,
		).Result()
		p.Call(unix.SYS_WRITE, fd.Value(), zero, program.Num(1))
		p.Call(unix.SYS_CLOSE, fd.Value())
	}
	p.Call(unix.SYS_CLOSE, dir)
}

// cgroupNamespace makes a new one, whose root is the group that the process is in now.
func (p *planner) cgroupNamespace() {
	if p.flags&unix.CLONE_NEWCGROUP != 0 {
		p.Field("linux.namespaces (cgroup)")
		p.Call(unix.SYS_UNSHARE, program.Num(unix.CLONE_NEWCGROUP))
	}
}

// oomScore is written while /proc is still the host's: in the container there may be none, or
// another process's.
func (p *planner) oomScore() {
	proc := p.spec.Process
	if proc == nil || proc.OOMScoreAdj == nil {
		return
	}
	if p.flags&unix.CLONE_NEWUSER != 0 {
		p.OOMScore(*proc.OOMScoreAdj)
		return
	}
	p.Field("process.oomScoreAdj")
	fd := p.Call(
		unix.SYS_OPENAT, program.Num(atFDCWD), p.Str("/proc/self/oom_score_adj").Ptr(),
		program.Num(unix.O_WRONLY|unix.O_CLOEXEC),
	).Result()
	text := strconv.Itoa(*proc.OOMScoreAdj)
	p.Call(unix.SYS_WRITE, fd.Value(), p.Str(text).Ptr(), program.Num(len(text)))
}

// names sets host name and NIS domain name, in a namespace that is joined too: a configuration that
// is not to change it leaves them out, as with runc.
func (p *planner) names() {
	if h := p.spec.Hostname; h != "" {
		p.Field("hostname")
		p.Call(unix.SYS_SETHOSTNAME, p.Str(h).Ptr(), program.Num(len(h)))
	}
	if d := p.spec.Domainname; d != "" {
		p.Field("domainname")
		p.Call(unix.SYS_SETDOMAINNAME, p.Str(d).Ptr(), program.Num(len(d)))
	}
}

// proc returns a descriptor of a procfs of the container's PID namespace: of the container's own
// mount if it has one, whatever is mounted over it later; else of a mount that is attached nowhere.
//
// A process in the host's view uses the host's procfs. A parameter below /proc/sys that each
// namespace has is the one of the process that opens it (fs/proc/proc_sysctl.c, sysctl_is_seen).
func (p *planner) proc() program.Arg {
	if p.procFD == nil && p.hostView {
		fd := p.Call(
			unix.SYS_OPENAT, program.Num(atFDCWD), p.Str("/proc").Ptr(),
			program.Num(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC),
		).Result()
		p.procFD = &fd
	}
	if p.procFD == nil {
		fs := p.Call(
			unix.SYS_FSOPEN, p.Str("proc").Ptr(), program.Num(unix.FSOPEN_CLOEXEC),
		).Result()
		p.Call(
			unix.SYS_FSCONFIG, fs.Value(), program.Num(unix.FSCONFIG_CMD_CREATE), program.Num(0),
			program.Num(0), program.Num(0),
		)
		fd := p.Call(
			unix.SYS_FSMOUNT, fs.Value(), program.Num(unix.FSMOUNT_CLOEXEC),
			program.Num(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC),
		).Result()
		p.procFD = &fd
	}
	return p.procFD.Value()
}

// writeProc writes to a file of procfs that is verified to be of that procfs (CVE-2025-52881).
func (p *planner) writeProc(name, text string) {
	fd := p.open(
		p.proc(), name, unix.O_WRONLY,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS,
	).Result()
	p.Call(unix.SYS_WRITE, fd.Value(), p.Str(text).Ptr(), program.Num(len(text)))
}

// sysctlNames are the names in linux.sysctl, sorted.
func (p *planner) sysctlNames() []string {
	names := make([]string, 0, len(p.spec.Linux.Sysctl))
	for name := range p.spec.Linux.Sysctl {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// sysctls writes linux.sysctl in the order of names.
func (p *planner) sysctls() {
	for _, name := range p.sysctlNames() {
		p.Fieldf("linux.sysctl[%s]", name)
		p.writeProc("sys/"+sysctlPath(name), p.spec.Linux.Sysctl[name])
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
