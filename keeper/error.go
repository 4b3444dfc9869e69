package keeper

import (
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"strake/container/spawn"
	"strake/keeper/wire"
)

func exitOf(e *wire.Exit) *Exit {
	return &Exit{
		Status: syscall.WaitStatus(e.Status), Time: time.Unix(0, e.Time), Unknown: e.Unknown,
	}
}

// errorOf is the error that a keeper reports, with its class.
func errorOf(e *wire.Error) error {
	switch e.Class {
	case wire.ClassFailure:
		return &spawn.Failure{Index: int(e.Index), Errno: syscall.Errno(e.Errno)}
	case wire.ClassDied:
		return fmt.Errorf("keeper: %s: %w", e.Text, ErrDied)
	}
	var class error = errdefs.ErrUnknown
	switch e.Class {
	case wire.ClassInvalidArgument:
		class = errdefs.ErrInvalidArgument
	case wire.ClassNotFound:
		class = errdefs.ErrNotFound
	case wire.ClassAlreadyExists:
		class = errdefs.ErrAlreadyExists
	case wire.ClassFailedPrecondition:
		class = errdefs.ErrFailedPrecondition
	case wire.ClassUnavailable:
		class = errdefs.ErrUnavailable
	case wire.ClassResourceExhausted:
		class = errdefs.ErrResourceExhausted
	case wire.ClassPermissionDenied:
		class = errdefs.ErrPermissionDenied
	}
	err := &remoteError{text: e.Text, class: class, errno: syscall.Errno(e.Errno)}
	return fmt.Errorf("keeper: %w", err)
}

// remoteError keeps a text that already ends in its class, the class, and the system's error if
// there was one.
type remoteError struct {
	text  string
	class error
	errno syscall.Errno
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() []error {
	if e.errno == 0 {
		return []error{e.class}
	}
	return []error{e.class, e.errno}
}
