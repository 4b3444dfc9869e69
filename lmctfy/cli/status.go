package cli

import (
	"context"
	"errors"
	"io/fs"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// class is a class of errors with its canonical number and name.
type class struct {
	code     int
	name     string
	sentinel error
}

// classes are the canonical codes (google/rpc/code.proto), which lmctfy uses as exit statuses. The
// most particular come first.
var classes = []class{
	{1, "CANCELLED", context.Canceled},
	{4, "DEADLINE_EXCEEDED", context.DeadlineExceeded},
	{6, "ALREADY_EXISTS", errdefs.ErrAlreadyExists},
	{7, "PERMISSION_DENIED", errdefs.ErrPermissionDenied},
	{8, "RESOURCE_EXHAUSTED", errdefs.ErrResourceExhausted},
	{9, "FAILED_PRECONDITION", errdefs.ErrFailedPrecondition},
	{10, "ABORTED", errdefs.ErrAborted},
	{11, "OUT_OF_RANGE", errdefs.ErrOutOfRange},
	{12, "UNIMPLEMENTED", errdefs.ErrNotImplemented},
	{13, "INTERNAL", errdefs.ErrInternal},
	{14, "UNAVAILABLE", errdefs.ErrUnavailable},
	{15, "DATA_LOSS", errdefs.ErrDataLoss},
	{3, "INVALID_ARGUMENT", errdefs.ErrInvalidArgument},
	{5, "NOT_FOUND", errdefs.ErrNotFound},
	{7, "PERMISSION_DENIED", fs.ErrPermission},
	{8, "RESOURCE_EXHAUSTED", unix.ENOSPC},
	{8, "RESOURCE_EXHAUSTED", unix.ENOMEM},
	{9, "FAILED_PRECONDITION", unix.EBUSY},
	{5, "NOT_FOUND", fs.ErrNotExist},
}

// Status is the exit status for an error, and its class: 0 for none, 2 for one of no class.
func Status(err error) (int, class) {
	if err == nil {
		return 0, class{}
	}
	for _, c := range classes {
		if errors.Is(err, c.sentinel) {
			return c.code, c
		}
	}
	return 2, class{code: 2, name: "UNKNOWN"}
}
