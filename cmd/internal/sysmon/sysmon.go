// Package sysmon keeps the Go runtime's monitor out of the way of programs that work in spells of a few milliseconds.
//
// The monitor is a thread that looks after the scheduler every 20 µs as long as it finds something to do, and for its first 50 rounds in any case
// (runtime/proc.go, sysmon). It is woken beside the thread that works, on the same processor: of a `run` of 10 ms that takes a hundred context
// switches. With more timer slack (prctl(2), PR_SET_TIMERSLACK) the kernel lets it sleep until a timer fires anyway. What the monitor does
// then comes later: handing on the turn of a goroutine that a system call blocks, and ending that of one that computes.
//
// Not for: programs with long computations beside others that wait.
package sysmon

import "golang.org/x/sys/unix"

// slack is how much later the monitor may wake. Someone at a terminal does not notice.
const slack = "10000000" // ns

// Relax gives the monitor's thread more timer slack. It is to be called first of all, by the first thread. Where it cannot be had (another
// process's slack wants CAP_SYS_NICE, proc(5)) everything is as before.
func Relax() {
	dir, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	var buf [512]byte
	n, _ := unix.Getdents(dir, buf[:])
	unix.Close(dir)
	tid := second(buf[:max(n, 0)])
	if tid == "" {
		return
	}
	// Not below task: only processes have the file there, but a thread's number finds it too.
	fd, err := unix.Open("/proc/"+tid+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	unix.Write(fd, []byte(slack)) // as promised: no better, then as before
	unix.Close(fd)
}

// second finds the second thread in the entries of a task directory (getdents64(2)): they are in order, and the monitor is the first thread that
// the runtime makes.
func second(entries []byte) string {
	const lengthAt, nameAt = 16, 19
	threads := 0
	for len(entries) > nameAt {
		length := int(entries[lengthAt]) | int(entries[lengthAt+1])<<8
		if length <= nameAt || length > len(entries) {
			return ""
		}
		name := unix.ByteSliceToString(entries[nameAt:length])
		entries = entries[length:]
		if name == "" || name[0] == '.' {
			continue
		}
		if threads++; threads == 2 {
			return name
		}
	}
	return ""
}
