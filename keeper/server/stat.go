package server

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// What the kernel says of a process, proc_pid_stat(5), include/linux/sched.h.
const (
	flagExiting    = 0x00000004 // PF_EXITING
	flagForkNoExec = 0x00000040 // PF_FORKNOEXEC
)

// stat is what is read of a process.
type stat struct {
	name  string
	state byte
	flags uint64
	ticks uint64 // starttime
}

// goesOn says that a child whose channel is closed has executed, or goes on without (the guard, a
// PID 1 reaper whose own child has executed), as opposed to being about to die.
func (s *stat) goesOn() bool { return s.flags&flagForkNoExec == 0 || s.flags&flagExiting == 0 }

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, fmt.Errorf("state of process %d: %w", pid, err)
	}
	s, err := parseStat(string(text))
	if err != nil {
		return stat{}, fmt.Errorf("state of process %d: %w", pid, err)
	}
	return s, nil
}

func parseStat(text string) (s stat, err error) {
	// The name in the second field may contain anything.
	from, to := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if from < 0 || to < from {
		return stat{}, errStat
	}
	f := strings.Fields(text[to+1:])
	if len(f) < 20 {
		return stat{}, errStat
	}
	s.name, s.state = text[from+1:to], f[0][0]
	var err1, err2 error
	s.flags, err1 = strconv.ParseUint(f[6], 10, 64)
	s.ticks, err2 = strconv.ParseUint(f[19], 10, 64)
	return s, errors.Join(err1, err2)
}

var errStat = errors.New("not the format of proc_pid_stat(5)")
