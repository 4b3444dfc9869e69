// Package early makes the start of Go programs that live for milliseconds cheap.
//
// Two things cost such a program a tenth of its time and more, because they happen while the Go
// runtime comes up and shortly after:
//
//   - The scheduler's monitor, a thread, wakes every 20 µs as long as it finds something to do and
//     for its first 50 rounds in any case (runtime/proc.go, sysmon). Each time it takes the
//     processor from the thread that works. With more timer slack (prctl(2), PR_SET_TIMERSLACK) the
//     kernel lets it sleep until a timer fires anyway.
//   - The runtime's threads spread over the processors, wake one another there, and every change of
//     a mapping interrupts them all to flush their translations; in a virtual machine each of these
//     is an exit to the hypervisor.
//
// The best time to settle both is before there is a second thread, so before the runtime. A program
// linked with "-E strake/internal/early.entry" is entered by the kernel here (entry_*.s): it
// remembers its processors and its timer slack, takes the processor that it is on and a slack of 10
// ms, and goes to the runtime. Others call Relax for the monitor's sake alone.
//
// What was remembered has to be given back to whatever is not such a program: package spawn does so
// before it clones, with Thread, and who uses os/exec calls Lock.
package early

import (
	"math/bits"
	"runtime"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slack is how much later the monitor may wake. Someone at a terminal does not notice. The entry
// has the same number.
const slack = 10_000_000 // ns

// Written before there are goroutines, by the entry or by Relax, and never after.
var (
	// before is the mask of processors that the program was started with (sched_getaffinity(2)), of
	// which size bytes are in use; 0 if the program was left where it is.
	before cpuMask
	size   uint64
	// one is the mask of the one that it took, whose number is processor.
	//lint:ignore U1000 used by the entry alone
	one cpuMask
	//lint:ignore U1000 used by the entry alone
	processor uint32
	// slackBefore is the timer slack that the program was started with, in ns; 0 if it was left at
	// that.
	slackBefore uint64
)

// cpuMask has bits for 1,024 processors. On a kernel for more, threads stay where they are.
type cpuMask [128]byte

// all asks for every processor that the cpuset allows.
var all = func() (m cpuMask) {
	for i := range m {
		m[i] = 0xff
	}
	return m
}()

// Lock ties the calling goroutine to its thread, which gets back what Thread gives it, until unlock
// is called: for os/exec and execve(2).
func Lock() (unlock func()) {
	runtime.LockOSThread()
	Thread()
	return runtime.UnlockOSThread
}

// Thread gives the calling thread what the program was started with: what it clones or executes
// inherits that.
//
//go:nosplit
func Thread() {
	if slackBefore != 0 {
		unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(slackBefore), 0)
	}
	affinity(0)
}

// affinity gives a thread, or the calling one for 0, the processors back.
//
// A mask that a thread has set stays its wish, and bounds the thread when its cpuset grows
// (sched_setaffinity(2)). A thread without a mask must have none afterwards, but the kernel does
// not say which case it is. So the thread asks for all processors: if it gets those that it had
// before, it was not bound.
//
//go:nosplit
func affinity(tid uintptr) {
	if size == 0 {
		return
	}
	var now cpuMask
	unix.RawSyscall(
		unix.SYS_SCHED_SETAFFINITY, tid, unsafe.Sizeof(all), uintptr(unsafe.Pointer(&all)),
	)
	unix.RawSyscall(
		unix.SYS_SCHED_GETAFFINITY, tid, unsafe.Sizeof(now), uintptr(unsafe.Pointer(&now)),
	)
	if now != before {
		unix.RawSyscall(
			unix.SYS_SCHED_SETAFFINITY, tid, unsafe.Sizeof(before),
			uintptr(unsafe.Pointer(&before)),
		)
	}
}

var once sync.Once

// Undo gives all threads what the program was started with, but for the monitor's slack, so that
// what they wait for is not late and what they start is not bound. The runtime still believes in
// one processor, see Settle.
func Undo() { once.Do(undo) }

// Settle makes an ordinary program of one that goes on for long: it calls Undo and lets goroutines
// run on as many processors as the program has, at most limit.
func Settle(limit int) {
	Undo()
	n := runtime.NumCPU()
	if size != 0 {
		n = 0
		for _, b := range before {
			n += bits.OnesCount8(b)
		}
	}
	runtime.GOMAXPROCS(min(n, limit))
}

func undo() {
	if size == 0 && slackBefore == 0 {
		return
	}
	done := make(map[int]bool)
	for more := true; more; {
		more = false
		// A thread that was started meanwhile, by one that was still bound, is seen the next time.
		for i, tid := range threads() {
			if done[tid] {
				continue
			}
			done[tid], more = true, true
			affinity(uintptr(tid))
			if slackBefore != 0 && i != monitor {
				setSlack(tid, slackBefore)
			}
		}
	}
}

// tendEvery is how often Tend looks at the threads at most.
const tendEvery = 100 * time.Millisecond

// tended is what Tend knows: when it looked last, and the threads that it has seen.
var tended struct {
	sync.Mutex
	next    time.Time
	threads map[int]bool
}

// Tend gives the threads that the monitor has started since the last time the slack that the
// program was started with. The monitor starts one when all others are blocked, and that inherits
// the monitor's slack: wherever the runtime sleeps for some microseconds on it, it sleeps for up to
// ten milliseconds, and all that waits for it does too. A program that goes on for long calls Tend
// where its work comes in; most calls look at the clock only. It may be called concurrently.
func Tend() {
	if slackBefore == 0 || !tended.TryLock() {
		return
	}
	defer tended.Unlock()
	now := time.Now()
	if now.Before(tended.next) {
		return
	}
	tended.next = now.Add(tendEvery)
	seen := make(map[int]bool, len(tended.threads)+1)
	for i, tid := range threads() {
		if seen[tid] = true; i != monitor && !tended.threads[tid] {
			setSlack(tid, slackBefore)
		}
	}
	tended.threads = seen
}

// Relax gives the monitor more slack in a program that was not entered here. It is to be called
// first of all. Where that cannot be had (another thread's slack wants CAP_SYS_NICE, proc(5))
// everything is as before.
func Relax() {
	if slackBefore != 0 {
		return
	}
	// Threads that the monitor starts have its slack, until Undo or Tend.
	if ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err == nil && ns > 0 {
		slackBefore = uint64(ns)
	}
	if list := threads(); len(list) > monitor {
		setSlack(list[monitor], slack)
	}
}

func setSlack(tid int, ns uint64) {
	// Not below task: only processes have the file there, but a thread's number finds it too.
	fd, err := unix.Open(
		"/proc/"+strconv.Itoa(tid)+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0,
	)
	if err != nil {
		return
	}
	unix.Write(fd, strconv.AppendUint(nil, ns, 10)) // as promised: no better, then as before
	unix.Close(fd)
}

// monitor is the place of the monitor among the threads: it is the first that the runtime makes.
const monitor = 1

// threads lists the threads of this process in the order of their numbers; nil if there is no
// /proc.
func threads() (list []int) {
	dir, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	var buf [4096]byte
	for {
		n, err := unix.Getdents(dir, buf[:])
		if n <= 0 || err != nil {
			return list
		}
		list = parse(list, buf[:n])
	}
}

// parse appends the numbers among the entries of a directory (getdents64(2)).
func parse(list []int, entries []byte) []int {
	const lengthAt, nameAt = 16, 19
	for len(entries) > nameAt {
		length := int(entries[lengthAt]) | int(entries[lengthAt+1])<<8
		if length <= nameAt || length > len(entries) {
			return list
		}
		if tid, err := strconv.Atoi(unix.ByteSliceToString(entries[nameAt:length])); err == nil {
			list = append(list, tid)
		}
		entries = entries[length:]
	}
	return list
}
