package plan

import (
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// process is what the configuration says of the process itself, from its first attributes to
// execve.
type process struct {
	*builder
	opt        *Options
	proc       *specs.Process
	namespaces *namespaces
	stdio      *stdio
	labels     labels
	scheduling scheduling
	identity   identity
	command    command
	filter     filter
	start      start
	reaper     reaper
}

// execute compiles everything from the finished root filesystem to execve. The order is what makes
// it correct: what needs privilege comes before identity and capabilities are given up, what the
// seccomp filter could forbid comes before the filter, and between the filter and execve stand only
// the calls that the filter's own position forces there.
func (p *process) execute() {
	p.stdio.connect()
	p.stdio.ownPipes()
	p.umask()
	p.labels.apply()
	p.scheduling.apply()
	p.limits()

	entered := p.command.changeDir()
	caps := p.identity.capabilities()
	p.identity.bounding(caps)
	p.identity.become()
	p.command.retryDir(entered)
	path := p.command.lookup()

	filter := p.filter.compile()
	keep := caps
	if filter != nil && !p.proc.NoNewPrivileges {
		// seccomp(2) wants CAP_SYS_ADMIN or no_new_privs.
		keep.Effective |= 1 << unix.CAP_SYS_ADMIN
		keep.Permitted |= 1 << unix.CAP_SYS_ADMIN
	}
	p.Field("process.capabilities")
	capset(p.builder, keep)
	p.noNewPrivileges()
	p.start.await()
	if p.opt.Reaper {
		p.reaper.name()
	} else {
		p.openSignals()
	}
	if filter != nil {
		p.filter.install(filter, &p.start)
	}
	if keep != caps {
		p.Field("process.capabilities")
		capset(p.builder, caps)
	}
	p.identity.ambient(caps)
	if p.opt.Reaper {
		// Only here, with the identity, the capabilities and the filter of the payload: a PID 1
		// that had more than it would be what a payload that may ptrace goes for.
		p.reaper.split()
		p.openSignals()
	}
	p.command.execute(path)
}

// setsid makes the process the leader of a session without a terminal.
func (p *process) setsid() {
	p.Field("process")
	p.Call(unix.SYS_SETSID).Ignore(errnos(unix.EPERM)...)
}

// keyring gives the process a session keyring of its own (session-keyring(7)).
func (p *process) keyring() {
	if p.opt.NoNewKeyring || p.namespaces.user {
		return
	}
	p.Field("process (session keyring)")
	// The name is what runc uses; kernels without keys answer ENOSYS.
	p.Call(unix.SYS_KEYCTL, program.Num(unix.KEYCTL_JOIN_SESSION_KEYRING), program.Num(0)).
		Ignore(errnos(unix.ENOSYS, unix.EPERM, unix.EDQUOT)...)
}

// oomScore is written while /proc is still the host's: in the container there may be none, or
// another process's.
func (p *process) oomScore() {
	if p.proc == nil || p.proc.OOMScoreAdj == nil {
		return
	}
	score := *p.proc.OOMScoreAdj
	if p.namespaces.flags&unix.CLONE_NEWUSER != 0 {
		p.OOMScore(score)
		return
	}
	p.Field("process.oomScoreAdj")
	fd := p.Call(
		unix.SYS_OPENAT, program.Num(atFDCWD), p.Str("/proc/self/oom_score_adj").Ptr(),
		program.Num(unix.O_WRONLY|unix.O_CLOEXEC),
	).Result()
	text := strconv.Itoa(score)
	p.Call(unix.SYS_WRITE, fd.Value(), p.Str(text).Ptr(), program.Num(len(text)))
}

func (p *process) umask() {
	p.Field("process.user.umask")
	umask := uint32(0o022)
	if p.proc.User.Umask != nil {
		umask = *p.proc.User.Umask
	}
	p.Call(unix.SYS_UMASK, program.Num(umask))
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

func (p *process) limits() {
	for i, r := range p.proc.Rlimits {
		p.Fieldf("process.rlimits[%d] (%s)", i, r.Type)
		limit, _ := rlimits.get(r.Type)
		p.Call(
			unix.SYS_PRLIMIT64, program.Num(0), program.Num(limit),
			p.Bytes(words(r.Soft, r.Hard)).Ptr(), program.Num(0),
		)
	}
}

func (p *process) noNewPrivileges() {
	if !p.proc.NoNewPrivileges {
		return
	}
	p.Field("process.noNewPrivileges")
	p.Call(
		unix.SYS_PRCTL, program.Num(unix.PR_SET_NO_NEW_PRIVS), program.Num(1), program.Num(0),
		program.Num(0), program.Num(0),
	)
}

// openSignals gives every signal its default action and unblocks all of them; pending signals are
// delivered. The clone has removed handlers (CLONE_CLEAR_SIGHAND), but a signal that the caller of
// strake ignores is still ignored.
func (p *process) openSignals() {
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
