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
	copied := *spec
	copied.Process = proc
	p := newPlanner(&copied, &opt.Options)
	if err := validateProcess("process", proc); err != nil {
		return nil, err
	}
	if copied.Linux == nil {
		copied.Linux = &specs.Linux{}
	}
	if p.executable = opt.Executable; p.executable != "" && p.executable[0] != '/' {
		return nil, invalid("hooks.path", "%q is not absolute", p.executable)
	}
	p.Keep(3 + opt.PreserveFDs)
	p.userns, p.exec = opt.Flags&unix.CLONE_NEWUSER != 0, true
	p.Isolate()
	// What may look at this process from inside of the container finds a process that it must not
	// touch, with no memory but the program and no descriptor but its own streams (CVE-2016-9962).
	p.Field("isolate")
	p.Call(
		unix.SYS_PRCTL, program.Num(unix.PR_SET_DUMPABLE), program.Num(0), program.Num(0),
		program.Num(0), program.Num(0),
	)
	p.opt.Grouped = true
	// config.md, execCPUAffinity: before the process is in the container's group, and after. On
	// version 2 it is born there.
	affinity := proc.ExecCPUAffinity
	if affinity != nil {
		p.affinity("process.execCPUAffinity.initial", affinity.Initial)
	}
	p.cgroups()
	if affinity != nil {
		p.affinity("process.execCPUAffinity.final", affinity.Final)
	}
	p.oomScore()
	p.enterInit(opt.Flags, opt.Separate)
	p.root = p.Call(
		unix.SYS_OPENAT, program.Num(atFDCWD), p.Str("/").Ptr(),
		program.Num(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC),
	).Result()
	if proc.Terminal {
		p.openTerminal(proc, p.root.Value())
	}
	p.process(proc)
	return p.finish()
}

// enterInit joins the namespaces of the first process, all in one call (setns(2) on a pidfd, Linux
// 5.8), or one after the other.
func (p *planner) enterInit(flags uint64, separate bool) {
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
	p.Field("process")
	p.Call(unix.SYS_SETSID).Ignore(errnos(unix.EPERM)...)
}

// enterEach joins one namespace after the other, the view of files last.
func (p *planner) enterEach(flags uint64) {
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

// HookProcess compiles a process that joins the given namespaces of a container and executes a hook
// there with the identity of the spawner: a createContainer hook (runtime-spec config.md,
// POSIX-platform Hooks); a startContainer hook is a process of Exec. It runs in the directory dir, if
// that is not empty and can be entered. Its standard streams are the inputs of Pipes.
func HookProcess(h *specs.Hook, dir string, flags uint64) (*Plan, error) {
	if !strings.HasPrefix(h.Path, "/") {
		return nil, invalid("hooks.path", "%q is not absolute", h.Path)
	}
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	p := newPlanner(&specs.Spec{Linux: &specs.Linux{}}, &Options{Stdio: Pipes})
	p.Isolate()
	p.enterInit(flags, false)
	p.stdio(&specs.Process{})
	p.openSignals()
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
