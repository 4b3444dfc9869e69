package plan

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// namespaces are those that the process gets, new or joined, and what is set in them at once.
type namespaces struct {
	*builder
	spec  *specs.Spec
	flags uint64 // to create
	joins []join
	user  bool // in a user namespace other than the spawner's
}

type join struct {
	field, input string
	flag         uint64
}

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

// decide says which namespaces are made and which are joined, and how the child is cloned:
// directly into the new ones, or, when a user or PID namespace is joined, plainly, to fork once
// more when it has joined.
func (p *namespaces) decide() {
	for i, ns := range p.spec.Linux.Namespaces {
		flag, _ := namespaceFlags.get(ns.Type)
		if ns.Path == "" {
			p.flags |= flag
			continue
		}
		field := fmt.Sprintf("linux.namespaces[%d] (%s)", i, ns.Type)
		p.out.Namespaces = append(p.out.Namespaces, Namespace{
			Name: "namespace/" + string(ns.Type), Field: field, Path: ns.Path, Type: flag,
			ChangedBy: changedBy(p.spec, ns.Type),
		})
		p.joins = append(
			p.joins, join{field: field, input: "namespace/" + string(ns.Type), flag: flag},
		)
	}
	p.user = p.has(unix.CLONE_NEWUSER)
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
func changedBy(spec *specs.Spec, t specs.LinuxNamespaceType) string {
	if t == specs.UTSNamespace && spec.Hostname != "" {
		return "hostname"
	}
	if t == specs.UTSNamespace && spec.Domainname != "" {
		return "domainname"
	}
	for _, name := range sysctlNames(spec.Linux) {
		if sysctlNamespace(sysctlPath(name)) == t {
			return fmt.Sprintf("linux.sysctl[%s]", name)
		}
	}
	return ""
}

// has says whether the container has a namespace of its own of this type, new or joined.
func (p *namespaces) has(flag uint64) bool {
	if p.flags&flag != 0 {
		return true
	}
	return p.joined(flag)
}

func (p *namespaces) joined(flag uint64) bool {
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
func (p *namespaces) twoStages() bool {
	return p.joined(unix.CLONE_NEWPID) || p.joined(unix.CLONE_NEWUSER) ||
		p.flags&unix.CLONE_NEWUSER != 0 && len(p.joins) > 0
}

// enter joins namespaces and makes the ones that must wait for that.
func (p *namespaces) enter() {
	if !p.twoStages() {
		p.awaitMappings()
	}
	sort.SliceStable(p.joins, func(i, k int) bool {
		// The view of the host goes last.
		return p.joins[i].flag != unix.CLONE_NEWNS && p.joins[k].flag == unix.CLONE_NEWNS
	})
	p.join(p.joins)
	if p.twoStages() {
		p.Field("linux.namespaces")
		p.Fork(p.flags &^ (unix.CLONE_NEWTIME | unix.CLONE_NEWCGROUP))
		p.awaitMappings()
	}
}

// awaitMappings waits, in a new user namespace, for its mappings.
func (p *namespaces) awaitMappings() {
	if p.flags&unix.CLONE_NEWUSER != 0 {
		p.Field("linux.uidMappings")
		p.Await()
		p.becomeRoot()
	}
}

// join joins namespaces (setns(2)), in their order, and the user namespace when the spawner's own
// rights are not needed any more: they let it join what belongs to other user namespaces. What it
// has no right to join it tries again as the root of the user namespace.
func (p *namespaces) join(list []join) {
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
func (p *namespaces) loopback() {
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
// root is the container's, waits what cgroups.waits says.
func (p *namespaces) netDevices(root program.Cell, waits int) {
	if len(p.spec.Linux.NetDevices) == 0 {
		return
	}
	p.Field("linux.netDevices")
	a := Assist{Kind: MoveDevices, Field: "linux.netDevices", Continue: waits}
	p.assist(a, root.Value(), root.Value())
}

// becomeRoot takes the identity that a new member of a user namespace needs to act in it.
func (p *namespaces) becomeRoot() {
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

// names sets host name and NIS domain name, in a namespace that is joined too: a configuration that
// is not to change it leaves them out, as with runc.
func (p *namespaces) names() {
	if h := p.spec.Hostname; h != "" {
		p.Field("hostname")
		p.Call(unix.SYS_SETHOSTNAME, p.Str(h).Ptr(), program.Num(len(h)))
	}
	if d := p.spec.Domainname; d != "" {
		p.Field("domainname")
		p.Call(unix.SYS_SETDOMAINNAME, p.Str(d).Ptr(), program.Num(len(d)))
	}
}

// enterInit joins the namespaces of the first process, all in one call (setns(2) on a pidfd, Linux
// 5.8), or one after the other.
func (p *namespaces) enterInit(flags uint64, separate bool) {
	p.Field("namespaces of the container")
	switch {
	case flags == 0:
	case separate:
		p.enterEach(flags)
	default:
		p.Call(unix.SYS_SETNS, p.Input(InputInit), program.Num(flags))
		p.Call(unix.SYS_CLOSE, p.Input(InputInit))
		if flags&unix.CLONE_NEWUSER != 0 {
			p.becomeRoot()
		}
	}
	if flags&unix.CLONE_NEWPID != 0 {
		p.Field("namespaces of the container (pid)")
		p.Fork(0)
	}
}

// enterEach joins one namespace after the other, the view of files last.
func (p *namespaces) enterEach(flags uint64) {
	var list []join
	add := func(flag uint64) {
		if flags&flag != 0 {
			field := "namespaces of the container"
			list = append(list, join{field: field, input: InitInput(flag), flag: flag})
		}
	}
	for _, ns := range namespaceFlags {
		if ns.value != unix.CLONE_NEWNS {
			add(ns.value)
		}
	}
	add(unix.CLONE_NEWNS)
	p.join(list)
}
