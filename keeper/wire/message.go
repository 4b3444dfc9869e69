package wire

import (
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Version is the version of the language. A keeper speaks one; an engine that is newer than a
// keeper speaks the keeper's or upgrades it.
const Version = 2

// Limits of messages.
const (
	// MaxMessage is the largest packet in bytes.
	MaxMessage = 64 << 10
	// MaxFDs is the largest number of descriptors in a packet; the kernel's SCM_MAX_FD is 253.
	MaxFDs = 250
	// MaxImage is the largest encoded program in bytes.
	MaxImage = 16 << 20

	// ImageSeals are what the memory file of an image must have: neither its size nor its content
	// can change.
	ImageSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

	// MaxAttributes is the largest size in bytes of what is written beside each line of a log.
	MaxAttributes = 8192

	// MaxCommandWords and MaxCommandBytes bound an end command. The bytes are those of all words
	// with a NUL behind each.
	MaxCommandWords = 16
	MaxCommandBytes = 4096

	// MaxKept is how many descriptors are kept for a process, and MaxKeptName the length of the
	// name of each in bytes.
	MaxKept     = 64
	MaxKeptName = 32

	maxID   = 128
	maxNote = 1024
	// maxOwner bounds the name of the front end that a process belongs to.
	maxOwner = 32
	maxPath  = 4096
	maxText  = 8192
	maxWords = 250
)

type (
	Kind      uint8
	StdioMode uint8
	LogDriver uint8
	Overflow  uint8
	State     uint8
	// Type says what a message is.
	Type uint8
)

const (
	KindInit Kind = iota
	KindExec
	KindHold
)

const (
	StdioNull StdioMode = iota
	StdioPipes
	StdioTTY
)

const (
	LogNone LogDriver = iota
	LogJSONFile
	LogCRI
	// LogJSONAttributes is LogJSONFile with attributes. A keeper that is older refuses it.
	LogJSONAttributes
)

const (
	OverflowSpill Overflow = iota
	OverflowBlock
)

const (
	Starting State = iota
	Held
	Running
	Exited
)

// Types of messages. Each request is answered by messages with its number: one, or for TypeList one
// TypeProcess each and a TypeOK. Events have the number 0.
const (
	TypeHello Type = iota + 1
	TypeStart
	TypeContinue
	TypeAttach
	TypeDetach
	TypeCloseStdin
	TypeSignal
	TypeResize
	TypeList
	TypeForget
	TypeReopenLog
	TypeAbort
	TypeAdopt
	TypeShutdown
	TypeUpgrade

	TypeOK
	TypeError
	TypeWelcome
	TypeProcess
	TypeAttached

	TypeExited
	TypeStreamsClosed
	TypeDetached
	TypeLog
	typeLast = TypeLog
)

// Body is the content of a message.
type Body interface {
	Type() Type
	code(c *Coder)
}

// Encode appends a packet to buf. Its error is of class errdefs.ErrInvalidArgument: a field is
// longer than the format allows.
func Encode(buf []byte, request uint32, b Body) ([]byte, error) {
	c := NewEncoder(buf)
	v, t := uint16(Version), b.Type()
	Uint(c, &v)
	Uint(c, &t)
	Uint(c, &request)
	b.code(c)
	if err := c.Finish(); err != nil {
		return nil, err
	}
	if n := len(c.buf) - len(buf); n > MaxMessage {
		return nil, fmt.Errorf(
			"message: %d bytes, at most %d are allowed: %w", n, MaxMessage,
			errdefs.ErrInvalidArgument,
		)
	}
	return c.buf, nil
}

// Decode reads a packet. Its error is of class errdefs.ErrInvalidArgument. The result does not
// refer to packet.
func Decode(packet []byte) (request uint32, b Body, err error) {
	c := NewDecoder(packet)
	var v uint16
	var t Type
	Uint(c, &v)
	Uint(c, &t)
	Uint(c, &request)
	if c.err == nil && v != Version {
		return 0, nil, fmt.Errorf(
			"message: version %d, want %d: %w", v, Version, errdefs.ErrInvalidArgument,
		)
	}
	if b = newBody(t); b == nil {
		c.Fail("unknown type %d", t)
		return 0, nil, c.err
	}
	b.code(c)
	if err := c.Finish(); err != nil {
		return 0, nil, err
	}
	return request, b, nil
}

func newBody(t Type) Body {
	switch t {
	case TypeHello:
		return &Hello{}
	case TypeStart:
		return &Start{}
	case TypeContinue, TypeCloseStdin, TypeForget, TypeReopenLog, TypeAbort:
		return &Simple{T: t}
	case TypeAttach:
		return &Attach{}
	case TypeDetach:
		return &Detach{}
	case TypeSignal:
		return &Signal{}
	case TypeResize:
		return &Resize{}
	case TypeList, TypeOK, TypeUpgrade:
		return &Empty{T: t}
	case TypeAdopt:
		return &Adopt{}
	case TypeShutdown:
		return &Shutdown{}
	case TypeError:
		return &Error{}
	case TypeWelcome:
		return &Welcome{}
	case TypeProcess:
		return &Process{}
	case TypeAttached:
		return &Attached{}
	case TypeExited:
		return &ExitedEvent{}
	case TypeStreamsClosed:
		return &StreamsClosedEvent{}
	case TypeDetached:
		return &DetachedEvent{}
	case TypeLog:
		return &LogEvent{}
	}
	return nil
}
