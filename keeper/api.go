package keeper

import (
	"errors"
	"os"
	"syscall"
	"time"

	"strake/container/spawn"
	"strake/keeper/wire"
)

// ErrDied means that a process was killed before it could execute: from outside, or by a memory
// limit that is too small for its set-up.
var ErrDied = errors.New("the process was killed while it was being set up")

// ErrClosed means that the connection to the keeper has ended, with or without the keeper.
var ErrClosed = errors.New("the connection to the keeper is closed")

// Kind says what a process is to its container.
type Kind = wire.Kind

// Kinds of processes. The keeper treats them alike; they come back in List and events.
const (
	KindInit = wire.KindInit
	KindExec = wire.KindExec
	// KindHold holds namespaces for a sandbox and executes nothing.
	KindHold = wire.KindHold
)

// StdioMode says what a process has as standard streams.
type StdioMode = wire.StdioMode

const (
	// StdioNull gives it /dev/null for those of "stdin", "stdout" and "stderr" that its program
	// asks for.
	StdioNull = wire.StdioNull
	// StdioPipes gives it pipes.
	StdioPipes = wire.StdioPipes
	// StdioTTY gives it a terminal. A program that asks for the input "tty" gets one of the host's
	// devpts; any other program opens one itself and sends its master (program.StageTTY).
	StdioTTY = wire.StdioTTY
)

// Stdio describes a process's standard streams.
type Stdio struct {
	Mode StdioMode
	// Stdin opens standard input (StdioPipes); otherwise it is /dev/null. A terminal always has
	// input.
	Stdin bool
	// Width and Height are the terminal's first size in characters; 0 leaves what it has. A program
	// that opens its terminal itself sets the size too, or the process may see it a moment late.
	Width, Height uint16
}

// LogDriver says where output is kept beside what is sent to subscribers.
type LogDriver = wire.LogDriver

const (
	// LogNone keeps nothing.
	LogNone = wire.LogNone
	// LogJSONFile writes Docker's json-file format (logwriter.JSON).
	LogJSONFile = wire.LogJSONFile
	// LogCRI writes the format of Kubernetes' container runtime interface (logwriter.CRI).
	LogCRI = wire.LogCRI
)

// LogConfig describes a process's log.
type LogConfig struct {
	Driver LogDriver
	// Path is absolute. It is created with mode 0640 if missing and appended to otherwise; its
	// directory must exist.
	Path string
	// MaxBytes is the size at which a file is renamed to Path.1 (that to Path.2, and so on); 0 for
	// no limit.
	MaxBytes int64
	// MaxFiles counts Path and its renamed predecessors; 0 and 1 mean that a full file is emptied.
	MaxFiles int
	// Attributes, for LogJSONFile, is a JSON object that is written beside each line, as "attrs"; ""
	// writes none. It has at most 8192 bytes.
	Attributes string
}

// Overflow says what happens to a subscriber that does not keep up, when 256 KiB wait for it.
type Overflow = wire.Overflow

const (
	// OverflowSpill writes what waits to a deleted file in the keeper's state directory. At 64 MiB
	// the subscriber is disconnected: its descriptor is closed and an event DetachedEvent says how
	// many bytes it had not been given.
	OverflowSpill = wire.OverflowSpill
	// OverflowBlock stops reading from the process until the subscriber has caught up or gone away,
	// as a pipe in a shell does: nothing is lost and nothing is stored, but the process can block,
	// and its log and other subscribers with it.
	OverflowBlock = wire.OverflowBlock
)

// Attachment is a subscription to a process's output. The descriptors are sockets or pipes, stay
// the caller's, and may be closed once the call has returned: the keeper has its own. It closes
// those when the stream has ended and everything is delivered.
type Attachment struct {
	// Stdout and Stderr may be the same file, in which case both streams go there in the order in
	// which they were read. nil skips a stream. Output of a terminal is Stdout.
	Stdout, Stderr *os.File
	// Framed puts Docker's header of eight bytes in front of every piece: stream 1 or 2, three
	// zeros, length (big-endian uint32).
	Framed   bool
	Overflow Overflow
	// Pending first delivers the beginning of a line that was read before and is not in the log
	// yet, so that the log up to Attached.LogOffset followed by this subscription is everything
	// exactly once.
	Pending bool
}

// Attached describes a subscription that has been made.
type Attached struct {
	// Subscription names it for Detach and in events.
	Subscription uint64
	// LogRotations counts the files of the log that have been filled since the process was started
	// or adopted, and LogOffset is the size in bytes of the current one at the moment of the
	// subscription.
	LogRotations uint64
	LogOffset    int64
}

// StartRequest describes a process to start.
type StartRequest struct {
	// ID is unique among all processes of a keeper until it is forgotten: 1 to 128 letters, digits,
	// '_', '.', '-'.
	ID   string
	Kind Kind
	// Owner names the front end that the process belongs to ("docker", "cri"): up to 32 lower-case
	// letters, digits and '-'. It comes back in Process and events, so that each front end recovers
	// its own processes only.
	Owner string
	// Note is up to 1,024 bytes that come back in Process.
	Note string
	// Image is the encoded program (program.Program.Encode).
	Image []byte
	// Inputs are descriptors for names that the program asks for, at most 240. They stay the
	// caller's. The keeper supplies "stdin", "stdout", "stderr" and "tty" as Stdio says; an entry
	// here goes before that.
	Inputs map[string]int
	// CgroupFD is a cgroup2 directory to be born in (CLONE_INTO_CGROUP); 0 or less for none.
	CgroupFD int
	// UIDMap, GIDMap and TimeOffsets are as in spawn.Request.
	UIDMap, GIDMap []spawn.IDMap
	TimeOffsets    string
	Stdio          Stdio
	Log            LogConfig
	// Attach is subscribed before the process exists, so nothing is missed.
	Attach []Attachment
	// Hold makes Start return at every stage at which the program waits (program.StageHooks), with
	// Process.State Held; Continue goes on. Without it the keeper continues by itself.
	Hold bool
	// EndCommand is executed by the keeper, as its child, when the process has ended; empty for
	// nothing. It is for front ends without a process that lives as long as theirs, and their own
	// words, not a user's. It has at most 16 words and, with a NUL behind each, 4,096 bytes; the
	// first is the absolute path of the executable.
	//
	// It begins when the exit is in the state directory and the output has ended, or one second
	// after the end of the process. It has /dev/null as standard streams, PATH as its environment,
	// the root as its directory, and a session of its own; nothing of it but a failure is recorded,
	// in the keeper's log. At most four run at a time; others wait, in the order in which their
	// processes have ended.
	//
	// It is executed at least once, also if the keeper is killed or replaced meanwhile: again if
	// the keeper was killed before it had recorded the command's end, but not beside a first one
	// that the journal knows to run. A failed one is not repeated. Forget and Abort drop one that
	// has not begun. A process whose start fails has none. A keeper that is shut down leaves to the
	// next one what has not ended. If keeper and guard are both killed while the process runs, the
	// next keeper finds the process by its number, or takes it for ended with an unknown status.
	EndCommand []string
	// Keep are up to 64 descriptors that are held until the process is forgotten, also after its
	// end, by the keeper, the next one if it is killed, and its guard. Each Process has duplicates
	// of them (Process.Kept). Nothing is read from them or written to them. They are not those of
	// processes (pidfd_open(2)), stay the caller's, and may be closed once the call has returned.
	//
	// It is for the masters of a container's further terminals: while one is open, the terminal is
	// not hung up. A keeper does not end by itself while it holds one.
	Keep []Kept
}

// Kept is a descriptor that the keeper holds for a process, under a name: 1 to 32 lower-case
// letters, digits, '.' and '-'.
type Kept struct {
	Name string
	File *os.File
}

// State is a process's place in its life.
type State = wire.State

const (
	// Starting: its program is running.
	Starting = wire.Starting
	// Held: its program waits at Process.Stage for Continue.
	Held = wire.Held
	// Running: it has executed.
	Running = wire.Running
	// Exited: it has ended and waits to be forgotten.
	Exited = wire.Exited
)

// Exit is how a process ended.
type Exit struct {
	// Status is as wait(2) returns it. It means nothing if Unknown.
	Status syscall.WaitStatus
	Time   time.Time
	// Unknown says that the keeper which was the parent died, and the status could not be learned
	// in any other way.
	Unknown bool
}

// Code is the exit code as a shell gives it: the status, 128 and the signal, or 137 if unknown.
func (e *Exit) Code() int {
	switch {
	case e.Unknown:
		return 137
	case e.Status.Signaled():
		return 128 + int(e.Status.Signal())
	}
	return e.Status.ExitStatus()
}

// Event is something that happened to a process: *ExitEvent, *StreamsClosedEvent, *DetachedEvent or
// *LogEvent.
type Event interface{ event() }

// ExitEvent says that a process has ended. What it had written by then has been read, unless an
// OverflowBlock subscriber held it back.
type ExitEvent struct {
	ID string
	// Owner is StartRequest.Owner.
	Owner string
	Kind  Kind
	Exit  Exit
}

// StreamsClosedEvent says that all output of a process has ended: no other process has its pipes or
// terminal any more. It can come before or, if there are such processes, long after the ExitEvent.
// Forget ends the streams at once.
type StreamsClosedEvent struct{ ID string }

// DetachedEvent says that a subscription has ended before the stream: its reader went away (Lost
// 0), or was too slow.
type DetachedEvent struct {
	ID           string
	Subscription uint64
	// Lost counts bytes that were to be delivered and were not, when the subscriber was
	// disconnected for being slow.
	Lost uint64
}

// LogEvent says that lines could not be written to a log since the last such event, and why; or,
// with an empty Reason, that writing works again. The process was never stopped for it.
type LogEvent struct {
	ID     string
	Lost   uint64 // lines
	Reason string
}

func (*ExitEvent) event()          {}
func (*StreamsClosedEvent) event() {}
func (*DetachedEvent) event()      {}
func (*LogEvent) event()           {}
