// Package command is `lmctfy policy`: the policy layer on the command line.
//
//	lmctfy policy run        carry out the policy until SIGINT or SIGTERM
//	lmctfy policy simulate   replay a trace against the policy
//	lmctfy policy admit      say whether a container would be admitted
//
// Results go to standard output, errors to standard error. The exit status is lmctfy's, the
// canonical codes of Google: 0 OK, 2 UNKNOWN, 3 INVALID_ARGUMENT, 5 NOT_FOUND,
// 8 RESOURCE_EXHAUSTED (refused), 9 FAILED_PRECONDITION.
//
// Not for: deciding (package policy), acting (package driver) or reaching containers, which
// Command.Open does.
//
// Tested by tables of arguments with output and exit status.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"

	"strake/internal/message"
	"strake/internal/suggest"
	"strake/lmctfy/policy/driver"
)

// Codes of the exit status (google.rpc.Code).
const (
	OK                 = 0
	Unknown            = 2
	InvalidArgument    = 3
	NotFound           = 5
	ResourceExhausted  = 8
	FailedPrecondition = 9
)

// Command is the command with what it needs of its program.
type Command struct {
	// Open returns access to the containers of the machine. Nil: the program has none; run is
	// errdefs.ErrFailedPrecondition then, and admit needs a list.
	Open func(ctx context.Context) (driver.Source, driver.Actuator, error)
	// Stdin is read for the file "-"; nil is an empty one.
	Stdin io.Reader
}

// verb is one of the command's verbs.
type verb struct {
	name, args, does string
	run              func(c Command, ctx context.Context, args []string, out io.Writer) error
}

func verbs() []verb {
	return []verb{
		{"run", "[flags]", "carry out the policy until SIGINT or SIGTERM", Command.run},
		{"simulate", "[flags] [TRACE]", "replay a trace against the policy", Command.simulate},
		{"admit", "[flags] [REQUEST]", "say whether a container would be admitted", Command.admit},
	}
}

// Main runs the command with the arguments after `lmctfy policy` and returns the exit status.
// SIGINT and SIGTERM end it in order.
func (c Command) Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return c.MainContext(ctx, args, stdout, stderr)
}

// MainContext is Main, which ends with a context in place of signals.
func (c Command) MainContext(
	ctx context.Context, args []string, stdout, stderr io.Writer,
) int {
	err := c.dispatch(ctx, args, stdout)
	var help helpAsked
	switch {
	case err == nil:
		return OK
	case errors.As(err, &help):
		fmt.Fprint(stdout, help.text)
		return OK
	case errors.Is(err, errRefused):
		return ResourceExhausted // the decision is the output
	}
	fmt.Fprintf(stderr, "lmctfy policy: %s\n", err)
	return code(err)
}

// code is the exit status of an error.
func code(err error) int {
	switch {
	case errdefs.IsInvalidArgument(err):
		return InvalidArgument
	case errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist):
		return NotFound
	case errdefs.IsResourceExhausted(err):
		return ResourceExhausted
	case errdefs.IsFailedPrecondition(err):
		return FailedPrecondition
	}
	return Unknown
}

// helpAsked is the error of a command that was asked for help.
type helpAsked struct{ text string }

func (helpAsked) Error() string { return "help" }

func (c Command) dispatch(ctx context.Context, args []string, out io.Writer) error {
	var names []string
	usage := "Usage: lmctfy policy VERB [flags]\n\n"
	for _, v := range verbs() {
		names = append(names, v.name)
		usage += fmt.Sprintf("  %-9s %-18s %s\n", v.name, v.args, v.does)
	}
	if len(args) == 0 {
		return message.New(
			errdefs.ErrInvalidArgument, "a verb is missing: one of %s", strings.Join(names, ", "),
		)
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		return helpAsked{usage}
	}
	for _, v := range verbs() {
		if v.name == args[0] {
			err := v.run(c, ctx, args[1:], out)
			var help helpAsked
			if err != nil && !errors.As(err, &help) && !errors.Is(err, errRefused) {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			return err
		}
	}
	hint := ""
	if near := suggest.Nearest(args[0], names); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", near)
	}
	return message.New(
		errdefs.ErrInvalidArgument, "verb %q: one of %s is allowed%s", args[0],
		strings.Join(names, ", "), hint,
	)
}

// parse parses the flags of a verb and at most a number of arguments. A flag that is 0 would be
// taken for its default, and is an error unless its name is among those of zeros.
func parse(f *flag.FlagSet, args []string, most int, zeros ...string) error {
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) || err == nil && f.Arg(0) == "help" {
		return helpAsked{usage(f)}
	}
	if err != nil {
		return message.New(errdefs.ErrInvalidArgument, "%w", err)
	}
	zero := ""
	f.Visit(func(set *flag.Flag) {
		if slices.Contains([]string{"0", "0s", "0B"}, set.Value.String()) &&
			!slices.Contains(zeros, set.Name) {
			zero = set.Name
		}
	})
	if zero != "" {
		return message.New(errdefs.ErrInvalidArgument, "flag -%s 0: more than 0 is allowed", zero)
	}
	if f.NArg() > most {
		return message.New(
			errdefs.ErrInvalidArgument, "argument %q: at most %d is allowed after the flags",
			f.Arg(most), most,
		)
	}
	return nil
}

func usage(f *flag.FlagSet) string {
	var b strings.Builder
	for _, v := range verbs() {
		if v.name == f.Name() {
			fmt.Fprintf(&b, "Usage: lmctfy policy %s %s\n\n%s.\n\n", v.name, v.args, v.does)
		}
	}
	f.SetOutput(&b)
	f.PrintDefaults()
	return b.String()
}

// open opens a file to read, or standard input for "-".
func (c Command) open(name string) (io.ReadCloser, error) {
	if name != "-" {
		return os.Open(name)
	}
	if c.Stdin == nil {
		return io.NopCloser(strings.NewReader("")), nil
	}
	return io.NopCloser(c.Stdin), nil
}
