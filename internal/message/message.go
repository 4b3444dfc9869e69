// Package message makes errors whose text is a sentence for users and whose class
// (github.com/containerd/errdefs) is told apart from it: clients of the Docker Engine API look for
// certain sentences, and "…: not found" at their end would be in the way.
//
// Not for: errors that only developers see. Tested through package engine/ocispec,
// whose errors are such sentences.
package message

import "fmt"

type sentence struct {
	text  string
	class error
	cause error
}

func (e *sentence) Error() string { return e.text }

func (e *sentence) Unwrap() []error {
	if e.cause == nil {
		return []error{e.class}
	}
	return []error{e.class, e.cause}
}

// New returns an error of a class. A %w in the format keeps its operand as the cause as well.
func New(class error, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	e := &sentence{text: err.Error(), class: class}
	switch err.(type) {
	case interface{ Unwrap() error }, interface{ Unwrap() []error }:
		e.cause = err
	}
	return e
}
