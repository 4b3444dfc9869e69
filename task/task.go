// Package task is a running process tree behind one small interface, whatever isolates it: what the
// front ends (the Docker engine, CRI, LXC, lmctfy, build) share, without the assumptions of any of
// them.
//
// An Isolation starts tasks from a final OCI configuration and adopts those that an earlier process
// of the same front end started. Every task has an ID, which is unique among all tasks of an
// Isolation, and an owner, the front end that it belongs to. A front end lists, adopts and ends
// tasks of its own owner only.
//
// A task's group, root file system and sandbox are inputs: the front end makes them before Start
// and removes them after the end. What the task itself occupies (processes, streams, the log file
// descriptor, the exit status) is given back by Delete.
//
// Implementations: task/host (processes of this host, by container/plan and the keeper). The suite
// that every implementation passes is task/tasktest.
//
// Not for: images, networks, restart policies, names.
//
// What is promised here is what the suite task/tasktest asks of task/host and of a fake.
package task

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/plan"
)

// Isolation runs tasks. Its methods may be called concurrently. Errors are of the classes of
// github.com/containerd/errdefs, or *StartError.
type Isolation interface {
	// Start returns when the task's process executes (or, without one, holds its namespaces). On
	// an error nothing of the task is left. An ID that is in use is errdefs.ErrAlreadyExists.
	Start(ctx context.Context, spec *Spec) (Task, error)
	// Adopt takes over a task that Found lists, with the record that Task.Record gave to the one
	// who started it. exited is as Spec.Exited. An unknown ID is errdefs.ErrNotFound.
	Adopt(ctx context.Context, rec Record, exited func(Exit)) (Task, error)
	// Found lists the processes of an owner that an earlier process of the front end started and
	// no Isolation has adopted since, execs included.
	Found(owner string) []Found
	// Abort kills a process that Found lists, or a task, and forgets it. The caller is told nothing
	// of its end. An unknown ID is no error.
	Abort(ctx context.Context, id string) error
}

// Spec is what a task is started from. It is not changed, and not used after Start has returned,
// except for the functions.
type Spec struct {
	// ID is 1 to 128 letters, digits, '_', '.' and '-'.
	ID string
	// Owner is the front end: 1 to 32 lower-case letters, digits and '-'.
	Owner string
	// Config is the final configuration: no default is added. Without a process the task holds
	// namespaces and executes nothing. Its seccomp profile is not changed as long as the Isolation
	// is in use: what it compiles to is remembered. Without a root and a mount namespace it is a
	// group and a process on the host's file system. Namespaces with a path are joined. Its
	// createContainer hooks are executed; a configuration with hooks of another kind is refused.
	Config *specs.Spec
	// Overlay, if not nil, is the root file system in place of Config.Root.Path.
	Overlay *plan.Overlay
	// Group is the control group, which exists; nil leaves the process in the group of the
	// Isolation's own keeper.
	Group Group
	// Init puts a PID 1 in front of the process that reaps orphans and forwards signals.
	Init bool
	// Stdin opens standard input. A terminal (Config.Process.Terminal) always has input.
	Stdin bool
	// Width and Height are the terminal's first size in characters; 0 leaves the kernel's.
	Width, Height uint16
	Log           Log
	// Outputs are subscribed before the process exists, so nothing is missed.
	Outputs []Output
	// Exited, if not nil, is called once, in a goroutine of its own, when the process has ended.
	Exited func(Exit)
	// EndCommand, if not empty, is executed when the process has ended and its output has been
	// written, or one second after the end: at most 16 words with 4,096 bytes together, the first
	// of them an absolute path. It runs on the host, outside of the task, without input and output,
	// with PATH as its environment. It is executed at least once, so it has to be safe to repeat;
	// Delete and Abort drop one that has not begun.
	//
	// It is for front ends without a process that lives as long as the task, such as LXC's, to give
	// back what the task occupied. The Docker engine, which is told of the end by Exited, does not
	// use it. The words are the front end's, never a user's.
	EndCommand []string
	// Keep are up to 64 files that are held open until Delete or Abort, also after the end of the
	// task and of the front end's process, and that Task.Kept gives duplicates of. They stay the
	// caller's and may be closed when Start has returned. They are not pidfds.
	//
	// It is for the masters of a container's further terminals: a terminal is hung up when its last
	// master is closed.
	Keep []Kept
}

// Kept is a file that is held open for a task.
type Kept struct {
	// Name is 1 to 32 lower-case letters, digits, '.' and '-'; unique in the task.
	Name string
	File *os.File
}

// Exec is what one more process of a task is started from.
type Exec struct {
	// ID is unique among tasks and execs.
	ID string
	// Process is final. Config supplies what is not the process's own: the seccomp profile.
	Process       *specs.Process
	Config        *specs.Spec
	Stdin         bool
	Width, Height uint16
	Outputs       []Output
	// Exited is as Spec.Exited.
	Exited func(Exit)
}

// LogFormat says how output is kept beside what goes to subscribers.
type LogFormat string

const (
	// NoLog keeps nothing.
	NoLog LogFormat = ""
	// JSONFile is Docker's json-file format.
	JSONFile LogFormat = "json-file"
	// CRI is the format of the Kubernetes Container Runtime Interface.
	CRI LogFormat = "cri"
)

// Log is where a task's output is kept.
type Log struct {
	Format LogFormat
	// Path is absolute; its directory exists.
	Path string
	// MaxBytes is the size at which the file is rotated; 0: never. MaxFiles counts the rotated
	// ones and the current one.
	MaxBytes int64
	MaxFiles int
	// Attributes, in the format JSONFile, is a JSON object that is written beside each line; ""
	// writes none. It has at most 8192 bytes.
	Attributes string
}

// Output is a subscription to a process's output. The files are pipes or stream sockets, stay the
// caller's, and may be closed when the call that got them has returned.
type Output struct {
	// Stdout and Stderr may be the same file. nil skips a stream. A terminal's output is Stdout.
	Stdout, Stderr *os.File
	// Framed puts Docker's header of eight bytes in front of every piece.
	Framed bool
	// Pending delivers the beginning of an unfinished line first, which is not in the log yet.
	Pending bool
	// Block stops reading from the process while the subscriber does not keep up. Otherwise up to
	// 64 MiB wait for it on disk, and then it is disconnected.
	Block bool
}

// Subscription describes an Output that has been attached.
type Subscription struct {
	ID uint64
	// LogOffset is the size in bytes of the current log file at the moment of the subscription.
	LogOffset int64
}

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code as a shell gives it: the status, or 128 and the signal; 137 if unknown.
	Code int
	Time time.Time
	// Unknown says that the status could not be learned.
	Unknown bool
}

// Process is a process that has been started. Its methods may be called concurrently, also after
// its end.
type Process interface {
	ID() string
	// Pid is the process in the host's PID namespace, or that of the machine monitor.
	Pid() int
	Started() time.Time
	// Signal sends a signal. After the end it is errdefs.ErrFailedPrecondition, and never reaches
	// another process.
	Signal(sig syscall.Signal) error
	// Done is closed when the process has ended; Exit is valid from then on.
	Done() <-chan struct{}
	Exit() Exit
	// Drained is closed when all output has been written to the log and the subscribers.
	Drained() <-chan struct{}
	Attach(ctx context.Context, out Output) (Subscription, error)
	Detach(ctx context.Context, subscription uint64) error
	// Input opens the standard input for writing. The caller closes it, which does not end the
	// input: CloseInput does that.
	Input() (*os.File, error)
	CloseInput(ctx context.Context) error
	// Resize sets the size of the terminal in characters.
	Resize(ctx context.Context, width, height uint16) error
	// Delete acknowledges the exit: the status is dropped and the ID is free. Before the end it is
	// errdefs.ErrFailedPrecondition.
	Delete(ctx context.Context) error
}

// Task is a process tree: its first process and what is done with all of it.
type Task interface {
	Process
	Owner() string
	// Record is what Adopt needs.
	Record() Record
	// Exec starts one more process in the task's namespaces and group.
	Exec(ctx context.Context, x *Exec) (Process, error)
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Update(ctx context.Context, res *specs.LinuxResources) error
	Stats(ctx context.Context) (Stats, error)
	// Pids lists the processes of the task's group.
	Pids() ([]int, error)
	// OOMKills counts the processes that the kernel killed for want of memory.
	OOMKills() (uint64, error)
	// ReadFile reads a regular file as the task sees it, at most limit bytes. A file that is
	// missing, or is no regular file, is empty.
	ReadFile(name string, limit int) ([]byte, error)
	// Namespace opens a namespace of the task, for another to join. Not for tasks that are
	// machines: errdefs.ErrNotImplemented.
	Namespace(t specs.LinuxNamespaceType) (*os.File, error)
	// Kept returns a new duplicate of a file of Spec.Keep, which the caller closes. An unknown name
	// is errdefs.ErrNotFound; after Delete it is errdefs.ErrFailedPrecondition.
	Kept(name string) (*os.File, error)
	// ReopenLog opens the log again at its path, after it has been renamed.
	ReopenLog(ctx context.Context) error
}

// Record is what a front end keeps of a running task, to adopt it later.
type Record struct {
	ID    string `json:"id"`
	Owner string `json:"owner"`
	// Group is the path of the task's group.
	Group string `json:"group,omitempty"`
	// Namespaces are the CLONE_NEW* flags of those in which the task differs from the host.
	Namespaces uint64 `json:"namespaces,omitempty"`
}

// Found is a process without a task.
type Found struct {
	ID, Owner string
	// Exec says that it is an exec, of the task Of.
	Exec bool
	Of   string
	Pid  int
	// Ended says that it has ended and only its exit status is left.
	Ended bool
}

// StartError says why a task's program failed. Code is the exit status by the shell's convention:
// 126 not executable, 127 not found, 128 otherwise.
type StartError struct {
	Code int
	// Exec says that the failure is that of execve(2) of the task's own command.
	Exec bool
	// Errno is the error of the system call that failed, or 0.
	Errno syscall.Errno
	Err   error
}

func (e *StartError) Error() string { return e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// Wait waits for a process to end.
func Wait(ctx context.Context, p Process) (Exit, error) {
	select {
	case <-p.Done():
		return p.Exit(), nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}
