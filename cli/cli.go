// Package cli is strake's command line: it finds the verb, parses its flags, runs it and turns
// errors into messages and exit statuses.
//
// Promises:
//
//   - An error is one message on standard error that begins with "strake: ", and says what to do
//     where that is known.
//   - A mistake in the command line exits with 125, as does a failure of the engine under run (see
//     command.StatusError).
//   - Flags and lists of verbs are made for the chosen verb alone, because start-up time is a
//     feature.
//
// Not for: what verbs do (packages container, image, network, volume, system).
//
// Tested by scripts in testdata against a server that plays the engine.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"strake/cli/command"
)

// Main runs one command line and returns its exit status. args[0] is the program's name.
func Main(ctx context.Context, args []string, env command.Env) int {
	s := &command.Session{Env: env}
	defer s.Close()
	err := run(ctx, s, args[min(1, len(args)):])
	if err == nil {
		return 0
	}
	code := 1
	var status *command.StatusError
	if errors.As(err, &status) {
		if code = status.Code; status.Err == nil {
			return code
		}
	}
	s.Tell(err)
	if status != nil && status.Usage {
		fmt.Fprintf(s.Err, "See 'strake%s --help'.\n", chosen(err))
	}
	return code
}

// misuse is a mistake in the command line of a verb.
type misuse struct {
	*command.StatusError
	path string
}

func (m *misuse) Unwrap() error { return m.StatusError }

// chosen returns the path of the verb that an error of the command line is about, after a space, or
// "" if no verb was found.
func chosen(err error) string {
	var m *misuse
	if errors.As(err, &m) && m.path != "" {
		return " " + m.path
	}
	return ""
}

// named adds the path of its verb to an error of the command line.
func named(err error, path string) error {
	var status *command.StatusError
	if errors.As(err, &status) && status.Usage {
		return &misuse{status, path}
	}
	return err
}

// globals are the flags before the verb.
type globals struct {
	host, config         string
	debug, help, version bool
}

func globalFlags(s *command.Session) (*globals, *pflag.FlagSet) {
	g := &globals{}
	fs := newFlagSet()
	fs.SetInterspersed(false)
	host := s.Getenv("DOCKER_HOST")
	if host == "" {
		host = s.DefaultHost
	}
	config := s.Getenv("DOCKER_CONFIG")
	if config == "" {
		config = filepath.Join(s.Getenv("HOME"), ".docker")
	}
	fs.StringVarP(
		&g.host, "host", "H", host, "Engine to connect to: unix:///PATH or tcp://HOST:PORT",
	)
	fs.StringVar(&g.config, "config", config, "Location of client config files")
	fs.BoolVarP(&g.debug, "debug", "D", false, "Tell about every request to the engine")
	fs.BoolVarP(&g.version, "version", "v", false, "Print version information and quit")
	fs.BoolVar(&g.help, "help", false, "Print usage")
	command.CompleteFlag(fs, "config", string(command.Dirs))
	return g, fs
}

func newFlagSet() *pflag.FlagSet {
	fs := pflag.NewFlagSet("strake", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

func run(ctx context.Context, s *command.Session, args []string) error {
	g, fs := globalFlags(s)
	if err := fs.Parse(args); err != nil {
		return command.Misused(flagError(err, fs))
	}
	s.Host, s.ConfigDir, s.Debug = g.host, g.config, g.debug
	s.Explain = func(err error) string { return explain(ctx, s, err) }
	rest := fs.Args()
	switch {
	case g.version:
		fmt.Fprintf(s.Out, "strake version %s, build %s\n", s.Version, s.Commit)
		return nil
	case len(rest) == 0 || rest[0] == "help" && len(rest) == 1:
		writeRootHelp(s.Out, fs)
		return nil
	case rest[0] == "__complete":
		complete(ctx, s, rest[1:])
		return nil
	case rest[0] == "help":
		rest = append(append([]string(nil), rest[1:]...), "--help")
	case g.help:
		rest = append(append([]string(nil), rest...), "--help")
	}
	return dispatch(ctx, s, tree(), rest, nil)
}

// dispatch finds the verb in a list, or in the list below it.
func dispatch(
	ctx context.Context, s *command.Session, list []command.Command, args, path []string,
) error {
	c := find(list, args[0])
	if c == nil {
		return unknownVerb(list, args[0], path)
	}
	path = append(path, args[0])
	if c.Sub == nil {
		return runVerb(ctx, s, c, args[1:], strings.Join(path, " "))
	}
	if len(args) == 1 || args[1] == "--help" || args[1] == "help" {
		writeGroupHelp(s.Out, c)
		return nil
	}
	if strings.HasPrefix(args[1], "-") {
		return named(
			command.Misused(
				fmt.Errorf(
					"unknown flag: %s: %s takes a verb first", args[1], strings.Join(path, " "),
				),
			),
			strings.Join(path, " "),
		)
	}
	return dispatch(ctx, s, c.Sub(), args[1:], path)
}

func find(list []command.Command, name string) *command.Command {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
		for _, a := range list[i].Aliases {
			if a == name {
				return &list[i]
			}
		}
	}
	return nil
}

func unknownVerb(list []command.Command, name string, path []string) error {
	var names []string
	for _, c := range list {
		if c.Group != command.Hidden {
			names = append(names, c.Name)
			names = append(names, c.Aliases...)
		}
	}
	err := fmt.Errorf(
		"unknown command: strake %s%s", strings.Join(append(path, name), " "),
		didYouMean(name, names),
	)
	return named(&command.StatusError{Code: 1, Usage: true, Err: err}, strings.Join(path, " "))
}

func runVerb(
	ctx context.Context, s *command.Session, c *command.Command, args []string, path string,
) error {
	fs := newFlagSet()
	action := c.Setup(fs)
	if c.Passthrough {
		return action(ctx, s, args)
	}
	help := fs.Bool("help", false, "Print usage")
	fs.Lookup("help").Hidden = true
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return named(
				command.Misused(
					errors.New("unknown shorthand flag: 'h' in -h; did you mean --help?"),
				),
				path,
			)
		}
		return named(command.Misused(flagError(err, fs)), path)
	}
	if *help {
		writeVerbHelp(s.Out, c, fs, path)
		return nil
	}
	if err := checkArgs(c, fs.NArg(), path); err != nil {
		// Docker's client exits with 1 here, and with 125 for flags.
		return named(&command.StatusError{Code: 1, Usage: true, Err: err}, path)
	}
	return named(softened(action(ctx, s, fs.Args()), path), path)
}

// softened changes the exit status of a mistake that a verb finds after its flags were parsed to 1,
// as Docker's client has it. run and create keep 125.
func softened(err error, path string) error {
	var status *command.StatusError
	switch path {
	case "run", "create", "container run", "container create":
		return err
	}
	if errors.As(err, &status) && status.Usage && status.Code == command.EngineFailed {
		return &command.StatusError{Code: 1, Usage: true, Err: status.Err}
	}
	return err
}

func checkArgs(c *command.Command, n int, path string) error {
	var want string
	switch {
	case n >= c.Min && (c.Max < 0 || n <= c.Max):
		return nil
	case c.Max == 0:
		want = "accepts no arguments"
	case c.Min == c.Max:
		want = fmt.Sprintf("requires %s", plural(c.Min))
	case n < c.Min:
		want = fmt.Sprintf("requires at least %s", plural(c.Min))
	default:
		want = fmt.Sprintf("requires at most %s", plural(c.Max))
	}
	return fmt.Errorf("%s %s: strake %s", path, want, strings.TrimSpace(path+" "+c.Args))
}

func plural(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}
