package client

import (
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// APIError is the engine's refusal of a request. It wraps the class of
// github.com/containerd/errdefs that belongs to its status.
type APIError struct {
	Method, Path string
	Status       int
	// Message is the engine's sentence.
	Message string
}

func (e *APIError) Error() string { return e.Message }

// Unwrap returns the class of the status, by the table of the Docker Engine API
// (moby/moby:api/swagger.yaml, "Errors").
func (e *APIError) Unwrap() error {
	switch e.Status {
	case 400:
		return errdefs.ErrInvalidArgument
	case 401:
		return errdefs.ErrUnauthenticated
	case 403:
		return errdefs.ErrPermissionDenied
	case 404:
		return errdefs.ErrNotFound
	case 409:
		return errdefs.ErrConflict
	case 501:
		return errdefs.ErrNotImplemented
	case 503:
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrInternal
}

// maxError bounds the text of an error.
const maxError = 1 << 20

// readError makes an error of an answer and closes it.
func readError(r Request, resp *Response) error {
	e := &APIError{Method: r.Method, Path: r.Path, Status: resp.Status}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err = errors.Join(err, resp.Body.Close()); err != nil && len(raw) == 0 {
		e.Message = "status " + strconv.Itoa(resp.Status) +
			" without a readable reason: " + err.Error()
		return e
	}
	var message struct {
		Message string `json:"message"`
	}
	switch text := strings.TrimSpace(string(raw)); {
	case json.Unmarshal(raw, &message) == nil && message.Message != "":
		e.Message = strings.TrimSpace(message.Message)
	case text != "":
		e.Message = text
	default:
		e.Message = r.Method + " " + r.Path + ": status " + strconv.Itoa(resp.Status)
	}
	return e
}
