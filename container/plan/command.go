package plan

import (
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// command is the program that is executed, and the working directory in which that is looked for.
type command struct {
	*files
	opt  *Options
	proc *specs.Process
	// executable is ExecOptions.Executable.
	executable string
}

// changeDir enters the working directory while the process may still enter any. The result of a
// refusal is kept for retryDir.
func (p *command) changeDir() program.Cell {
	p.Fieldf("process.cwd (%s)", p.proc.Cwd)
	// A filesystem that trusts no root (NFS) may let the user in whom the process becomes.
	return p.Call(unix.SYS_CHDIR, p.Str(p.proc.Cwd).Ptr()).Ignore(
		errnos(unix.EACCES, unix.EPERM)...,
	).Result()
}

// retryDir enters the working directory as the user, if root was refused, and then makes sure that
// it lies inside: a path that leads through a descriptor to a directory of the host ends here
// (CVE-2024-21626).
func (p *command) retryDir(entered program.Cell) {
	p.Fieldf("process.cwd (%s)", p.proc.Cwd)
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
		p.Call(unix.SYS_CHDIR, p.Str(p.proc.Cwd).Ptr())
		p.Goto(check)
	})
}

// lookup finds the executable as execvp(3) does, with the identity and from the directory of the
// process. It leaves the address of the path in a cell. A name with a slash is the path itself:
// execve reports what is wrong with it, or, for a process that is held before execve, a check does.
func (p *command) lookup() program.Cell {
	p.Field(p.field())
	exe := p.Cell()
	name := p.proc.Args[0]
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
	for _, dir := range pathList(p.proc.Env) {
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

// field names the program in errors.
func (p *command) field() string {
	if p.executable != "" {
		return "hooks (" + p.executable + ")"
	}
	return "process.args (" + p.proc.Args[0] + ")"
}

// execute replaces the process by the program that lookup has found.
func (p *command) execute(path program.Cell) {
	p.Field(p.field())
	p.Call(
		unix.SYS_EXECVE, path.Value(), p.Strs(p.proc.Args).Ptr(), p.Strs(p.proc.Env).Ptr(),
	)
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
