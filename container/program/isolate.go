package program

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Inputs that every program has.
const (
	// InputSync is the child's end of the socket on which it reports and waits.
	InputSync = "sync"
	// InputExe is a sealed memory file that becomes the child's /proc/self/exe.
	InputExe = "exe"
)

// A child speaks on its sync socket in messages of eight bytes: a failure is the index of the
// operation and its errno, a stage is a number with StageBit set and a value.
const (
	StageBit = 1 << 31
	// StageForked: the sender goes on in place of the process that was cloned first, which ends.
	StageForked = 1
	// StageTTY: the message carries the master of the container's terminal.
	StageTTY = 2
	// StageHooks: namespaces and mounts are there, the root is not changed yet. The child waits to
	// be continued.
	StageHooks = 3
	// StageReady: everything is done but startContainer hooks and execve.
	StageReady = 4
	// StageSeccomp: the message carries the listener of a seccomp filter with user notifications.
	StageSeccomp = 6
	// StageAssist, plus a number: the message carries a descriptor for work that the spawner does
	// while the child waits to be continued.
	StageAssist = 1 << 8
)

// stageMessage is the eight bytes of a stage with the value 0.
func (b *Builder) stageMessage(stage uint32) Buf {
	m := b.Room(8)
	binary.LittleEndian.PutUint32(b.p.img.data[m.off:], StageBit|stage)
	if stage < StageAssist {
		b.Note(m, stageNames[stage])
	} else {
		b.Note(m, "assist "+decimal(stage-StageAssist))
	}
	return m
}

var stageNames = map[uint32]string{
	StageForked: "forked", StageTTY: "tty", StageHooks: "hooks", StageReady: "ready",
	StageSeccomp: "seccomp",
}

// Stage tells the spawner that the child has got this far.
func (b *Builder) Stage(stage uint32) {
	b.Call(unix.SYS_WRITE, b.Input(InputSync), b.stageMessage(stage).Ptr(), Num(8))
}

// Await blocks until the spawner continues the child. A spawner that is gone ends it with
// ECONNABORTED.
func (b *Builder) Await() {
	n := b.Call(unix.SYS_READ, b.Input(InputSync), b.Room(8).Ptr(), Num(8)).Result()
	ok := b.Label()
	b.If(n.Value(), ^uint64(0), Equal, Num(8), ok)
	b.Fail(Num(uint64(unix.ECONNABORTED)))
	b.Place(ok)
}

// SendFD sends the descriptor fd together with a stage on a socket: that to the spawner, or one on
// which the program reports in its place (Report).
func (b *Builder) SendFD(socket Arg, stage uint32, fd Arg) {
	iov := b.Room(16)
	b.Point(iov, 0, b.stageMessage(stage))
	binary.LittleEndian.PutUint64(b.p.img.data[iov.off+8:], 8)
	cmsg := b.Room(24) // struct cmsghdr and one descriptor, padded
	binary.LittleEndian.PutUint64(b.p.img.data[cmsg.off:], 20)
	binary.LittleEndian.PutUint32(b.p.img.data[cmsg.off+8:], unix.SOL_SOCKET)
	binary.LittleEndian.PutUint32(b.p.img.data[cmsg.off+12:], unix.SCM_RIGHTS)
	b.Set(Cell{cmsg.off + 16}, fd, Move, Num(0))
	msg := b.Room(56) // struct msghdr
	b.Point(msg, 16, iov)
	binary.LittleEndian.PutUint64(b.p.img.data[msg.off+24:], 1)
	b.Point(msg, 32, cmsg)
	binary.LittleEndian.PutUint64(b.p.img.data[msg.off+40:], 24)
	b.Call(unix.SYS_SENDMSG, socket, msg.Ptr(), Num(0))
}

// Fork continues the program in a new child of the spawner, born in the namespaces of flags; the
// present process ends. Needed after a PID namespace was joined, and to create namespaces inside of
// a joined user namespace.
//
// The new process reports itself, before anything else that it may have to report, and the kernel
// says who it is (SCM_CREDENTIALS, unix(7)). Should it be killed before that, the spawner finds it
// by the process group, which the present process makes for the two of them: a child that nobody
// reaps would keep the PID namespace from ending.
func (b *Builder) Fork(flags uint64) {
	b.p.img.forks = true
	b.Call(unix.SYS_SETPGID, Num(0), Num(0)).Ignore(uint16(unix.EPERM)) // leads a session already
	// struct clone_args; CLONE_PARENT takes the exit signal from this process.
	args := b.Room(88)
	binary.LittleEndian.PutUint64(b.p.img.data[args.off:], flags|unix.CLONE_PARENT)
	pid := b.Call(unix.SYS_CLONE3, args.Ptr(), Num(88)).Result()
	child := b.Label()
	b.If(pid.Value(), ^uint64(0), Equal, Num(0), child)
	b.Exit(Num(0))
	b.Place(child)
	b.Stage(StageForked)
}

// Exit ends the process with a status.
func (b *Builder) Exit(status Arg) { b.Call(unix.SYS_EXIT_GROUP, status) }

// Isolate appends what every child does first: it gives up all memory that it inherited, and with
// it the last reference to the strake executable. From then on /proc/self/exe leads to a sealed
// file that holds the interpreter and nothing else, so neither an entrypoint nor a script
// interpreter called /proc/self/exe can reach a file of the host (the class of CVE-2019-5736), and
// a process that may ptrace the child finds no memory of the host in it (CVE-2016-9962).
//
// It must come before any namespace is joined in which another process could look at the child.
// PR_SET_MM_MAP (prctl(2)) wants CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the child's user
// namespace, which both root and the first process of a new user namespace have, and a kernel with
// CONFIG_CHECKPOINT_RESTORE.
//
// Until it executes, ps shows the process as being set up.
func (b *Builder) Isolate() { b.IsolateAs("strake: container being set up") }

// IsolateAs is Isolate with another command line for ps.
func (b *Builder) IsolateAs(commandLine string) {
	b.Field("isolate")
	b.Call(unix.SYS_MUNMAP, Num(0), MapStart)
	// The end of the address space is not known: 47 bits on amd64, 48, 42 or 39 on arm64. A length
	// that reaches too far is refused whole.
	size := b.Cell()
	done := b.Label()
	for _, bits := range []uint{48, 47, 42, 39} {
		b.Set(size, Num(uint64(1)<<bits-4096), Sub, MapEnd)
		next := b.Label()
		b.Call(unix.SYS_MUNMAP, MapEnd, size.Value()).Ignore(uint16(unix.EINVAL)).Else(next)
		b.Goto(done)
		b.Place(next)
	}
	b.Fail(Num(uint64(unix.EINVAL)))
	b.Place(done)

	title := b.Bytes([]byte(commandLine + "\x00\x00"))
	end := b.Bytes(make([]byte, 8))
	mm := b.Room(104) // struct prctl_mm_map, linux/prctl.h
	for off := uint32(0); off <= 80; off += 8 {
		b.Point(mm, off, title)
	}
	for _, off := range []uint32{8, 24, 40, 64, 80} { // end_code, end_data, brk, arg_end, env_end
		b.Point(mm, off, end)
	}
	b.Set(Cell{mm.off + 96}, b.Input(InputExe), ShiftL, Num(32)) // auxv_size 0, exe_fd
	b.Call(unix.SYS_PRCTL, Num(unix.PR_SET_MM), Num(unix.PR_SET_MM_MAP), mm.Ptr(), Num(104), Num(0))
}
