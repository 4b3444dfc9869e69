package docker

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"

	"strake/engine"
)

// plainError is an error whose text, which users and clients read, does not name its class.
type plainError struct {
	class error
	text  string
}

func (e plainError) Error() string { return e.text }

func (e plainError) Unwrap() error { return e.class }

func invalid(format string, args ...any) error {
	return plainError{errdefs.ErrInvalidArgument, fmt.Sprintf(format, args...)}
}

func conflict(format string, args ...any) error {
	return plainError{errdefs.ErrConflict, fmt.Sprintf(format, args...)}
}

func notImplemented(what string) error { return invalid("%s is not supported by strake", what) }

// errAnswered is returned by handlers that have already answered, or closed the connection.
var errAnswered = errors.New("answered")

// statusOf derives the HTTP status from the class of an error.
func statusOf(err error) int {
	var exec *engine.ExecError
	switch {
	case errors.Is(err, errdefs.ErrNotModified):
		return http.StatusNotModified
	case errors.As(err, &exec) && exec.Code != 125 && exec.Code != 128:
		return http.StatusBadRequest
	case errors.Is(err, errdefs.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, errdefs.ErrInvalidArgument), errors.Is(err, errdefs.ErrOutOfRange):
		return http.StatusBadRequest
	case errors.Is(err, errdefs.ErrConflict), errors.Is(err, errdefs.ErrAlreadyExists),
		errors.Is(err, errdefs.ErrFailedPrecondition):
		return http.StatusConflict
	case errors.Is(err, errdefs.ErrUnauthenticated):
		return http.StatusUnauthorized
	case errors.Is(err, errdefs.ErrPermissionDenied):
		return http.StatusForbidden
	case errors.Is(err, errdefs.ErrNotImplemented):
		return http.StatusNotImplemented
	case errors.Is(err, errdefs.ErrUnavailable):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// sentence is the text of an error without the name of its class at the end, which the status of
// the answer expresses ("network x not found: not found"). "permission denied" stays: it is also
// the kernel's text (EACCES), from which clients derive the exit status 126.
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
