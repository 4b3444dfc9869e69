package docker

import (
	"strings"

	"github.com/containerd/errdefs"
)

// sentence is an error as clients show it: without the words of its class at the end, which the status of the answer says already ("network x not
// found: not found").
func sentence(err error) string {
	text := err.Error()
	for {
		short := text
		for _, class := range []error{
			errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition, errdefs.ErrConflict,
			errdefs.ErrUnavailable, errdefs.ErrPermissionDenied, errdefs.ErrNotImplemented,
		} {
			short = strings.TrimSuffix(short, ": "+class.Error())
		}
		if short == text {
			return text
		}
		text = short
	}
}
