// Package cli is LXC's command line: its verbs with their flags, output and exit statuses
// (lxc(7) and lxc-VERB(1)).
//
// Not for: what the verbs do (package lxc).
//
// Tested by tables, and by package test with the program.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"strake/internal/suggest"
	"strake/lxc"
	"strake/lxc/config"
)

// Process is the process that the command line belongs to.
type Process struct {
	In       *os.File
	Out, Err io.Writer
	// Program are the words that lead to Main: "/usr/bin/strake-lxc", "lxc".
	Program []string
	Version string
}

// verb is one of LXC's commands.
type verb struct {
	name  string
	usage string // what follows the flags
	about string
	// flags adds the verb's own flags and returns what it does.
	flags func(*pflag.FlagSet) action
	// free says that a name is not required.
	free bool
	// own says that flags after the first argument are a command's own.
	own bool
}

// action carries a verb out and returns its exit status.
type action func(context.Context, *call) (int, error)

// call is one invocation.
type call struct {
	*Process
	verb *verb
	path *lxc.Path
	// name is the container's, from -n or the first argument; args are what follows.
	name string
	args []string
	set  *pflag.FlagSet
	// system is the configuration of LXC itself.
	system *config.System

	dir, rcfile   string
	logFile       string
	logPriority   string
	quiet         bool
	wantsVersion  bool
	run           string // lxc.Options.Run
	containerName string
}

// Names lists the verbs.
func Names() (names []string) {
	for i := range verbs {
		names = append(names, verbs[i].name)
	}
	return names
}

// Main executes a verb, "start" for lxc-start, and returns the exit status.
func Main(ctx context.Context, p *Process, name string, args []string) int {
	v := find(name)
	if v == nil {
		fmt.Fprintf(p.Err, "lxc: %q is no command", name)
		if near := suggest.Nearest(name, Names()); near != "" {
			fmt.Fprintf(p.Err, "; did you mean %q?", near)
		}
		fmt.Fprintln(p.Err)
		return 1
	}
	c := &call{Process: p, verb: v}
	code, err := c.execute(ctx, args)
	if c.path != nil {
		err = errors.Join(err, c.path.Close())
	}
	if err != nil {
		if !c.quiet {
			text := message(err)
			if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 && !v.free {
				text += "\nContainers are root's: an ordinary user has none."
			}
			fmt.Fprintf(p.Err, "lxc-%s: %s\n", v.name, text)
		}
		if code == 0 {
			code = 1
		}
	}
	return code
}

// message is an error without the class at its end, which says nothing to a person.
func message(err error) string {
	text := err.Error()
	for _, class := range []error{
		errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrInvalidArgument,
		errdefs.ErrFailedPrecondition,
	} {
		text = strings.ReplaceAll(text, ": "+class.Error(), "")
	}
	return text
}

func find(name string) *verb {
	for i := range verbs {
		if verbs[i].name == name {
			return &verbs[i]
		}
	}
	return nil
}

func (c *call) execute(ctx context.Context, args []string) (int, error) {
	c.set = pflag.NewFlagSet("lxc-"+c.verb.name, pflag.ContinueOnError)
	c.set.SetOutput(io.Discard)
	c.set.SortFlags = false
	// A command's own flags follow its name.
	c.set.SetInterspersed(!c.verb.own && c.verb.name != "attach" && c.verb.name != "execute")
	do := c.verb.flags(c.set)
	c.set.StringVarP(&c.containerName, "name", "n", "", "NAME of the container")
	c.set.StringVarP(&c.logFile, "logfile", "o", "", "write the log to FILE")
	c.set.StringVarP(&c.logPriority, "logpriority", "l", "", "log messages of LEVEL and above")
	c.set.BoolVarP(&c.quiet, "quiet", "q", false, "print no errors")
	c.set.StringVarP(&c.dir, "lxcpath", "P", "", "use PATH in place of the directory of containers")
	c.set.StringVar(&c.rcfile, "rcfile", "", "read FILE in place of the container's configuration")
	c.set.BoolVar(&c.wantsVersion, "version", false, "print the version")
	c.set.StringVar(&c.run, "run", "", "keep what a reboot ends below DIR")
	if last := len(args) - 1; c.verb.name == "config" && last >= 0 && args[last] == "-l" {
		args = append(args[:last:last], "--list") // elsewhere -l is the log's level
	}
	usage := c.set.Bool("usage", false, "print how the command is used")
	switch err := c.set.Parse(args); {
	case errors.Is(err, pflag.ErrHelp) || err == nil && *usage:
		c.help(c.Out)
		return 0, nil
	case err != nil:
		return 1, fmt.Errorf("%w\nTry lxc-%s --help", err, c.verb.name)
	}
	if c.wantsVersion {
		fmt.Fprintln(c.Out, c.Version)
		return 0, nil
	}
	if err := c.takeName(); err != nil {
		return 1, fmt.Errorf("%w\nTry lxc-%s --help", err, c.verb.name)
	}
	if c.name == "" && !c.verb.free {
		return 1, fmt.Errorf("no container is named\nTry lxc-%s --help", c.verb.name)
	}
	home := ""
	if os.Geteuid() != 0 {
		home = os.Getenv("HOME")
	}
	var err error
	if c.system, err = config.LoadSystem(home); err != nil {
		return 1, err
	}
	if c.dir == "" {
		c.dir = c.system.LXCPath
	}
	log, err := c.logger()
	if err != nil {
		return 1, err
	}
	c.path, err = lxc.Open(c.dir, lxc.Options{Run: c.run, End: c.endCommand, Log: log})
	if err != nil {
		return 1, err
	}
	return do(ctx, c)
}

// takeName finds the container's name and what follows it.
func (c *call) takeName() error {
	c.args, c.name = c.set.Args(), c.containerName
	if c.name != "" || len(c.args) == 0 || c.verb.free {
		return nil
	}
	c.name, c.args = c.args[0], c.args[1:]
	switch {
	case len(c.args) == 0:
	case c.args[0] == "--":
		// The name may come first, the end of the flags after it.
		c.args = c.args[1:]
	case strings.HasPrefix(c.args[0], "-"):
		// So may flags, before a command.
		if err := c.set.Parse(c.args); err != nil {
			return err
		}
		c.args = c.set.Args()
	}
	return nil
}

func (c *call) help(w io.Writer) {
	usage := "[--name=]NAME " + c.verb.usage
	if c.verb.free {
		usage = c.verb.usage
	}
	fmt.Fprintf(
		w, "Usage: lxc-%s %s\n\n%s.\n\nOptions:\n", c.verb.name, strings.TrimSpace(usage),
		c.verb.about,
	)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	c.set.VisitAll(func(f *pflag.Flag) {
		short := "    "
		if f.Shorthand != "" {
			short = "-" + f.Shorthand + ", "
		}
		value, about := pflag.UnquoteUsage(f)
		if f.Value.Type() == "bool" {
			value = ""
		}
		if value != "" {
			value = " " + strings.ToUpper(value)
		}
		fmt.Fprintf(table, "  %s--%s%s\t%s\n", short, f.Name, value, about)
	})
	table.Flush()
}

// Usage lists the verbs.
func Usage(w io.Writer) {
	fmt.Fprint(w, "Usage: lxc-VERB [OPTION...] [NAME], or strake lxc VERB\n\nVerbs:\n")
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for i := range verbs {
		if verbs[i].name != "end" {
			fmt.Fprintf(table, "  %s\t%s\n", verbs[i].name, verbs[i].about)
		}
	}
	table.Flush()
	fmt.Fprint(w, "\nlxc-VERB --help says more.\n")
}

// levels are LXC's levels of the log by their names, and what they are here.
var levels = map[string]slog.Level{
	"TRACE": slog.LevelDebug, "DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo,
	"NOTICE": slog.LevelInfo, "WARN": slog.LevelWarn, "ERROR": slog.LevelError,
	"CRIT": slog.LevelError, "ALERT": slog.LevelError, "FATAL": slog.LevelError,
}

// logger is where what is no error of the command itself goes: to standard error or a file, from the
// level ERROR on if nobody says.
func (c *call) logger() (*slog.Logger, error) {
	level := slog.LevelError
	if c.logPriority != "" {
		var ok bool
		if level, ok = levels[strings.ToUpper(c.logPriority)]; !ok {
			return nil, fmt.Errorf(
				"logpriority %q: want one of %s", c.logPriority,
				strings.Join(slices.Sorted(maps.Keys(levels)), ", "),
			)
		}
	}
	w := c.Err
	if c.logFile != "" {
		// Open until the process ends.
		f, err := os.OpenFile(c.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("logfile: %w", err)
		}
		w = f
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), nil
}

// endCommand is lxc.Options.End.
func (c *call) endCommand(dir, name string) []string {
	words := append(c.Program[:len(c.Program):len(c.Program)], "end", "-P", dir, "-n", name)
	if c.run != "" {
		words = append(words, "--run", c.run)
	}
	return words
}

// container is the one that is named.
func (c *call) container(ctx context.Context) (*lxc.Container, error) {
	x, err := c.path.Container(c.name)
	if err != nil {
		return nil, err
	}
	return x, x.Exists(ctx)
}
