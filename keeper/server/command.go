package server

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/container/spawn"
	"strake/keeper/pidfd"
	"strake/keeper/wire"
)

const (
	// commandLimit is how many end commands run at a time.
	commandLimit = 4
	// commandPatience is how long an end command waits for the end of the process's output, and
	// for a journal that cannot be written.
	commandPatience = time.Second
	// commandPause is the time between two attempts to clone.
	commandPause = time.Second
	// commandName is what an end command is called until it has executed.
	commandName = "strake-end"
	// commandPath is the value of PATH in its environment, which has no other variable.
	commandPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// validCommand checks an end command that is not empty.
func validCommand(argv []string) error {
	if len(argv) > wire.MaxCommandWords {
		return invalid(
			"endCommand: %d words, at most %d are allowed", len(argv), wire.MaxCommandWords,
		)
	}
	size := 0
	for i, w := range argv {
		if strings.IndexByte(w, 0) >= 0 {
			return invalid("endCommand[%d] %.140q: contains a NUL", i, w)
		}
		size += len(w) + 1
	}
	if size > wire.MaxCommandBytes {
		return invalid("endCommand: %d bytes, at most %d are allowed", size, wire.MaxCommandBytes)
	}
	if !strings.HasPrefix(argv[0], "/") {
		return invalid("endCommand[0] %.140q: want an absolute path", argv[0])
	}
	return nil
}

// commands executes the end commands of processes (wire.Start.EndCommand), commandLimit at a time,
// in the order in which the processes have ended. The journal says which of them run and which have
// ended. What it does not know to have ended is executed again by the next keeper, but not beside
// a first one that still runs.
//
// Neither a forced shutdown nor an upgrade waits for them: the next keeper goes on. It is guarded
// by server.mu.
type commands struct {
	s       *server
	queue   []*command
	running []*command
	retryAt time.Time // zero, or when cloning is tried again
}

// command is one of them.
type command struct {
	id   string   // of the process
	path string   // what is executed
	p    *process // nil: it was forgotten while the command ran
	// patience is when it is executed although there may be output still.
	patience time.Time

	identity              // of the process that executes it
	pidfd    int          // -1 in the queue
	child    *spawn.Child // nil for one that an earlier keeper has started
}

// add queues the command of a process that has ended, if it has one that is not known to have run.
func (q *commands) add(p *process) {
	if len(p.endCommand) == 0 || p.ran {
		return
	}
	q.queue = append(q.queue, &command{
		id: p.id, path: p.endCommand[0], p: p, pidfd: -1,
		patience: time.Now().Add(commandPatience),
	})
}

// forget drops the command of a process that is forgotten. One that runs goes on.
func (q *commands) forget(p *process) {
	q.queue = slices.DeleteFunc(q.queue, func(c *command) bool { return c.p == p })
	for _, c := range q.running {
		if c.p == p {
			c.p = nil
		}
	}
}

// pending says that there are commands that have not ended.
func (q *commands) pending() bool { return len(q.queue)+len(q.running) > 0 }

// waits says that there is a command for which no event tells when it is to be executed.
func (q *commands) waits() bool { return len(q.queue) > 0 && len(q.running) < commandLimit }

// advance executes what is due.
func (q *commands) advance(now time.Time) {
	s := q.s
	if len(q.queue) == 0 || s.upgrade != nil || s.stopping || s.stop != nil ||
		now.Before(q.retryAt) {
		return
	}
	for i := 0; i < len(q.queue) && len(q.running) < commandLimit; {
		c := q.queue[i]
		if !q.due(c, now) {
			i++
			continue
		}
		if err := q.start(c); err != nil {
			s.cfg.Logf("process %q: start its end command: %v", c.id, err)
			q.retryAt = now.Add(commandPause)
			return
		}
		q.queue = slices.Delete(q.queue, i, i+1)
	}
}

// due says that the output of the command's process has ended and its exit is in the journal, or
// that this has taken too long.
func (q *commands) due(c *command, now time.Time) bool {
	if !now.Before(c.patience) {
		return true
	}
	j := q.s.custody.journal
	return c.p.streamsClosed() && (!j.stale || j.rewrite() == nil)
}

// commandProgram is what executes a command: in a session of its own, with "null" as standard
// streams, and with no other descriptor, handled or blocked signal of the keeper.
func commandProgram(argv []string) (*program.Program, error) {
	num := func(n int) program.Arg { return program.Num(n) }
	var b program.Builder
	b.IsolateAs(commandName)
	b.Field("endCommand")
	b.Call(unix.SYS_SETSID)
	for i := range 3 {
		b.Call(unix.SYS_DUP3, b.Input("null"), num(i), num(0))
	}
	const signals, action = 64, 32 // number of signals, size of struct sigaction in the kernel
	standard := b.Room(action)
	for n := 1; n <= signals; n++ {
		if n != int(unix.SIGKILL) && n != int(unix.SIGSTOP) {
			b.Call(unix.SYS_RT_SIGACTION, num(n), standard.Ptr(), num(0), num(8))
		}
	}
	b.Call(unix.SYS_RT_SIGPROCMASK, num(unix.SIG_SETMASK), b.Room(8).Ptr(), num(0), num(8))
	b.Call(
		unix.SYS_EXECVE, b.Str(argv[0]).Ptr(), b.Strs(argv).Ptr(),
		b.Strs([]string{"PATH=" + commandPath}).Ptr(),
	)
	return b.Build()
}

// start clones the process that executes a command. Without namespaces that takes no longer than
// waking a thread would.
func (q *commands) start(c *command) error {
	s := q.s
	p, err := commandProgram(c.p.endCommand)
	if err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	defer unix.Close(null)
	if s.cloning == 0 {
		if err := s.cfg.Protection.lift(); err != nil {
			return fmt.Errorf("oom_score_adj of the child: %w", err)
		}
		defer func() {
			if err := s.cfg.Protection.restore(); err != nil {
				s.cfg.Logf("oom_score_adj: %v", err)
			}
		}()
	}
	child, err := s.machine.Start(&spawn.Request{
		Image: p.Image(), CgroupFD: -1, Input: func(string) (int, error) { return null, nil },
	})
	if err != nil {
		return err
	}
	c.child, c.pidfd, c.identity = child, child.PidFD, identity{pid: child.Pid}
	if err := q.watch(c); err != nil {
		child.Kill()
		c.child, c.pidfd = nil, -1
		return err
	}
	if st, err := readStat(c.pid); err == nil {
		c.ticks = st.ticks
	}
	q.running = append(q.running, c)
	if err := s.custody.journal.commandRuns(c.id, c.identity); err != nil {
		s.cfg.Logf("process %q: %v", c.id, err)
	}
	return nil
}

func (q *commands) watch(c *command) error {
	return q.s.watch(c.pidfd, unix.EPOLLIN, func(uint32) { q.ended(c) })
}

// ended is called when a command has ended.
func (q *commands) ended(c *command) {
	s := q.s
	status, answer, err := pidfd.Exit(c.pidfd, c.pid)
	if err == nil && answer == pidfd.Running {
		return
	}
	if err == nil {
		err = q.failure(c, status, answer)
	}
	if err != nil {
		s.cfg.Logf("process %q: its end command %q: %v", c.id, c.path, err)
	}
	s.ignore(c.pidfd)
	unix.Close(c.pidfd)
	if c.child != nil {
		c.child.Release()
	}
	q.running = slices.DeleteFunc(q.running, func(r *command) bool { return r == c })
	if c.p == nil {
		return
	}
	c.p.ran = true
	if err := s.custody.journal.commandRan(c.id); err != nil {
		s.cfg.Logf("process %q: %v", c.id, err)
	}
}

// failure says how a command that has ended has failed, if that is known.
func (q *commands) failure(c *command, status syscall.WaitStatus, answer pidfd.Answer) error {
	if c.child != nil && readable(c.child.SyncFD()) {
		_, err := c.child.Next()
		if f := (*spawn.Failure)(nil); errors.As(err, &f) {
			return fmt.Errorf("execve: %w", f.Errno)
		}
	}
	switch {
	case answer != pidfd.Known:
		return nil // the child of a keeper that was killed
	case status.Signaled():
		return fmt.Errorf("signal %d (%v)", int(status.Signal()), status.Signal())
	case status.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", status.ExitStatus())
	}
	return nil
}

// recover takes over a command that an earlier keeper has started, if it still runs.
func (q *commands) recover(p *process, id identity) {
	if len(p.endCommand) == 0 {
		return
	}
	fd, state := openProcess(id)
	if fd < 0 {
		return
	}
	if state == 'Z' { // its status is not the keeper's to learn
		unix.Close(fd)
		return
	}
	q.running = append(q.running, &command{
		id: p.id, path: p.endCommand[0], p: p, identity: id, pidfd: fd,
	})
}

// openProcess returns a pidfd and the process's state (proc_pid_stat(5)); -1 if it has been reaped.
func openProcess(id identity) (fd int, state byte) {
	fd, err := unix.PidfdOpen(id.pid, 0)
	if err != nil {
		return -1, 0
	}
	// That the numbers are those of the process of the descriptor is sure if that is not reaped
	// afterwards.
	st, err := readStat(id.pid)
	if err != nil || st.ticks != id.ticks || unix.PidfdSendSignal(fd, 0, nil, 0) != nil {
		unix.Close(fd)
		return -1, 0
	}
	return fd, st.state
}

// resume goes on with the commands of a keeper that was killed or replaced: with those that run,
// and with those of processes that have ended and whose command is not known to have.
func (q *commands) resume() error {
	busy := make(map[*process]bool, len(q.running))
	for _, c := range q.running {
		busy[c.p] = true
		if err := q.watch(c); err != nil {
			return err
		}
	}
	var list []*process
	for _, p := range q.s.procs {
		if p.state == wire.Exited && len(p.endCommand) > 0 && !busy[p] {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *process) int {
		return cmp.Compare(a.exit.Time, b.exit.Time)
	})
	for _, p := range list {
		q.add(p)
	}
	return nil
}
