package wire

// Empty is a message of type TypeList, TypeOK or TypeUpgrade. TypeUpgrade comes with one
// descriptor: the successor's executable.
type Empty struct{ T Type }

func (m *Empty) Type() Type  { return m.T }
func (m *Empty) code(*Coder) {}

// Simple is a request about one process that needs nothing but its ID.
type Simple struct {
	T  Type
	ID string
}

func (m *Simple) Type() Type    { return m.T }
func (m *Simple) code(c *Coder) { Text(c, &m.ID, maxID) }

// Hello opens a connection.
type Hello struct {
	// Events asks for events, with those first that have not been acknowledged by Forget.
	Events bool
}

func (m *Hello) Type() Type    { return TypeHello }
func (m *Hello) code(c *Coder) { Bool(c, &m.Events) }

// Welcome answers Hello.
type Welcome struct {
	Pid int
	// Started is when the keeper came to be (nanoseconds since 1970), upgrades not counted, and
	// Upgrades counts those.
	Started  int64
	Upgrades uint32
}

func (m *Welcome) Type() Type { return TypeWelcome }
func (m *Welcome) code(c *Coder) {
	Int(c, &m.Pid)
	Int(c, &m.Started)
	Uint(c, &m.Upgrades)
}

// IDMap is a line of a user namespace's map.
type IDMap struct{ Container, Host, Size uint32 }

// Stdio describes standard streams.
type Stdio struct {
	Mode          StdioMode
	Stdin         bool
	Width, Height uint16
}

func (s *Stdio) Code(c *Coder) {
	Enum(c, &s.Mode, StdioTTY)
	Bool(c, &s.Stdin)
	Uint(c, &s.Width)
	Uint(c, &s.Height)
}

// Log describes a log.
type Log struct {
	Driver   LogDriver
	Path     string
	MaxBytes int64
	MaxFiles uint32
	// Attributes go with LogJSONAttributes only.
	Attributes string
}

func (l *Log) Code(c *Coder) {
	Enum(c, &l.Driver, LogJSONAttributes)
	if l.Driver == LogJSONAttributes {
		Text(c, &l.Attributes, MaxAttributes)
	}
	Text(c, &l.Path, maxPath)
	Int(c, &l.MaxBytes)
	Uint(c, &l.MaxFiles)
}

// Attachment describes a subscription. Its descriptors come with the message: one for standard
// output if Stdout, one for standard error if Stderr and not Same.
type Attachment struct {
	Stdout, Stderr, Same, Framed, Pending bool
	Overflow                              Overflow
}

func (a *Attachment) Code(c *Coder) {
	for _, b := range []*bool{&a.Stdout, &a.Stderr, &a.Same, &a.Framed, &a.Pending} {
		Bool(c, b)
	}
	Enum(c, &a.Overflow, OverflowBlock)
}

// FDs is the number of descriptors that it comes with.
func (a *Attachment) FDs() int {
	n := 0
	if a.Stdout {
		n++
	}
	if a.Stderr && !a.Same {
		n++
	}
	return n
}

// Start asks for a process. Descriptors: the image in a sealed memory file, the inputs, the cgroup
// if Cgroup, those of Keep, those of Attach.
type Start struct {
	ID             string
	Owner          string
	Kind           Kind
	Note           string
	Inputs         []string
	Cgroup         bool
	UIDMap, GIDMap []IDMap
	TimeOffsets    string
	Stdio          Stdio
	Log            Log
	Attach         []Attachment
	Hold           bool
	// EndCommand is what is executed when the process has ended; empty for nothing. A keeper that
	// is older refuses it.
	EndCommand []string
	// Keep are the names of descriptors that are held until the process is forgotten. A keeper that
	// is older refuses them.
	Keep []string
}

func (m *Start) Type() Type { return TypeStart }
func (m *Start) code(c *Coder) {
	Text(c, &m.ID, maxID)
	Text(c, &m.Owner, maxOwner)
	Enum(c, &m.Kind, KindHold)
	Text(c, &m.Note, maxNote)
	List(c, &m.Inputs, MaxFDs, func(s *string) { Text(c, s, maxPath) })
	Bool(c, &m.Cgroup)
	for _, l := range []*[]IDMap{&m.UIDMap, &m.GIDMap} {
		List(c, l, 340, func(l *IDMap) { // the kernel takes 340 lines
			Uint(c, &l.Container)
			Uint(c, &l.Host)
			Uint(c, &l.Size)
		})
	}
	Text(c, &m.TimeOffsets, 256)
	m.Stdio.Code(c)
	m.Log.Code(c)
	List(c, &m.Attach, 16, func(a *Attachment) { a.Code(c) })
	rare(c, &m.Hold, &m.EndCommand, &m.Keep, nil)
}

// rare codes a truth value, two lists that are mostly empty and, if bare is not nil, a truth value
// that is mostly false. It takes one byte if they are.
func rare(c *Coder, flag *bool, command, kept *[]string, bare *bool) {
	hasCommand, hasKept := len(*command) > 0, len(*kept) > 0
	if bare == nil {
		Flags(c, flag, &hasCommand, &hasKept)
	} else {
		Flags(c, flag, &hasCommand, &hasKept, bare)
	}
	if hasCommand {
		words(c, command)
	}
	if hasKept {
		words(c, kept)
	}
}

// words codes a list that is not empty. The format allows more than the keeper, which says what is
// wrong with it.
func words(c *Coder, list *[]string) {
	List(c, list, maxWords, func(s *string) { Text(c, s, maxText) })
	if c.decoding && len(*list) == 0 {
		c.Fail("an empty list is announced")
	}
}

// Attach asks for a subscription.
type Attach struct {
	ID         string
	Attachment Attachment
}

func (m *Attach) Type() Type { return TypeAttach }
func (m *Attach) code(c *Coder) {
	Text(c, &m.ID, maxID)
	m.Attachment.Code(c)
}

// Attached answers Attach.
type Attached struct {
	Subscription, LogRotations uint64
	LogOffset                  int64
}

func (m *Attached) Type() Type { return TypeAttached }
func (m *Attached) code(c *Coder) {
	Uint(c, &m.Subscription)
	Uint(c, &m.LogRotations)
	Int(c, &m.LogOffset)
}

// Detach ends a subscription.
type Detach struct {
	ID           string
	Subscription uint64
}

func (m *Detach) Type() Type { return TypeDetach }
func (m *Detach) code(c *Coder) {
	Text(c, &m.ID, maxID)
	Uint(c, &m.Subscription)
}

// Signal sends a signal.
type Signal struct {
	ID     string
	Signal uint32
}

func (m *Signal) Type() Type { return TypeSignal }
func (m *Signal) code(c *Coder) {
	Text(c, &m.ID, maxID)
	Uint(c, &m.Signal)
}

// Resize sets a terminal's size.
type Resize struct {
	ID            string
	Width, Height uint16
}

func (m *Resize) Type() Type { return TypeResize }
func (m *Resize) code(c *Coder) {
	Text(c, &m.ID, maxID)
	Uint(c, &m.Width)
	Uint(c, &m.Height)
}

// Shutdown ends the keeper.
type Shutdown struct{ Force bool }

func (m *Shutdown) Type() Type    { return TypeShutdown }
func (m *Shutdown) code(c *Coder) { Bool(c, &m.Force) }

// Exit is how a process ended.
type Exit struct {
	Status  uint32
	Time    int64 // nanoseconds since 1970
	Unknown bool
}

func (e *Exit) Code(c *Coder) {
	Uint(c, &e.Status)
	Int(c, &e.Time)
	Bool(c, &e.Unknown)
}

// Descriptors says which descriptors come with a message, in the order of its fields.
type Descriptors struct{ PidFD, Stdin, Stdout, Stderr, TTY bool }

func (d *Descriptors) Code(c *Coder) {
	for _, b := range d.Flags() {
		Bool(c, b)
	}
}

// Flags lists the fields in order.
func (d *Descriptors) Flags() []*bool {
	return []*bool{&d.PidFD, &d.Stdin, &d.Stdout, &d.Stderr, &d.TTY}
}

// Process describes a process.
type Process struct {
	ID            string
	Owner         string
	Kind          Kind
	Note          string
	State         State
	Stage         uint32
	Pid           int
	Started       int64
	Stdio         Stdio
	Log           Log
	Exit          Exit // in state Exited
	StreamsClosed bool
	Adopted       bool
	FDs           Descriptors
	// EndCommand is Start.EndCommand.
	EndCommand []string
	// Kept is Start.Keep. The descriptors come after those of FDs.
	Kept []string
	// Bare says that the keeper has nothing of the process but its end.
	Bare bool
	// More says that this is an element of a list which goes on.
	More bool
}

func (m *Process) Type() Type    { return TypeProcess }
func (m *Process) code(c *Coder) { m.Code(c) }

// Code codes the fields.
func (m *Process) Code(c *Coder) {
	Text(c, &m.ID, maxID)
	Text(c, &m.Owner, maxOwner)
	Enum(c, &m.Kind, KindHold)
	Text(c, &m.Note, maxNote)
	Enum(c, &m.State, Exited)
	Uint(c, &m.Stage)
	Int(c, &m.Pid)
	Int(c, &m.Started)
	m.Stdio.Code(c)
	m.Log.Code(c)
	m.Exit.Code(c)
	Bool(c, &m.StreamsClosed)
	Bool(c, &m.Adopted)
	m.FDs.Code(c)
	rare(c, &m.More, &m.EndCommand, &m.Kept, &m.Bare)
}

// Adopt hands a running process to a keeper that has not started it. Descriptors: as Process.FDs
// and Process.Kept say, then those of Attach.
type Adopt struct {
	Process Process
	Attach  []Attachment
}

func (m *Adopt) Type() Type { return TypeAdopt }
func (m *Adopt) code(c *Coder) {
	m.Process.Code(c)
	List(c, &m.Attach, 16, func(a *Attachment) { a.Code(c) })
}

// Class is the class of an error.
type Class uint8

const (
	ClassUnknown Class = iota
	ClassInvalidArgument
	ClassNotFound
	ClassAlreadyExists
	ClassFailedPrecondition
	ClassUnavailable
	ClassResourceExhausted
	ClassPermissionDenied
	// ClassDied: the process was killed while it was being set up.
	ClassDied
	// ClassFailure: an operation of the program failed, Index and Errno say which and why.
	ClassFailure
	classLast = ClassFailure
)

// Error says why a request failed.
type Error struct {
	Class Class
	Text  string
	Index uint32
	Errno uint32
}

func (m *Error) Type() Type    { return TypeError }
func (m *Error) code(c *Coder) { m.Code(c) }

// Code codes the fields.
func (m *Error) Code(c *Coder) {
	Enum(c, &m.Class, classLast)
	Text(c, &m.Text, maxText)
	Uint(c, &m.Index)
	Uint(c, &m.Errno)
}

// ExitedEvent says that a process has ended.
type ExitedEvent struct {
	ID    string
	Owner string
	Kind  Kind
	Exit  Exit
}

func (m *ExitedEvent) Type() Type { return TypeExited }
func (m *ExitedEvent) code(c *Coder) {
	Text(c, &m.ID, maxID)
	Text(c, &m.Owner, maxOwner)
	Enum(c, &m.Kind, KindHold)
	m.Exit.Code(c)
}

// StreamsClosedEvent says that a process's output has ended.
type StreamsClosedEvent struct{ ID string }

func (m *StreamsClosedEvent) Type() Type    { return TypeStreamsClosed }
func (m *StreamsClosedEvent) code(c *Coder) { Text(c, &m.ID, maxID) }

// DetachedEvent says that a subscription has ended early.
type DetachedEvent struct {
	ID                 string
	Subscription, Lost uint64
}

func (m *DetachedEvent) Type() Type { return TypeDetached }
func (m *DetachedEvent) code(c *Coder) {
	Text(c, &m.ID, maxID)
	Uint(c, &m.Subscription)
	Uint(c, &m.Lost)
}

// LogEvent says that a log cannot be written, or can again.
type LogEvent struct {
	ID     string
	Lost   uint64
	Reason string
}

func (m *LogEvent) Type() Type { return TypeLog }
func (m *LogEvent) code(c *Coder) {
	Text(c, &m.ID, maxID)
	Uint(c, &m.Lost)
	Text(c, &m.Reason, maxText)
}
