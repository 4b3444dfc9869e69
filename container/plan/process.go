package plan

import (
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/container/seccomp"
)

// process compiles everything from the finished root filesystem to execve. The order is what makes
// it correct: what needs privilege comes before identity and capabilities are given up, what the
// seccomp filter could forbid comes before the filter, and between the filter and execve stand only
// the calls that the filter's own position forces there.
func (p *planner) process(proc *specs.Process) {
	if proc == nil {
		p.fail("process", "missing")
		return
	}
	p.stdio(proc)
	p.ownPipes(proc)
	p.Field("process.user.umask")
	umask := uint32(0o022)
	if proc.User.Umask != nil {
		umask = *proc.User.Umask
	}
	p.Call(unix.SYS_UMASK, program.Num(umask))
	p.labels(proc)
	p.schedule(proc)
	p.limits(proc)

	cwd := p.changeDir(proc)
	caps := p.capabilities(proc)
	p.bounding(caps)
	p.identity(proc)
	p.retryDir(cwd)
	exe := p.lookup(proc)

	filter := p.filter()
	keep := caps
	if filter != nil && !proc.NoNewPrivileges {
		// seccomp(2) wants CAP_SYS_ADMIN or no_new_privs.
		keep.Effective |= 1 << unix.CAP_SYS_ADMIN
		keep.Permitted |= 1 << unix.CAP_SYS_ADMIN
	}
	p.Field("process.capabilities")
	p.capset(keep)
	if proc.NoNewPrivileges {
		p.Field("process.noNewPrivileges")
		p.Call(
			unix.SYS_PRCTL, program.Num(unix.PR_SET_NO_NEW_PRIVS), program.Num(1), program.Num(0),
			program.Num(0), program.Num(0),
		)
	}
	p.hold()
	if p.opt.Reaper {
		// What ps shows; without it that is the name of whichever thread cloned. A filter may
		// refuse it later.
		p.Field("init")
		p.Call(
			unix.SYS_PRCTL, program.Num(unix.PR_SET_NAME), p.Str("strake-init").Ptr(),
			program.Num(0), program.Num(0), program.Num(0),
		)
	} else {
		p.openSignals()
	}
	if filter != nil {
		p.install(filter)
	}
	if keep != caps {
		p.Field("process.capabilities")
		p.capset(caps)
	}
	p.ambient(caps)
	if p.opt.Reaper {
		// Only here, with the identity, the capabilities and the filter of the payload: a PID 1
		// that had more than it would be what a payload that may ptrace goes for.
		p.reaper()
		p.openSignals()
	}
	p.Field(p.programField(proc))
	p.Call(unix.SYS_EXECVE, exe.Value(), p.Strs(proc.Args).Ptr(), p.Strs(proc.Env).Ptr())
}

// openSignals gives every signal its default action and unblocks all of them; pending signals are
// delivered. The clone has removed handlers (CLONE_CLEAR_SIGHAND), but a signal that the caller of
// strake ignores is still ignored.
func (p *planner) openSignals() {
	p.Field("process")
	def := p.Room(32).Ptr() // struct sigaction of SIG_DFL
	sig := p.Cell()
	p.Set(sig, program.Num(unix.SIGHUP), program.Move, program.Num(0))
	next := p.Here()
	// SIGKILL and SIGSTOP have no other action and are refused.
	p.Call(unix.SYS_RT_SIGACTION, sig.Value(), def, program.Num(0), program.Num(8)).Ignore(
		errnos(unix.EINVAL)...,
	)
	p.Set(sig, sig.Value(), program.Add, program.Num(1))
	p.If(sig.Value(), ^uint64(0), program.NotEqual, program.Num(65), next)
	p.Call(
		unix.SYS_RT_SIGPROCMASK, program.Num(unix.SIG_SETMASK), p.Room(8).Ptr(), program.Num(0),
		program.Num(8),
	)
}

// stdio puts the streams on descriptors 0, 1 and 2.
func (p *planner) stdio(proc *specs.Process) {
	var from [3]program.Arg
	switch {
	case proc.Terminal:
		p.Field("process.terminal")
		for i := range from {
			from[i] = p.tty.Value()
		}
		p.Call(unix.SYS_IOCTL, p.tty.Value(), program.Num(unix.TIOCSCTTY), program.Num(0))
	case p.opt.Stdio == Pipes:
		p.Field("process (standard streams)")
		from = [3]program.Arg{p.Input(InputStdin), p.Input(InputStdout), p.Input(InputStderr)}
	default:
		return
	}
	for i, fd := range from {
		p.Call(unix.SYS_DUP3, fd, program.Num(i), program.Num(0))
	}
}

// labels asks for LSM labels at execve. The file is reached through a procfs that is known to be
// one (CVE-2019-16884, CVE-2025-52881).
func (p *planner) labels(proc *specs.Process) {
	if name := proc.ApparmorProfile; name != "" && name != "unconfined" {
		if !p.opt.Host.AppArmor {
			p.fail(
				"process.apparmorProfile", "%q asked for, but AppArmor is not enabled on this host",
				name,
			)
			return
		}
		p.Fieldf("process.apparmorProfile (%s)", name)
		text := "exec " + name
		fd := p.Cell()
		old, write := p.Label(), p.Label()
		p.open(
			p.proc(), "self/attr/apparmor/exec", unix.O_WRONLY,
			unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS,
		).
			To(fd).Ignore(errnos(unix.ENOENT)...).Else(old)
		p.Place(write)
		p.Call(unix.SYS_WRITE, fd.Value(), p.Str(text).Ptr(), program.Num(len(text)))
		p.outOfLine("process.apparmorProfile", func() {
			p.Place(old) // before Linux 5.8
			p.open(
				p.proc(), "self/attr/exec", unix.O_WRONLY,
				unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS,
			).To(fd)
			p.Goto(write)
		})
	}
	if label := proc.SelinuxLabel; label != "" {
		if !p.opt.Host.SELinux {
			p.fail(
				"process.selinuxLabel", "%q asked for, but SELinux is not enabled on this host",
				label,
			)
			return
		}
		p.Fieldf("process.selinuxLabel (%s)", label)
		p.writeProc("self/attr/exec", label)
	}
}

// rlimits are the names of getrlimit(2).
var rlimits = table[string, int]{
	{"RLIMIT_CPU", unix.RLIMIT_CPU}, {"RLIMIT_FSIZE", unix.RLIMIT_FSIZE},
	{"RLIMIT_DATA", unix.RLIMIT_DATA}, {"RLIMIT_STACK", unix.RLIMIT_STACK},
	{"RLIMIT_CORE", unix.RLIMIT_CORE}, {"RLIMIT_RSS", unix.RLIMIT_RSS},
	{"RLIMIT_NPROC", unix.RLIMIT_NPROC}, {"RLIMIT_NOFILE", unix.RLIMIT_NOFILE},
	{"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK}, {"RLIMIT_AS", unix.RLIMIT_AS},
	{"RLIMIT_LOCKS", unix.RLIMIT_LOCKS},
	{"RLIMIT_SIGPENDING", unix.RLIMIT_SIGPENDING}, {"RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE},
	{"RLIMIT_NICE", unix.RLIMIT_NICE},
	{"RLIMIT_RTPRIO", unix.RLIMIT_RTPRIO}, {"RLIMIT_RTTIME", unix.RLIMIT_RTTIME},
}

func (p *planner) limits(proc *specs.Process) {
	for i, r := range proc.Rlimits {
		field := fmt.Sprintf("process.rlimits[%d] (%s)", i, r.Type)
		p.Field(field)
		limit, _ := rlimits.get(r.Type)
		p.Call(
			unix.SYS_PRLIMIT64, program.Num(0), program.Num(limit),
			p.Bytes(words(r.Soft, r.Hard)).Ptr(), program.Num(0),
		)
	}
}

// changeDir enters the working directory while the process may still enter any. The result of a
// refusal is kept for retryDir.
func (p *planner) changeDir(proc *specs.Process) program.Cell {
	p.Fieldf("process.cwd (%s)", proc.Cwd)
	dir := proc.Cwd
	if dir == "" {
		dir = "/"
	}
	// A filesystem that trusts no root (NFS) may let the user in whom the process becomes.
	return p.Call(unix.SYS_CHDIR, p.Str(dir).Ptr()).Ignore(
		errnos(unix.EACCES, unix.EPERM)...,
	).Result()
}

// retryDir enters the working directory as the user, if root was refused, and then makes sure that
// it lies inside: a path that leads through a descriptor to a directory of the host ends here
// (CVE-2024-21626).
func (p *planner) retryDir(entered program.Cell) {
	p.Fieldf("process.cwd (%s)", p.proc0().Cwd)
	again, check := p.Label(), p.Label()
	p.If(entered.Value(), ^uint64(0), program.NotEqual, program.Num(0), again)
	p.Place(check)
	buf := p.Room(unix.PathMax)
	p.Call(unix.SYS_GETCWD, buf.Ptr(), program.Num(unix.PathMax))
	// getcwd(2): a directory that is not below the process's root is shown as "(unreachable)...".
	inside := p.Label()
	p.If(buf.Load(0, 1), ^uint64(0), program.Equal, program.Num(uint64('/')), inside)
	p.Fail(program.Num(uint64(unix.EPERM)))
	p.Place(inside)
	p.outOfLine("process.cwd", func() {
		p.Place(again)
		p.Call(unix.SYS_CHDIR, p.Str(p.proc0().Cwd).Ptr())
		p.Goto(check)
	})
}

func (p *planner) proc0() *specs.Process { return p.spec.Process }

// lookup finds the executable as execvp(3) does, with the identity and from the directory of the
// process. It leaves the address of the path in a cell. A name with a slash is the path itself:
// execve reports what is wrong with it, or, for a process that is held before execve, a check does.
func (p *planner) lookup(proc *specs.Process) program.Cell {
	p.Field(p.programField(proc))
	exe := p.Cell()
	name := proc.Args[0]
	if p.executable != "" {
		name = p.executable
	}
	if strings.Contains(name, "/") {
		p.Set(exe, p.Str(name).Ptr(), program.Move, program.Num(0))
		if p.opt.Hold {
			p.Call(unix.SYS_FACCESSAT, program.Num(atFDCWD), exe.Value(), program.Num(unix.X_OK))
			// Directories may be searched, but not executed.
			p.Call(
				unix.SYS_STATX, program.Num(atFDCWD), exe.Value(), program.Num(0),
				program.Num(unix.STATX_TYPE), p.statx.Ptr(),
			)
			file := p.Label()
			p.ifType(program.NotEqual, unix.S_IFDIR, file)
			p.Fail(program.Num(uint64(unix.EACCES)))
			p.Place(file)
		}
		return exe
	}
	found, denied := p.Label(), p.Cell()
	for _, dir := range pathList(proc.Env) {
		candidate := path.Join(dir, name)
		if dir == "" {
			candidate = "./" + name
		}
		s := p.Str(candidate).Ptr()
		next := p.Label()
		result := p.Call(unix.SYS_FACCESSAT, program.Num(atFDCWD), s, program.Num(unix.X_OK)).
			Ignore(
				errnos(unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ELOOP)...,
			).Else(next).Result()
		p.Set(exe, s, program.Move, program.Num(0))
		p.Call(
			unix.SYS_STATX, program.Num(atFDCWD), s, program.Num(0), program.Num(unix.STATX_TYPE),
			p.statx.Ptr(),
		).
			Ignore(errnos(unix.ENOENT)...).Else(next)
		p.ifType(program.NotEqual, unix.S_IFDIR, found)
		p.Place(next)
		skip := p.Label()
		p.If(result.Value(), ^uint64(0), program.NotEqual, program.Num(-int64(unix.EACCES)), skip)
		p.Set(denied, program.Num(1), program.Move, program.Num(0))
		p.Place(skip)
	}
	missing := p.Label()
	p.If(denied.Value(), ^uint64(0), program.Equal, program.Num(0), missing)
	p.Fail(program.Num(uint64(unix.EACCES)))
	p.Place(missing)
	p.Fail(program.Num(uint64(unix.ENOENT)))
	p.Place(found)
	return exe
}

// programField names the program in errors.
func (p *planner) programField(proc *specs.Process) string {
	if p.executable != "" {
		return "hooks (" + p.executable + ")"
	}
	return "process.args (" + proc.Args[0] + ")"
}

// pathList is $PATH of an environment; the last assignment counts.
func pathList(env []string) []string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], "PATH="); ok {
			return strings.Split(v, ":")
		}
	}
	return nil
}

// filter compiles the seccomp profile.
func (p *planner) filter() *seccomp.Filter {
	if p.spec.Linux == nil || p.spec.Linux.Seccomp == nil {
		return nil
	}
	if p.opt.Filter != nil {
		return p.opt.Filter
	}
	f, err := seccomp.Compile(p.spec.Linux.Seccomp, seccomp.Options{})
	if err != nil {
		if p.err == nil {
			p.err = err
		}
		return nil
	}
	return f
}

func (p *planner) install(f *seccomp.Filter) {
	p.out.Filter = f
	p.Field("linux.seccomp")
	code := p.Bytes(f.Bytes())
	prog := p.Room(16) // struct sock_fprog
	p.Point(prog, 8, code)
	p.Note(prog, fmt.Sprintf("filter of %d instructions", len(f.Insns)))
	p.Poke16(prog, 0, uint16(len(f.Insns)))
	flags := uint64(f.Flags)
	if f.Notify {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	call := p.Call(
		unix.SYS_SECCOMP, program.Num(unix.SECCOMP_SET_MODE_FILTER), program.Num(flags), prog.Ptr(),
	)
	if f.Notify {
		socket := p.Input(program.InputSync)
		if p.opt.Hold {
			socket = p.starter.Value()
		}
		p.SendFD(socket, program.StageSeccomp, call.Result().Value())
	}
}
