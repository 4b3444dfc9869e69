package plan

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// InputInit is a pidfd of a container's first process, whose namespaces an exec joins.
const InputInit = "init"

// ExecOptions say which namespaces of the container's first process to join.
type ExecOptions struct {
	Options
	// Flags are the CLONE_NEW* of the namespaces in which the container differs from the spawner.
	Flags uint64
	// Separate says that each namespace is joined by a descriptor of its own: the inputs InputInit
	// followed by a slash and the namespace's name, InitInput.
	Separate bool
	// Executable is the path of the program of a hook, whatever the first argument says; empty for
	// the one that the first argument names.
	Executable string
}

// InitInput is the input by which one namespace of a container's first process is joined, if
// ExecOptions.Separate is set. flag is its CLONE_NEW*.
func InitInput(flag uint64) string {
	for _, ns := range namespaceFlags {
		if ns.value == flag {
			return InputInit + "/" + string(ns.key)
		}
	}
	return InputInit
}

// Exec compiles one more process of a running container. spec is the container's configuration, of
// which the seccomp profile and the mappings are used; proc is the process. Errors are as those of
// Init.
func Exec(spec *specs.Spec, proc *specs.Process, opt ExecOptions) (*Plan, error) {
	if err := validateProcess("process", proc); err != nil {
		return nil, err
	}
	if opt.Executable != "" && opt.Executable[0] != '/' {
		return nil, invalid("hooks.path", "%q is not absolute", opt.Executable)
	}
	copied := *spec
	copied.Process = proc
	opt.Grouped = true
	p := newPlanner(withLinux(&copied), &opt.Options)
	p.namespaces.user = opt.Flags&unix.CLONE_NEWUSER != 0
	p.process.scheduling.exec = true
	p.process.command.executable = opt.Executable

	p.Keep(3 + opt.PreserveFDs)
	p.Isolate()
	// What may look at this process from inside of the container finds a process that it must not
	// touch, with no memory but the program and no descriptor but its own streams (CVE-2016-9962).
	p.Field("isolate")
	p.Call(
		unix.SYS_PRCTL, program.Num(unix.PR_SET_DUMPABLE), program.Num(0), program.Num(0),
		program.Num(0), program.Num(0),
	)
	// config.md, execCPUAffinity: before the process is in the container's group, and after. On
	// version 2 it is born there.
	affinity := proc.ExecCPUAffinity
	if affinity != nil {
		p.process.scheduling.affinity("process.execCPUAffinity.initial", affinity.Initial)
	}
	p.cgroups.enter()
	if affinity != nil {
		p.process.scheduling.affinity("process.execCPUAffinity.final", affinity.Final)
	}
	p.process.oomScore()
	p.namespaces.enterInit(opt.Flags, opt.Separate)
	p.process.setsid()
	p.root.current()
	if proc.Terminal {
		p.stdio.allocate(p.root.dir.Value())
	}
	p.process.execute()
	return p.finish()
}

// HookProcess compiles a process that joins the given namespaces of a container and executes a hook
// there with the identity of the spawner: a createContainer hook (runtime-spec config.md,
// POSIX-platform Hooks); a startContainer hook is a process of Exec. It runs in the directory dir,
// if that is not empty and can be entered. Its standard streams are the inputs of Pipes.
func HookProcess(h *specs.Hook, dir string, flags uint64) (*Plan, error) {
	if !strings.HasPrefix(h.Path, "/") {
		return nil, invalid("hooks.path", "%q is not absolute", h.Path)
	}
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	p := newPlanner(
		&specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}, &Options{Stdio: Pipes},
	)
	p.Isolate()
	p.namespaces.enterInit(flags, false)
	p.process.setsid()
	p.stdio.connect()
	p.process.openSignals()
	p.Fieldf("hooks (%s)", h.Path)
	if dir != "" {
		// A directory that is only the process's user's to enter is no reason to fail.
		p.Call(unix.SYS_CHDIR, p.Str(dir).Ptr()).Ignore(
			errnos(unix.EACCES, unix.EPERM, unix.ENOENT, unix.ENOTDIR)...,
		)
	}
	p.Call(unix.SYS_EXECVE, p.Str(h.Path).Ptr(), p.Strs(args).Ptr(), p.Strs(h.Env).Ptr())
	return p.finish()
}
