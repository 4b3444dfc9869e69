package plan

import (
	"fmt"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The programs in this file keep the host's view of files: they have no root filesystem, and the
// configuration names no mount namespace.

// InputTTY is the terminal of a program that has no devpts of its own: the process's end, which a
// keeper allocates from the host's devpts (keeper.StdioTTY).
const InputTTY = "tty"

// Process compiles a process that is confined by groups, identity, capabilities, limits, a seccomp
// filter and perhaps namespaces, but sees the files of the host. Relative names of programs are
// looked for in the process's PATH there, and the working directory must exist. Its terminal, if it
// wants one, is the input InputTTY.
//
// Errors name the field and are of class errdefs.ErrInvalidArgument; that is also the answer to
// everything that needs a root filesystem, such as mounts.
func Process(spec *specs.Spec, opt Options) (*Plan, error) {
	spec = withLinux(spec)
	if err := validateHostView(spec, &opt); err != nil {
		return nil, err
	}
	if err := validateProcess("process", spec.Process); err != nil {
		return nil, err
	}
	p := newPlanner(spec, &opt)
	p.procfs.host = true
	p.Keep(3 + opt.PreserveFDs)
	p.namespaces.decide()
	p.Isolate()
	p.enter()
	p.cgroups.enterLate()
	if spec.Process.Terminal {
		p.stdio.take()
	}
	if opt.Hooks {
		p.hooks()
	}
	p.namespaces.names()
	p.procfs.sysctls()
	p.process.execute()
	return p.finish()
}

// holdTitle is what ps shows of a process that holds namespaces.
const holdTitle = "strake: holding the namespaces of a sandbox"

// Hold compiles a process that executes nothing and holds namespaces, new or joined, for others to
// join. It sets host name, domain name and sysctls in them, and then reaps children for ever: in a
// new PID namespace it is PID 1. It ends with status 0 on SIGTERM, which, if it is PID 1, must come
// from outside of its namespace: the processes in a sandbox cannot end the sandbox.
//
// Processes that share its PID namespace reach nothing of the host through it: it has no
// descriptor, no capability, and an empty read-only root in a mount namespace of its own.
//
// Of spec.Process, which may be nil, only OOMScoreAdj is taken. Errors name the field and are of
// class errdefs.ErrInvalidArgument.
func Hold(spec *specs.Spec, opt Options) (*Plan, error) {
	spec = withLinux(spec)
	if err := validateHostView(spec, &opt); err != nil {
		return nil, err
	}
	if err := validateHold(spec, &opt); err != nil {
		return nil, err
	}
	p := newPlanner(spec, &opt)
	p.procfs.host = true
	p.namespaces.flags |= unix.CLONE_NEWNS
	p.namespaces.decide()
	p.IsolateAs(holdTitle)
	p.enter()
	p.cgroups.enterLate()
	p.namespaces.names()
	p.procfs.sysctls()
	p.root.mountEmpty()
	p.root.pivot()
	p.process.reaper.hold()
	return p.finish()
}

// validateHostView refuses what needs a root filesystem, and what Init would refuse.
func validateHostView(s *specs.Spec, opt *Options) error {
	const why = "needs a root filesystem, which this process does not have"
	l := s.Linux
	for _, c := range []struct {
		field string
		set   bool
	}{
		{"root.path", s.Root != nil && s.Root.Path != ""},
		{"root.readonly", s.Root != nil && s.Root.Readonly},
		{"root (overlay)", opt.Overlay != nil},
		{"linux.rootfsPropagation", l.RootfsPropagation != ""},
		{"linux.maskedPaths", len(l.MaskedPaths) > 0},
		{"linux.readonlyPaths", len(l.ReadonlyPaths) > 0},
		{"linux.devices", len(l.Devices) > 0},
		{"linux.mountLabel", l.MountLabel != ""},
	} {
		if c.set {
			return invalid(c.field, why)
		}
	}
	if len(s.Mounts) > 0 {
		return invalid(fmt.Sprintf("mounts[0] (%s)", path.Clean("/"+s.Mounts[0].Destination)), why)
	}
	for i, ns := range l.Namespaces {
		if ns.Type == specs.MountNamespace {
			return invalid(fmt.Sprintf("linux.namespaces[%d] (mount)", i), why)
		}
	}
	if err := validateNamespaces(l); err != nil {
		return err
	}
	if err := validateNames(s); err != nil {
		return err
	}
	return validateLinux(s, opt)
}

// validateHold refuses what only a process that executes could have.
func validateHold(s *specs.Spec, opt *Options) error {
	const why = "is of a process that is executed, and a holder of namespaces executes nothing"
	if len(s.Linux.Namespaces) == 0 {
		return invalid("linux.namespaces", "missing: there is nothing to hold")
	}
	var proc specs.Process
	if s.Process != nil {
		proc = *s.Process
	}
	if a := proc.OOMScoreAdj; a != nil {
		if err := validateOOMScore("process", *a); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		field string
		set   bool
	}{
		{"process.args", len(proc.Args) > 0},
		{"process.env", len(proc.Env) > 0},
		{"process.cwd", proc.Cwd != ""},
		{"process.terminal", proc.Terminal},
		{"process.user", proc.User.UID != 0 || proc.User.GID != 0 ||
			len(proc.User.AdditionalGids) > 0 || proc.User.Umask != nil},
		{"process.capabilities", proc.Capabilities != nil},
		{"process.rlimits", len(proc.Rlimits) > 0},
		{"process.noNewPrivileges", proc.NoNewPrivileges},
		{"process.apparmorProfile", proc.ApparmorProfile != ""},
		{"process.selinuxLabel", proc.SelinuxLabel != ""},
		{"process.scheduler", proc.Scheduler != nil},
		{"process.ioPriority", proc.IOPriority != nil},
		{"process.execCPUAffinity", proc.ExecCPUAffinity != nil},
		{"linux.seccomp", s.Linux.Seccomp != nil},
		{"linux.personality", s.Linux.Personality != nil},
		{"options.Hold", opt.Hold},
		{"options.Hooks", opt.Hooks},
		{"options.Reaper", opt.Reaper},
		{"options.PreserveFDs", opt.PreserveFDs != 0},
	} {
		if c.set {
			return invalid(c.field, why)
		}
	}
	return nil
}
