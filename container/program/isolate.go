package program

import "golang.org/x/sys/unix"

// Inputs that every program has.
const (
	// InputSync is the child's end of the socket on which it reports and waits.
	InputSync = "sync"
	// InputExe is a sealed memory file that becomes the child's /proc/self/exe.
	InputExe = "exe"
)

// Isolate appends what every child does first: it gives up all memory that it inherited, and with it the last reference to
// the strake executable. From then on /proc/self/exe leads to a sealed file that holds the interpreter and nothing else, so
// neither an entrypoint nor a script interpreter called /proc/self/exe can reach a file of the host (the class of
// CVE-2019-5736), and a process that may ptrace the child finds no memory of the host in it (CVE-2016-9962).
//
// It must come before any namespace is joined in which somebody could look at the child. PR_SET_MM_MAP (prctl(2)) wants
// CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the child's user namespace, which both root and the first process of a new user
// namespace have, and a kernel with CONFIG_CHECKPOINT_RESTORE.
func (b *Builder) Isolate() {
	b.Field("isolate")
	b.Call(unix.SYS_MUNMAP, Num(0), MapStart)
	// The end of the address space is not known: 47 bits on amd64, 48, 42 or 39 on arm64. A length that reaches too
	// far is refused whole.
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

	title := b.Bytes([]byte("strake: container being set up\x00\x00"))
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
