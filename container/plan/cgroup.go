package plan

import (
	"strconv"

	"golang.org/x/sys/unix"

	"strake/container/program"
)

// cgroups are the version 1 groups that the process enters, and its cgroup namespace.
type cgroups struct {
	*files
	opt        *Options
	namespaces *namespaces
	entered    bool // the groups of TaskPaths
}

// enter enters the version 1 groups. A process that moves itself through "tasks" does not wait
// for the lock that moving another one takes (kernel/cgroup/cgroup.c, cgroup_procs_write_start);
// version 2 needs nothing: the child is born there.
func (p *cgroups) enter() {
	if p.opt.Grouped && len(p.opt.TaskPaths) > 0 {
		p.entered = true
		p.Field("linux.cgroupsPath")
		p.writeTasks()
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

// enterLate waits until the groups exist and enters them, at the latest point at which it does
// not matter yet that the process was not in them: before anything of the container's own choice
// runs, and before a mount shows the groups.
func (p *cgroups) enterLate() {
	if !p.late() {
		return
	}
	p.entered = true
	p.Field("linux.cgroupsPath")
	p.Await()
	p.writeTasks()
	p.unshare()
}

// writeTasks enters the groups of TaskPaths.
func (p *cgroups) writeTasks() {
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

// unshare makes a new cgroup namespace, whose root is the group that the process is in now. It
// does nothing as long as the process is not in its groups.
func (p *cgroups) unshare() {
	if p.late() || p.namespaces.flags&unix.CLONE_NEWCGROUP == 0 {
		return
	}
	p.Field("linux.namespaces (cgroup)")
	p.Call(unix.SYS_UNSHARE, program.Num(unix.CLONE_NEWCGROUP))
}

// late says that the process is not in its groups yet: enterLate enters them.
func (p *cgroups) late() bool { return len(p.opt.TaskPaths) > 0 && !p.entered }

// waits is how often the program waits in an assist at this place. A child that is going to enter
// groups late is continued once for them, perhaps before this; so it waits twice, of which one is
// for the work, and leaves one for the groups.
func (p *cgroups) waits() int {
	if p.late() {
		return 2
	}
	return 1
}
