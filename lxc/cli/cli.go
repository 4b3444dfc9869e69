// Package cli is LXC's command line: its verbs with their flags, output and exit statuses
// (lxc(7) and lxc-VERB(1)).
//
// Not for: what the verbs do (package lxc).
//
// Tested by package test, with the program; here are tests of lxc-top's screen and lxc-checkconfig.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

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
			fmt.Fprintf(p.Err, "lxc-%s: %v\n", v.name, message(err))
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
	c.args = c.set.Args()
	if c.name = c.containerName; c.name == "" && len(c.args) > 0 && !c.verb.free {
		c.name, c.args = c.args[0], c.args[1:]
		// The name may come first, the end of the flags after it.
		if len(c.args) > 0 && c.args[0] == "--" {
			c.args = c.args[1:]
		}
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
	c.path, err = lxc.Open(c.dir, lxc.Options{Run: c.run, End: c.endCommand})
	if err != nil {
		return 1, err
	}
	return do(ctx, c)
}

func (c *call) help(w io.Writer) {
	usage := "[--name=]NAME " + c.verb.usage
	if c.verb.free {
		usage = c.verb.usage
	}
	fmt.Fprintf(
		w, "Usage: lxc-%s %s\n\n%s.\n\nOptions:\n%s", c.verb.name, strings.TrimSpace(usage),
		c.verb.about, c.set.FlagUsages(),
	)
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
