// Package cli is the command lmctfy: Main runs one command line.
//
// Verbs, arguments, short flags anywhere on the line, the three styles of output and the exit
// statuses are those of lmctfy 0.5.0. Results go to the output; errors, and a line for each field
// of a specification that the host cannot enforce, go to the error output. The exit status is the
// number of the error's class ([Status]).
//
// It differs from the original on purpose: a flag that a command does not take is an error; what
// follows the container's name in run belongs to the command that is run; and help is a command.
//
// Not for: reading the environment, which the program does that calls Main.
//
// Tested by a table with a row for each documented command line, run on the real kernel, and by
// golden files.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"strake/internal/suggest"
	"strake/lmctfy"
	"strake/lmctfy/name"
)

// System is what a command line uses of the world.
type System struct {
	Out, Err io.Writer
	// Program is the name that people call the command by, "lmctfy" if empty.
	Program string
	// Version is that of the program.
	Version string
	// Parent is the process whose container is the current one: the one that called the program.
	Parent int
	// Environ is for commands that run in containers.
	Environ []string
	// ReadFile reads the file of -c.
	ReadFile func(path string) ([]byte, error)
	// OpenOutput opens the descriptor of --lmctfy_output_fd; nil if there are no others.
	OpenOutput func(fd int) io.Writer
	// Config says where containers are.
	Config lmctfy.Config
}

// call is one run of a command.
type call struct {
	System
	flags   flags
	args    []string // without the verb
	machine *lmctfy.Machine
	output  output
}

// Main runs a command line without the name of the program, and returns the exit status. It does
// not return from a run without -n that has succeeded.
func Main(ctx context.Context, args []string, sys System) int {
	if sys.Program == "" {
		sys.Program = "lmctfy"
	}
	err := run(ctx, args, sys)
	if err == nil {
		return 0
	}
	code, class := Status(err)
	text := err.Error()
	if class.sentinel != nil {
		text = strings.TrimSuffix(text, ": "+class.sentinel.Error())
	}
	fmt.Fprintf(sys.Err, "%s: %s: %s\n", sys.Program, class.name, text)
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(sys.Err, "usage: %s\n", usage.usage)
	}
	return code
}

// usageError is an error about the command line itself.
type usageError struct{ text, usage string }

func (e usageError) Error() string { return e.text }

func (e usageError) Unwrap() error { return errdefs.ErrInvalidArgument }

func run(ctx context.Context, args []string, sys System) error {
	flags, words, err := parse(args)
	if err != nil {
		return usageError{err.Error(), sys.Program + " [flags] <command> [<arguments>]"}
	}
	if flags.outputFD != 1 {
		if sys.OpenOutput == nil {
			return fmt.Errorf(
				"--lmctfy_output_fd: %d: want 1: %w", flags.outputFD, errdefs.ErrInvalidArgument,
			)
		}
		sys.Out = sys.OpenOutput(flags.outputFD)
	}
	switch {
	case flags.help:
		printUsage(sys.Out, sys.Program, commands)
		return nil
	case flags.tree:
		printTree(sys.Out, commands, "")
		return nil
	case flags.treeLong:
		printTreeLong(sys.Out, commands, nil, nil)
		return nil
	case flags.version:
		fmt.Fprintf(sys.Out, "lmctfy version %s (strake %s)\n", original, sys.Version)
		return nil
	}
	cmd, path, rest, err := find(words, sys)
	if err != nil || cmd == nil {
		return err
	}
	title := sys.Program + " " + strings.Join(path, " ")
	if len(rest) > 0 && rest[0] == "help" {
		fmt.Fprintf(sys.Out, "usage: %s %s\n\n", title, cmd.args)
		wrap(sys.Out, cmd.about, 0)
		return nil
	}
	if err := check(cmd, title, flags, rest); err != nil {
		return err
	}
	c := &call{System: sys, flags: flags, args: rest}
	if !cmd.setsUp {
		if c.machine, err = lmctfy.Open(sys.Config); err != nil {
			return err
		}
	}
	if err := cmd.run(c, ctx); err != nil {
		return err
	}
	return c.output.print(sys.Out, flags.style)
}

// original is the version whose interface this is.
const original = "0.5.0"

// check compares flags and arguments with what a command takes.
func check(cmd *command, title string, flags flags, rest []string) error {
	usage := title + " " + cmd.args
	for _, f := range flags.given {
		if !strings.Contains(cmd.takes, f) {
			return usageError{fmt.Sprintf("flag -%s: %s does not take it", f, title), usage}
		}
	}
	switch {
	case len(rest) < cmd.least:
		return usageError{"missing arguments", usage}
	case cmd.most >= 0 && len(rest) > cmd.most:
		return usageError{fmt.Sprintf("extraneous argument %q", rest[cmd.most]), usage}
	}
	return nil
}

// find finds the command that words name. It returns none, and no error, after it has printed help.
func find(words []string, sys System) (cmd *command, path, rest []string, err error) {
	if len(words) > 0 && words[0] == "help" {
		if words = append(slices.Clone(words[1:]), "help"); len(words) == 1 {
			printUsage(sys.Out, sys.Program, commands)
			return nil, nil, nil, nil
		}
	}
	list := commands
	for len(words) > 0 {
		i := slices.IndexFunc(list, func(c command) bool { return c.name == words[0] })
		if i < 0 {
			break
		}
		path, words = append(path, words[0]), words[1:]
		if list[i].sub == nil {
			return &list[i], path, words, nil
		}
		list = list[i].sub
	}
	title := strings.Join(append([]string{sys.Program}, path...), " ")
	if len(words) == 1 && words[0] == "help" {
		printUsage(sys.Out, title, list)
		return nil, nil, nil, nil
	}
	var names []string
	for _, c := range list {
		names = append(names, c.name)
	}
	allowed := strings.Join(names, ", ")
	if len(words) == 0 {
		return nil, nil, nil, fmt.Errorf(
			"%s: which command? want one of %s: %w", title, allowed, errdefs.ErrNotFound,
		)
	}
	hint := ""
	if near := suggest.Nearest(words[0], names); near != "" {
		hint = fmt.Sprintf("did you mean %q? ", near)
	}
	return nil, nil, nil, fmt.Errorf(
		"%s: there is no command %q; %swant one of %s: %w", title, words[0], hint, allowed,
		errdefs.ErrNotFound,
	)
}

// current is the container of the process that called the program.
func (c *call) current() (name.Name, error) { return c.machine.Detect(c.Parent) }

// resolve makes a name of the command line absolute.
func (c *call) resolve(given string) (name.Name, error) {
	if strings.HasPrefix(given, "/") {
		return name.Resolve(given, name.Root)
	}
	at, err := c.current()
	if err != nil {
		return "", err
	}
	return name.Resolve(given, at)
}

// container finds the container that the first argument names, or without one the current one.
func (c *call) container() (*lmctfy.Container, error) {
	given := "."
	if len(c.args) > 0 {
		given = c.args[0]
	}
	n, err := c.resolve(given)
	if err != nil {
		return nil, err
	}
	return c.machine.Get(n)
}

// notes prints what the host does not enforce.
func (c *call) notes(list []lmctfy.Unenforced) {
	for _, u := range list {
		fmt.Fprintf(c.Err, "%s: %s\n", c.Program, u)
	}
}
