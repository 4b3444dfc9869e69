package config

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"strake/internal/suggest"
)

// most is how many errors of one file are reported. What follows is most likely the same error.
const most = 20

// Error is one line that was refused. It is an errdefs.ErrInvalidArgument.
type Error struct {
	// File and Line say where the line is. What a caller of Set gave has neither, and what a caller
	// of Update gave has no File.
	File string
	Line int
	// Key and Value are as they were written. A line that is no setting has no Key; its text is
	// Value.
	Key, Value string
	// Problem says what is wrong, and what is allowed.
	Problem string
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		fmt.Fprintf(&b, "%s:%d: ", e.File, e.Line)
	} else if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Key != "" {
		fmt.Fprintf(&b, "%s = %s: ", e.Key, quote(e.Value))
	} else if e.Value != "" {
		fmt.Fprintf(&b, "%s: ", quote(e.Value))
	}
	b.WriteString(e.Problem)
	return b.String()
}

// Unwrap returns errdefs.ErrInvalidArgument.
func (e *Error) Unwrap() error { return errdefs.ErrInvalidArgument }

// Errors are all lines of a file, and of what it includes, that were refused, in order, at most 20.
type Errors []*Error

func (e Errors) Error() string {
	var b strings.Builder
	for i, one := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.Error())
	}
	if len(e) == most {
		b.WriteString("\nfurther errors are not shown")
	}
	return b.String()
}

// Unwrap returns the single errors.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// quote quotes a value for a message, of at most 120 bytes.
func quote(value string) string {
	if len(value) > 120 {
		return fmt.Sprintf("%q…", value[:120])
	}
	return fmt.Sprintf("%q", value)
}

// refusal is what is wrong with a value.
type refusal string

func (r refusal) Error() string { return string(r) }

// want refuses a value by saying what is allowed.
func want(format string, args ...any) error {
	return refusal("want " + fmt.Sprintf(format, args...))
}

// oneOf returns an error unless a word is one of some.
func oneOf(word string, allowed []string) error {
	for _, a := range allowed {
		if word == a {
			return nil
		}
	}
	return want("%s%s", either(allowed), didYouMean(word, allowed))
}

// either lists words: "a, b or c".
func either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// didYouMean asks for the word that was most likely meant, if one is near.
func didYouMean(word string, known []string) string {
	best := suggest.Nearest(word, known)
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
