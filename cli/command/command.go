// Package command is what a verb of the command line is made of: how it is called, its flags, what
// completes its arguments, and the session it runs in.
//
// A verb is a plain value. Its flags are declared when it is chosen, so that a command pays for
// none of the other verbs.
//
// Not for: the verbs themselves, or the tree they form (package cli).
//
// Tested by tables, and with sockets on which no engine listens.
package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Action carries a verb out. The error decides the exit status (see StatusError).
type Action func(ctx context.Context, s *Session, args []string) error

// Group is where help lists a verb.
type Group int

const (
	Other Group = iota
	Common
	Management
	Hidden
)

// Command is a verb, or a noun with verbs below it (Sub).
type Command struct {
	Name    string
	Aliases []string
	// Path is how help names the verb: "container ls", whatever way it was called.
	Path  string
	Args  string // how its arguments look in help
	Short string
	Group Group
	// Min and Max bound the number of arguments; Max -1 is no bound.
	Min, Max int
	// Complete says what the arguments are, in order; the last one holds for all that follow.
	Complete []Kind
	// Setup declares flags and returns what to do once they are parsed.
	Setup func(fs *pflag.FlagSet) Action
	Sub   func() []Command
	// Passthrough leaves everything after the name unparsed.
	Passthrough bool
}

// Kind is the kind of object that an argument or a flag names.
type Kind string

const (
	Nothing    Kind = ""
	Containers Kind = "containers"
	Running    Kind = "running"
	Stopped    Kind = "stopped"
	Images     Kind = "images"
	Networks   Kind = "networks"
	Volumes    Kind = "volumes"
	Any        Kind = "any" // container, image, network or volume
	Files      Kind = "files"
	Dirs       Kind = "dirs"
	Variables  Kind = "env"
)

// completeKey is the annotation of a flag that says what its value is.
const completeKey = "strake-complete"

// CompleteFlag says what the value of a flag is: a Kind, or words to choose from.
func CompleteFlag(fs *pflag.FlagSet, flag string, choices ...string) {
	if f := fs.Lookup(flag); f != nil {
		if f.Annotations == nil {
			f.Annotations = map[string][]string{}
		}
		f.Annotations[completeKey] = choices
	}
}

// FlagChoices returns what CompleteFlag said.
func FlagChoices(f *pflag.Flag) []string { return f.Annotations[completeKey] }

// StatusError ends the command with an exit status.
type StatusError struct {
	Code int
	// Err is told to the user, unless it is nil.
	Err error
	// Usage adds where to find help.
	Usage bool
}

func (e *StatusError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *StatusError) Unwrap() error { return e.Err }

// Exit ends the command with the status of a process, about which there is nothing to say.
func Exit(code int) error {
	if code == 0 {
		return nil
	}
	return &StatusError{Code: code}
}

// Statuses of a command that runs a process (docker/cli:docs/reference/run.md, "Exit status"): the
// engine's fault, not executable, not found.
const (
	EngineFailed  = 125
	NotExecutable = 126
	NotFound      = 127
)

// Misused is an error of the command line.
func Misused(err error) error { return &StatusError{Code: EngineFailed, Err: err, Usage: true} }

// StartStatus is the exit status for a process that the engine could not start, by the words the
// kernel has for the reason.
func StartStatus(message string) int {
	for _, words := range []string{
		"executable file not found", "no such file or directory", "not found in $PATH",
	} {
		if strings.Contains(message, words) {
			return NotFound
		}
	}
	for _, words := range []string{"permission denied", "is a directory", "exec format error"} {
		if strings.Contains(message, words) {
			return NotExecutable
		}
	}
	return EngineFailed
}

// Each calls do with every name, and prints the name if do returns nil. It prints each error as it
// comes, goes on, and returns exit status 1 at the end.
func Each(s *Session, names []string, do func(name string) error) error {
	failed := false
	for _, name := range names {
		err := do(name)
		if errors.Is(err, ErrAbsent) {
			continue
		}
		if err != nil {
			failed = true
			s.Tell(err)
			continue
		}
		fmt.Fprintln(s.Out, name)
	}
	if failed {
		return Exit(1)
	}
	return nil
}

// ErrAbsent is returned to Each by a verb with --force for a name that does not exist. The name is
// not printed, and the command does not fail.
var ErrAbsent = errors.New("does not exist")

// Filters reads --filter KEY=VALUE into the form of the API: a set of values for each key.
func Filters(list []string) (string, error) {
	if len(list) == 0 {
		return "", nil
	}
	set := map[string]map[string]bool{}
	for _, f := range list {
		key, v, ok := strings.Cut(f, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if !ok || key == "" {
			return "", Misused(fmt.Errorf("--filter %q: want NAME=VALUE", f))
		}
		if set[key] == nil {
			set[key] = map[string]bool{}
		}
		set[key][strings.TrimSpace(v)] = true
	}
	raw, err := jsonText(set)
	return raw, err
}
