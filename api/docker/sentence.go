package docker

import (
	"strings"

	"github.com/containerd/errdefs"
)

// sentence is an error as clients show it: without the words of its class at the end, which the
// status of the answer says already ("network x not found: not found"). Permission denied stays: it
// is what the kernel says as well, and what clients tell the exit status 126 from.
func sentence(err error) string {
	text := err.Error()
	for {
		short := text
		for _, class := range []error{
			errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrInvalidArgument,
			errdefs.ErrFailedPrecondition, errdefs.ErrConflict,
			errdefs.ErrUnavailable, errdefs.ErrNotImplemented,
		} {
			short = strings.TrimSuffix(short, ": "+class.Error())
		}
		if short == text {
			return text
		}
		text = short
	}
}
