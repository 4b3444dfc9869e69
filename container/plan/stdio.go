package plan

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// stdio are the standard streams of the process, or the terminal in place of them.
type stdio struct {
	*files
	opt  *Options
	proc *specs.Process
	tty  program.Cell // the process's end of its terminal
}

// allocate opens a new pseudo-terminal of the devpts of the container whose root is given, and
// sends its master to the spawner. The process's end is known by its descriptor only (TIOCGPTPEER),
// never by a name that another process could have replaced (CVE-2025-52565).
func (p *stdio) allocate(root program.Arg) {
	const devptsMagic = 0x1cd1
	p.Field("process.terminal (/dev/pts/ptmx)")
	master := p.open(root, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, resolveInRoot).Result()
	buf := p.Room(120) // struct statfs
	genuine := p.Label()
	p.Call(unix.SYS_FSTATFS, master.Value(), buf.Ptr())
	p.If(buf.Load(0, 8), ^uint64(0), program.Equal, program.Num(devptsMagic), genuine)
	p.Fail(program.Num(uint64(unix.ENOTTY)))
	p.Place(genuine)
	p.Call(unix.SYS_IOCTL, master.Value(), program.Num(unix.TIOCSPTLCK), p.Room(8).Ptr())
	p.tty = p.Call(
		unix.SYS_IOCTL, master.Value(), program.Num(unix.TIOCGPTPEER),
		program.Num(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC),
	).Result()
	p.prepare()
	p.SendFD(p.Input(program.InputSync), program.StageTTY, master.Value())
	p.Call(unix.SYS_CLOSE, master.Value())
}

// prepare gives the process's end its size and its owner.
func (p *stdio) prepare() {
	if s := p.proc.ConsoleSize; s != nil {
		p.Field("process.consoleSize")
		size := p.Bytes(
			[]byte{
				byte(s.Height), byte(s.Height >> 8), byte(s.Width), byte(s.Width >> 8), 0, 0, 0, 0,
			},
		)
		p.Call(unix.SYS_IOCTL, p.tty.Value(), program.Num(unix.TIOCSWINSZ), size.Ptr())
	}
	p.Field("process.terminal")
	p.plainNewlines()
	p.Call(
		unix.SYS_FCHOWN, p.tty.Value(), program.Num(p.proc.User.UID),
		program.Num(uint32(0xffffffff)),
	).Ignore(errnos(unix.EPERM, unix.EINVAL)...)
}

// plainNewlines lets newlines of the terminal's output through as they are, if that was asked for
// (termios(3), ONLCR). The process's first output may come before the spawner has the terminal.
func (p *stdio) plainNewlines() {
	if !p.opt.PlainTerminal {
		return
	}
	termios := p.Room(64) // struct termios of the kernel: the output flags are its second number
	p.Call(unix.SYS_IOCTL, p.tty.Value(), program.Num(unix.TCGETS), termios.Ptr())
	p.Set(
		p.CellIn(termios, 0), termios.Load(0, 8), program.And,
		program.Num(^(uint64(unix.ONLCR) << 32)),
	)
	p.Call(unix.SYS_IOCTL, p.tty.Value(), program.Num(unix.TCSETS), termios.Ptr())
}

// take is allocate for a terminal that the spawner has allocated.
func (p *stdio) take() {
	p.tty = p.Cell()
	p.Field("process.terminal")
	p.Set(p.tty, p.Input(InputTTY), program.Move, program.Num(0))
	p.prepare()
}

// connect puts the streams on descriptors 0, 1 and 2.
func (p *stdio) connect() {
	var from [3]program.Arg
	switch {
	case p.proc.Terminal:
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

// ownPipes gives the pipes among the streams to the user that the process becomes, who could not
// open /dev/stdout otherwise, as runc and crun do. Files and terminals of the host keep their
// owner.
func (p *stdio) ownPipes() {
	if p.proc.Terminal || p.proc.User.UID == 0 {
		return
	}
	p.Field("process.user (standard streams)")
	for fd := range 3 {
		next := p.Label()
		p.Call(
			unix.SYS_STATX, program.Num(fd), p.empty.Ptr(), program.Num(unix.AT_EMPTY_PATH),
			program.Num(unix.STATX_TYPE), p.statx.Ptr(),
		).Ignore(errnos(unix.EBADF)...).Else(next)
		p.ifType(program.NotEqual, unix.S_IFIFO, next)
		p.Call(
			unix.SYS_FCHOWN, program.Num(fd), program.Num(p.proc.User.UID),
			program.Num(p.proc.User.GID),
		).Ignore(errnos(unix.EPERM, unix.EINVAL)...)
		p.Place(next)
	}
}
