package keeper

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper/pidfd"
	"strake/keeper/wire"
)

// Process is a process of the keeper with duplicates of the descriptors that the keeper holds for
// it. They are to be held until the process is forgotten: as long as they are open the process gets
// no SIGPIPE if the keeper dies, and Adopt can give them to the next keeper. They are close-on-exec
// and not registered with the runtime's poller, so output wakes the keeper alone.
//
// The fields are not changed after the Process was returned. The methods may be called
// concurrently, also with Close.
type Process struct {
	ID    string
	Owner string
	Kind  Kind
	Note  string
	State State
	// Stage is where a held process waits, one of program.Stage*.
	Stage uint32
	// Pid is in the keeper's PID namespace.
	Pid     int
	Started time.Time
	Stdio   Stdio
	Log     LogConfig
	// Exit is set in state Exited.
	Exit *Exit
	// StreamsClosed says that all output has ended.
	StreamsClosed bool
	// Adopted says that the keeper is not its parent.
	Adopted bool
	// EndCommand is StartRequest.EndCommand.
	EndCommand []string
	// Bare says that the keeper knows of the process that it runs and will know its end, and has
	// none of its other descriptors: keeper and guard were killed. A client that has them hands them
	// over (Client.Adopt).
	Bare bool

	mu sync.Mutex
	// fds are the descriptors, -1 where there is none (any more). Guarded by mu.
	fds [fdCount]int
	// kept are the descriptors of StartRequest.Keep, none after Close. Guarded by mu.
	kept []keptFD
	// users counts the calls of WithPidFD that run. Guarded by mu.
	users int
	// closed says that Close was called; a pidfd in use is closed by its last user. Guarded by mu.
	closed bool
}

// keptFD is a duplicate of a kept descriptor.
type keptFD struct {
	name string
	fd   int
}

// Descriptors of a process, in the order of wire.Descriptors. Of fdStdin it is the end to write to;
// fdTTY is the master and is input and output at once.
const (
	fdPidFD = iota
	fdStdin
	fdStdout
	fdStderr
	fdTTY
	fdCount
)

func logConfig(l *wire.Log) LogConfig {
	out := LogConfig{
		Driver: l.Driver, Path: l.Path, MaxBytes: l.MaxBytes, MaxFiles: int(l.MaxFiles),
		Attributes: l.Attributes,
	}
	if l.Driver == wire.LogJSONAttributes {
		out.Driver = LogJSONFile
	}
	return out
}

// newProcess takes over the descriptors that came with b. It is false if they are not those that b
// announces; then they are the caller's still.
func newProcess(b *wire.Process, fds []int) (*Process, bool) {
	p := &Process{
		ID: b.ID, Owner: b.Owner, Kind: b.Kind, Note: b.Note, State: b.State, Stage: b.Stage,
		Pid: b.Pid, Started: time.Unix(0, b.Started), Stdio: Stdio(b.Stdio),
		Log:           logConfig(&b.Log),
		StreamsClosed: b.StreamsClosed, Adopted: b.Adopted, EndCommand: b.EndCommand,
		Bare: b.Bare,
	}
	if b.State == Exited {
		p.Exit = exitOf(&b.Exit)
	}
	for i, has := range b.FDs.Flags() {
		p.fds[i] = -1
		if *has {
			if len(fds) == 0 {
				return nil, false
			}
			p.fds[i], fds = fds[0], fds[1:]
		}
	}
	if len(fds) != len(b.Kept) {
		return nil, false
	}
	for i, name := range b.Kept {
		p.kept = append(p.kept, keptFD{name, fds[i]})
	}
	return p, true
}

// Close closes the descriptors. The process is not affected, except that its input ends when the
// keeper's copy is closed too. It may be called more than once.
func (p *Process) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for i := range p.fds {
		if i != fdPidFD || p.users == 0 {
			p.closeFD(i)
		}
	}
	for _, k := range p.kept {
		unix.Close(k.fd)
	}
	p.kept = nil
}

// closeFD closes a descriptor. Precondition: p.mu is held.
func (p *Process) closeFD(i int) {
	if p.fds[i] >= 0 {
		unix.Close(p.fds[i])
		p.fds[i] = -1
	}
}

// CloseStdin closes this copy of the input pipe. The process sees the end of its input when
// Client.CloseStdin has closed the keeper's.
func (p *Process) CloseStdin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeFD(fdStdin)
}

// WithPidFD calls f with the process's pidfd (pidfd_open(2)), which stays open, and the number of
// this process, until f returns. It returns f's error, or errdefs.ErrFailedPrecondition if the
// Process is closed.
func (p *Process) WithPidFD(f func(fd int) error) error {
	p.mu.Lock()
	fd := p.fds[fdPidFD]
	if p.closed || fd < 0 {
		p.mu.Unlock()
		return fmt.Errorf("process %q is closed: %w", p.ID, errdefs.ErrFailedPrecondition)
	}
	p.users++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.users--; p.users == 0 && p.closed {
			p.closeFD(fdPidFD)
		}
	}()
	return f(fd)
}

// Signal sends a signal (pidfd_send_signal(2)) without asking the keeper; 0 asks only whether the
// process still exists. If it has ended or is closed the error is errdefs.ErrFailedPrecondition,
// for a signal that does not exist errdefs.ErrInvalidArgument.
func (p *Process) Signal(sig syscall.Signal) error {
	return p.WithPidFD(func(fd int) error {
		err := unix.PidfdSendSignal(fd, sig, nil, 0)
		switch {
		case errors.Is(err, unix.ESRCH):
			return fmt.Errorf("process %q has ended: %w", p.ID, errdefs.ErrFailedPrecondition)
		case errors.Is(err, unix.EINVAL):
			return fmt.Errorf(
				"signal %d: there is no such signal: %w", int(sig), errdefs.ErrInvalidArgument,
			)
		case err != nil:
			return fmt.Errorf("signal %d to process %q: %w", int(sig), p.ID, err)
		}
		return nil
	})
}

// Ended asks the kernel how the process ended, without waiting and without a keeper (package
// pidfd). A child of the caller is reaped. ok is false while it runs, and also when the kernel
// cannot say, which does not happen on Linux 6.15 and later. If the Process is closed the error is
// errdefs.ErrFailedPrecondition.
func (p *Process) Ended() (e Exit, ok bool, err error) {
	err = p.WithPidFD(func(fd int) error {
		status, answer, err := pidfd.Exit(fd, p.Pid)
		e, ok = Exit{Status: status, Time: time.Now()}, err == nil && answer == pidfd.Known
		return err
	})
	return e, ok, err
}

// Input returns a new file to write the process's input to: its pipe or its terminal. Writes wait
// without a thread while the process does not read, and can be given deadlines. It is
// errdefs.ErrFailedPrecondition if there is no open input.
func (p *Process) Input() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fd := p.fds[fdStdin]
	if p.fds[fdTTY] >= 0 {
		fd = p.fds[fdTTY]
	}
	if fd < 0 {
		return nil, fmt.Errorf("process %q has no input: %w", p.ID, errdefs.ErrFailedPrecondition)
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate the input of process %q: %w", p.ID, err)
	}
	return os.NewFile(uintptr(dup), "stdin of "+p.ID), nil
}

// KeptNames lists the names of StartRequest.Keep, in no particular order.
func (p *Process) KeptNames() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for _, k := range p.kept {
		names = append(names, k.name)
	}
	return names
}

// Kept returns a new duplicate of a descriptor of StartRequest.Keep, which the caller closes. It is
// errdefs.ErrNotFound for a name that is unknown, errdefs.ErrFailedPrecondition if the Process is
// closed.
func (p *Process) Kept(name string) (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("process %q is closed: %w", p.ID, errdefs.ErrFailedPrecondition)
	}
	for _, k := range p.kept {
		if k.name != name {
			continue
		}
		dup, err := unix.FcntlInt(uintptr(k.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("duplicate %q of process %q: %w", name, p.ID, err)
		}
		return os.NewFile(uintptr(dup), name+" of "+p.ID), nil
	}
	return nil, fmt.Errorf("process %q keeps no %.40q: %w", p.ID, name, errdefs.ErrNotFound)
}

// duplicates returns new descriptors for all that are open, and says in m which those are. The
// caller closes them.
func (p *Process) duplicates(m *wire.Process) ([]int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var open []int
	for i, flag := range m.FDs.Flags() {
		if p.fds[i] >= 0 {
			*flag = true
			open = append(open, p.fds[i])
		}
	}
	for _, k := range p.kept {
		m.Kept = append(m.Kept, k.name)
		open = append(open, k.fd)
	}
	var list []int
	for _, fd := range open {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(list)
			return nil, fmt.Errorf("duplicate descriptors of process %q: %w", p.ID, err)
		}
		list = append(list, dup)
	}
	return list, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
