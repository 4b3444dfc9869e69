package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/container/spawn"
	"strake/keeper/pidfd"
)

// The guard is a process of a few pages that holds duplicates of the descriptors which the keeper
// holds for its processes: as long as it lives, a keeper that is killed costs no process its output
// or its terminal, and the next keeper takes the descriptors back out of it (pidfd_getfd(2)). It is
// a program without execve that loops on recvmsg(2). It holds both ends of its channel, so the
// death of the keeper is no end of file, and the next keeper goes on with the same channel.
//
// The keeper knows at which number the guard has what, without asking: the kernel gives a received
// descriptor the lowest free number, one after the other, and nothing but the keeper's messages
// changes the guard's table. A guard that cannot receive all descriptors of a message ends, as does
// one that is told to close what is not open, and one whose state directory has been removed: no
// keeper could find it.

// guardName is the guard's name (comm in proc_pid_stat(5), and its command line).
const guardName = "strake-guard"

// What a message of the keeper asks for. A message has 8+4*guardBatch bytes: the request, four
// bytes of nothing, and numbers.
const (
	guardAdd   = 1 // the descriptors that come with it are kept
	guardClose = 2 // the numbers up to the first one that is noNumber are closed
	guardEcho  = 3 // the message is sent back
)

const (
	guardBatch   = 24
	guardMessage = 8 + 4*guardBatch
	noNumber     = ^uint32(0)
	// guardFeed and guardOwn are the guard's own descriptors: its end of the channel and a
	// duplicate of the keeper's. guardOutput is the memory that output passes through.
	// guardLock is the lock of the state directory.
	guardFeed, guardOwn, guardOutput, guardLock = 0, 1, 2, 3
	// guardFirst is the first number that a process's descriptor can have.
	guardFirst = 4
	// guardIdle is how often a guard that hears nothing looks whether there is still a directory
	// in which a keeper could find it.
	guardIdle = 30 * time.Second
	// guardPatience bounds the waiting for the guard, which answers within microseconds.
	guardPatience = 2 * time.Second
)

// guardProgram is what the guard runs. Its inputs are "feed", "own", "output" and "lock".
func guardProgram() (*program.Program, error) {
	num := func(n int) program.Arg { return program.Num(n) }
	var b program.Builder
	b.IsolateAs(guardName)
	b.Field("guard")
	b.Call(unix.SYS_SETSID)
	b.Call(
		unix.SYS_PRCTL, num(unix.PR_SET_NAME), b.Str(guardName).Ptr(), num(0), num(0), num(0),
	)
	// The guard's own descriptors get their numbers, by way of numbers that are free.
	var own [guardFirst]program.Cell
	for i, name := range []string{"feed", "own", "output", "lock"} {
		own[i] = b.Call(unix.SYS_FCNTL, b.Input(name), num(unix.F_DUPFD), num(guardFirst)).Result()
	}
	for i, fd := range own {
		b.Call(unix.SYS_DUP3, fd.Value(), num(i), num(0))
	}
	// With the last of the others goes the channel of the set-up, which tells the keeper that all
	// is well.
	b.Call(unix.SYS_CLOSE_RANGE, num(guardFirst), num(0xffffffff), num(0))

	le := binary.LittleEndian
	buf := b.Room(guardMessage)
	iov := b.Bytes(le.AppendUint64(make([]byte, 8), guardMessage))
	b.Point(iov, 0, buf)
	control := b.Room(unix.CmsgSpace(4 * len(places{})))
	raw := make([]byte, 56) // struct msghdr
	le.PutUint64(raw[24:], 1)
	msg := b.Bytes(raw)
	b.Point(msg, 16, iov)
	b.Point(msg, 32, control)
	room := b.CellIn(msg, 40)

	next, failed, echo, idle := b.Here(), b.Label(), b.Label(), b.Label()
	b.Set(room, control.Size(), program.Move, num(0)) // recvmsg has replaced it by what it used
	b.Call(unix.SYS_RECVMSG, num(guardFeed), msg.Ptr(), num(unix.MSG_CMSG_CLOEXEC)).
		Ignore(uint16(unix.EAGAIN)).Else(idle)
	b.If(
		msg.Load(48, 4), unix.MSG_TRUNC|unix.MSG_CTRUNC, program.NotEqual, num(0), failed,
	)
	request := buf.Load(0, 4)
	b.If(request, ^uint64(0), program.Equal, num(guardAdd), next)
	b.If(request, ^uint64(0), program.Equal, num(guardEcho), echo)
	for i := range guardBatch {
		n := buf.Load(uint32(8+4*i), 4)
		b.If(n, ^uint64(0), program.Equal, program.Num(uint64(noNumber)), next)
		b.Call(unix.SYS_CLOSE, n).Ignore(uint16(unix.EIO), uint16(unix.EINTR))
	}
	b.Goto(next)
	b.Place(echo)
	b.Call(unix.SYS_WRITE, num(guardFeed), buf.Ptr(), num(guardMessage))
	b.Goto(next)
	b.Place(idle)
	const links = 16 // offset of stx_nlink in struct statx
	statx := b.Room(256)
	b.Call(
		unix.SYS_STATX, num(guardLock), b.Str("").Ptr(), num(unix.AT_EMPTY_PATH),
		num(unix.STATX_NLINK), statx.Ptr(),
	)
	b.If(statx.Load(links, 4), ^uint64(0), program.NotEqual, num(0), next)
	b.Exit(num(0))
	b.Place(failed)
	b.Exit(num(1))
	return b.Build()
}

// guard is the keeper's side.
type guard struct {
	identity
	pidfd int
	feed  int // the keeper's end of the channel
	used  numbers
	// deaf says why a guard of another keeper does not do as it is told. What it has can be taken,
	// then it is to be replaced.
	deaf error
}

// startGuard starts one and returns when it is set up. output is the memory that output passes
// through, lock the lock file of the state directory. score is the oom_score_adj that the guard
// gets; nil leaves the one that it inherits.
func startGuard(m *spawn.Machine, output, lock int, score *int) (*guard, error) {
	p, err := guardProgram()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[1])
	idle := unix.NsecToTimeval(int64(guardIdle))
	if err := unix.SetsockoptTimeval(
		pair[1], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &idle,
	); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("time limit of the channel: %w", err)
	}
	g := &guard{
		pidfd: -1, feed: pair[0],
		used: newNumbers(guardFeed, guardOwn, guardOutput, guardLock),
	}
	inputs := map[string]int{"feed": pair[1], "own": pair[0], "output": output, "lock": lock}
	child, err := m.Start(&spawn.Request{
		Image: p.Image(), CgroupFD: -1,
		Input: func(name string) (int, error) { return inputs[name], nil },
	})
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	g.pid, g.pidfd = child.Pid, child.PidFD
	err = g.settle(child, score)
	child.Release()
	if err != nil {
		g.end()
		return nil, err
	}
	return g, nil
}

// settle waits for the end of the set-up and finds out what is to be known of the guard.
func (g *guard) settle(child *spawn.Child, score *int) error {
	if !within(child.SyncFD(), guardPatience) {
		return errors.New("it is not set up in time")
	}
	if _, err := child.Next(); err != nil {
		return err
	}
	st, err := readStat(g.pid)
	if err != nil {
		return err
	}
	if st.state == 'Z' {
		return errors.New("it was killed while it was being set up")
	}
	g.ticks = st.ticks
	if score != nil {
		path := "/proc/" + strconv.Itoa(g.pid) + "/oom_score_adj"
		if err := os.WriteFile(path, strconv.AppendInt(nil, int64(*score), 10), 0); err != nil {
			return err
		}
	}
	return g.prepare()
}

// prepare makes the channel one on which sending waits, but not for ever.
func (g *guard) prepare() error {
	unix.SetsockoptInt(g.feed, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 1<<20) // else what is usual
	t := unix.NsecToTimeval(int64(guardPatience))
	if err := unix.SetsockoptTimeval(g.feed, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &t); err != nil {
		return fmt.Errorf("time limit of the channel: %w", err)
	}
	return nil
}

// findGuard finds the guard that another keeper has left. It is errdefs.ErrNotFound if that is
// gone. One that lives and whose descriptors cannot be taken is ended: a pipe that is open and
// never read would stop its writer for ever.
func findGuard(id identity) (*guard, error) {
	gone := fmt.Errorf("the guard, process %d, is gone: %w", id.pid, errdefs.ErrNotFound)
	fd, err := unix.PidfdOpen(id.pid, 0)
	if err != nil {
		return nil, gone
	}
	g := &guard{identity: id, pidfd: fd, feed: -1}
	// A process that is not the guard has other ticks or another name. That the numbers are those
	// of the process of the descriptor is sure if that lives afterwards.
	st, err := readStat(id.pid)
	if err != nil || st.ticks != id.ticks || st.name != guardName || st.state == 'Z' ||
		unix.PidfdSendSignal(fd, 0, nil, 0) != nil {
		unix.Close(fd)
		return nil, gone
	}
	if g.feed, err = g.get(guardOwn); err == nil {
		if g.deaf = g.prepare(); g.deaf == nil {
			g.deaf = g.catchUp()
		}
		err = g.look()
	}
	if err != nil {
		g.end()
		return nil, fmt.Errorf("the guard, process %d, is ended: %w", id.pid, err)
	}
	return g, nil
}

// catchUp returns when the guard has handled everything that another keeper sent to it.
func (g *guard) catchUp() error {
	message := make([]byte, guardMessage)
	binary.LittleEndian.PutUint32(message, guardEcho)
	// Another keeper may have died before it read its answer.
	binary.LittleEndian.PutUint64(message[8:], uint64(unix.Getpid()))
	binary.LittleEndian.PutUint64(message[16:], uint64(time.Now().UnixNano()))
	if err := unix.Sendmsg(g.feed, message, nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("send to it: %w", err)
	}
	answer := make([]byte, guardMessage)
	for {
		if !within(g.feed, guardPatience) {
			return errors.New("it does not answer")
		}
		n, _, err := unix.Recvfrom(g.feed, answer, unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			return fmt.Errorf("read from it: %w", err)
		case string(answer[:n]) == string(message):
			return nil
		}
	}
}

// look finds out which numbers the guard uses.
func (g *guard) look() error {
	dir, err := os.ReadDir("/proc/" + strconv.Itoa(g.pid) + "/fd")
	if err != nil {
		return err
	}
	var list []int
	for _, e := range dir {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		list = append(list, n)
	}
	g.used = newNumbers(list...)
	return nil
}

// get duplicates a descriptor of the guard.
func (g *guard) get(number int) (int, error) {
	fd, err := unix.PidfdGetfd(g.pidfd, number, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_getfd of number %d: %w", number, err)
	}
	return fd, nil
}

// add gives duplicates of fds to the guard and returns the numbers that they have there. A message
// takes as many as a process has without kept ones.
func (g *guard) add(fds []int) ([]int, error) {
	var message [guardMessage]byte
	binary.LittleEndian.PutUint32(message[:], guardAdd)
	for part := range slices.Chunk(fds, len(places{})) {
		if err := g.send(message[:], unix.UnixRights(part...)); err != nil {
			return nil, err
		}
	}
	list := make([]int, len(fds))
	for i := range list {
		list[i] = g.used.take()
	}
	return list, nil
}

// drop makes the guard close what it has at these numbers.
func (g *guard) drop(list []int) error {
	for len(list) > 0 {
		part := list[:min(len(list), guardBatch)]
		list = list[len(part):]
		message := make([]byte, 8, guardMessage)
		binary.LittleEndian.PutUint32(message, guardClose)
		for i := range guardBatch {
			n := noNumber
			if i < len(part) {
				n = uint32(part[i])
			}
			message = binary.LittleEndian.AppendUint32(message, n)
		}
		if err := g.send(message, nil); err != nil {
			return err
		}
		for _, n := range part {
			g.used.free(n)
		}
	}
	return nil
}

func (g *guard) send(message, oob []byte) error {
	for {
		_, err := unix.SendmsgN(g.feed, message, oob, nil, unix.MSG_NOSIGNAL)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("send to the guard: %w", err)
		}
	}
}

// end kills the guard.
func (g *guard) end() {
	unix.PidfdSendSignal(g.pidfd, unix.SIGKILL, nil, 0)
	within(g.pidfd, guardPatience)
	g.reap()
	g.abandon()
}

// reap takes the status of a guard that has ended, if it is this process's child.
func (g *guard) reap() { pidfd.Exit(g.pidfd, 0) }

// abandon gives up what this process holds of the guard.
func (g *guard) abandon() {
	closeAll([]int{g.feed, g.pidfd})
	g.feed, g.pidfd = -1, -1
}

// within waits until a descriptor is readable or hung up.
func within(fd int, limit time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(limit); ; {
		n, err := unix.Poll(p, int(max(0, time.Until(deadline))/time.Millisecond))
		if n > 0 || err != unix.EINTR {
			return n > 0
		}
	}
}

// numbers are the numbers of descriptors that are in use, a bit each.
type numbers struct {
	words []uint64
	low   int // no word before this one has a free bit
}

func newNumbers(used ...int) numbers {
	var s numbers
	for _, n := range used {
		for n/64 >= len(s.words) {
			s.words = append(s.words, 0)
		}
		s.words[n/64] |= 1 << (n % 64)
	}
	return s
}

// take marks the lowest number that is free, as the kernel does for a new descriptor.
func (s *numbers) take() int {
	for s.low < len(s.words) && s.words[s.low] == ^uint64(0) {
		s.low++
	}
	if s.low == len(s.words) {
		s.words = append(s.words, 0)
	}
	bit := bits.TrailingZeros64(^s.words[s.low])
	s.words[s.low] |= 1 << bit
	return 64*s.low + bit
}

func (s *numbers) free(n int) {
	s.words[n/64] &^= 1 << (n % 64)
	s.low = min(s.low, n/64)
}

// list returns the numbers in use, in order.
func (s *numbers) list() []int {
	var out []int
	for i, w := range s.words {
		for ; w != 0; w &= w - 1 {
			out = append(out, 64*i+bits.TrailingZeros64(w))
		}
	}
	return out
}
