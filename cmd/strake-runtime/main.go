// Command strake-runtime runs OCI containers: it takes the command line of runc. As another
// personality it is the keeper of strake's engine.
//
// Exit status: that of the container's process for run and exec in the foreground (128 and the
// number of the signal if one ended it), else 0 for success and 1 for failure.
//
// A process of a few milliseconds does not follow the limits of its own cgroup:
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container"
	"strake/internal/early"
	"strake/internal/suggest"
)

// version and commit are set by the build.
var (
	version = "0.1.0-dev"
	commit  = "unknown"
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdout, os.Stderr))
}

// app is one invocation.
type app struct {
	out, err  io.Writer
	rt        container.Runtime
	rootGiven bool // by --root
	logFile   string
	logFormat string
	logTo     *os.File // logFile, once it is open
	debug     bool
	name      string
}

// command is one verb. Its function parses what follows the verb.
type command struct {
	name  string
	usage string
	about string
	run   func(*app, context.Context, *flag.FlagSet, []string) (int, error)
}

// commands are the verbs in the order of their names.
var commands = []command{
	{"create", "[options] ID", "create a container; its process waits for start", (*app).create},
	{"delete", "[options] ID", "remove a stopped container", (*app).remove},
	{
		"events", "[options] ID", "print statistics and memory shortages of a container",
		(*app).events,
	},
	{
		"exec", "[options] ID COMMAND [ARG...]", "execute a process in a running container",
		(*app).exec,
	},
	{"features", "", "print what this runtime can do as JSON", (*app).features},
	{
		"kill", "[options] ID [SIGNAL]", "send a signal (TERM) to the process of a container",
		(*app).kill,
	},
	{"list", "[options]", "list containers", (*app).list},
	{"pause", "ID", "freeze a container", (*app).pause},
	{"ps", "[options] ID [ps options]", "list the processes of a container", (*app).ps},
	{"resume", "ID", "thaw a container", (*app).resume},
	{"run", "[options] ID", "create and start a container", (*app).runContainer},
	{"spec", "[options]", "write a new config.json", (*app).spec},
	{"start", "ID", "execute the process of a created container", (*app).start},
	{"state", "ID", "print the state of a container as JSON", (*app).state},
	{"update", "[options] ID", "change limits of a container", (*app).update},
}

// find returns the verb of a name, or nil.
func find(name string) *command {
	for i := range commands {
		if commands[i].name == name {
			return &commands[i]
		}
	}
	return nil
}

func run(ctx context.Context, args []string, out, errw io.Writer) int {
	early.Relax()
	if len(args) > 1 && args[1] == "keeper" {
		return keeperMain(args[2:])
	}
	a := &app{out: out, err: errw}
	a.rt.Log = a.warn
	code, err := a.dispatch(ctx, args)
	defer func() {
		if a.logTo != nil {
			a.logTo.Close()
		}
	}()
	if err != nil {
		a.report(err)
		if code == 0 {
			code = 1
		}
	}
	return code
}

// errShown is an error that the user has seen already.
var errShown = errors.New("usage")

func (a *app) dispatch(ctx context.Context, args []string) (int, error) {
	fs := flag.NewFlagSet("strake-runtime", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(
		&a.rt.Root, "root", defaultRoot(), "`directory` for the state of containers (on a tmpfs)",
	)
	fs.StringVar(
		&a.logFile, "log", "",
		"`file` for warnings and what --debug prints; errors are written to it as well",
	)
	fs.StringVar(&a.logFormat, "log-format", "text", "`format` of the log: text or json")
	fs.BoolVar(&a.debug, "debug", false, "say each step, on standard error or in the log")
	systemd := fs.Bool("systemd-cgroup", false, "let systemd make cgroups")
	manager := fs.String(
		"cgroup-manager", "cgroupfs", "as crun's: cgroupfs, since strake-runtime writes cgroups itself",
	)
	fs.String("rootless", "auto", "accepted for runc's sake: privileges are found out")
	fs.String("criu", "", "accepted for runc's sake")
	showVersion := fs.Bool("version", false, "print the version")
	fs.BoolVar(showVersion, "v", false, "print the version")
	if err := fs.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			a.help(a.out, fs)
			return 0, nil
		}
		return 1, fmt.Errorf("%w (see strake-runtime --help)", nearFlag(fs, err))
	}
	switch {
	case a.logFormat != "text" && a.logFormat != "json":
		return 1, fmt.Errorf("--log-format %q: want text or json", a.logFormat)
	case *systemd:
		return 1, errors.New(
			"--systemd-cgroup: strake-runtime writes cgroups itself; leave the option out",
		)
	case *manager != "cgroupfs":
		return 1, fmt.Errorf(
			"--cgroup-manager %q: want cgroupfs: strake-runtime writes cgroups itself", *manager,
		)
	case *showVersion:
		fmt.Fprintf(a.out, "strake-runtime version %s\ncommit: %s\nspec: %s\n",
			version, commit, specs.Version)
		return 0, nil
	case fs.NArg() == 0 || fs.Arg(0) == "help":
		a.help(a.out, fs)
		return 0, nil
	}
	if err := a.openLog(); err != nil {
		return 1, err
	}
	fs.Visit(func(f *flag.Flag) { a.rootGiven = a.rootGiven || f.Name == "root" })
	root, err := filepath.Abs(a.rt.Root)
	if err != nil {
		return 1, err
	}
	a.rt.Root, a.name = root, fs.Arg(0)
	cmd := find(a.name)
	if cmd == nil {
		return 1, fmt.Errorf(
			"unknown command %q%s (see strake-runtime --help)", a.name, didYouMean(a.name),
		)
	}
	sub := flag.NewFlagSet(a.name, flag.ContinueOnError)
	sub.SetOutput(io.Discard)
	sub.Usage = func() {}
	code, err := cmd.run(a, ctx, sub, fs.Args()[1:])
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(a.out, "Usage: strake-runtime %s %s\n\n%s.\n", a.name, cmd.usage, cmd.about)
		printFlags(a.out, sub)
		return 0, nil
	}
	return code, nearFlag(sub, err)
}

// nearFlag adds to the error about a flag that does not exist the one that was perhaps meant.
func nearFlag(fs *flag.FlagSet, err error) error {
	if err == nil {
		return nil
	}
	word, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !ok {
		return err
	}
	var names []string
	fs.VisitAll(func(f *flag.Flag) {
		if len(f.Name) > 1 {
			names = append(names, f.Name)
		}
	})
	if best := suggest.Nearest(word, names); best != "" {
		return fmt.Errorf("unknown flag: --%s; did you mean --%s?", word, best)
	}
	return err
}

// defaultRoot is where root's containers are, or those of a user without privileges.
func defaultRoot() string {
	if os.Geteuid() != 0 {
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			return filepath.Join(dir, "strake-runtime")
		}
	}
	return "/run/strake-runtime"
}

func (a *app) help(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprint(
		w,
		"Usage: strake-runtime [options] COMMAND [command options] [arguments]\n\n"+
			"Runs containers from OCI bundles.\n\nCommands:\n",
	)
	for _, c := range commands {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.about)
	}
	printFlags(w, fs)
	fmt.Fprint(w, "\nRun 'strake-runtime COMMAND --help' for its options.\n")
}

func printFlags(w io.Writer, fs *flag.FlagSet) {
	first := true
	fs.VisitAll(func(f *flag.Flag) {
		if first {
			fmt.Fprint(w, "\nOptions:\n")
			first = false
		}
		name, usage := flag.UnquoteUsage(f)
		dash := "--"
		if len(f.Name) == 1 {
			dash = "-"
		}
		fmt.Fprintf(w, "  %-28s %s\n", strings.TrimSpace(dash+f.Name+" "+name), usage)
	})
}

// didYouMean asks whether the command that is nearest to an unknown one was meant, if one is near.
func didYouMean(name string) string {
	names := make([]string, len(commands))
	for i, c := range commands {
		names[i] = c.name
	}
	best := suggest.Nearest(name, names)
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// report shows an error to the user and to the reader of the log.
func (a *app) report(err error) {
	if errors.Is(err, errShown) {
		return
	}
	fmt.Fprintf(a.err, "strake-runtime: %v\n", err)
	if a.logTo != nil {
		a.log("error", err.Error())
	}
}

// openLog makes the log, which engines read also if nothing is in it, and turns on --debug.
func (a *app) openLog() (err error) {
	if a.logFile != "" {
		a.logTo, err = os.OpenFile(
			a.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_CLOEXEC, 0o644,
		)
		if err != nil {
			return fmt.Errorf("--log: %w", err)
		}
	}
	if a.debug {
		a.rt.Debug = func(format string, args ...any) {
			a.log("debug", fmt.Sprintf(format, args...))
		}
	}
	return nil
}

// log appends an entry to the log, in the form that engines parse, or prints it.
func (a *app) log(level, text string) {
	var w io.Writer = a.err
	if a.logTo != nil {
		w = a.logTo
	}
	now := time.Now().UTC().Format(time.RFC3339)
	if a.logFormat == "json" {
		fmt.Fprintf(w, "{\"level\":%q,\"msg\":%s,\"time\":%q}\n", level, jsonString(text), now)
		return
	}
	fmt.Fprintf(w, "time=%q level=%s msg=%q\n", now, level, text)
}

// warn tells the reader of the log, or else the user, what was asked for and not done.
func (a *app) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.logTo != nil {
		a.log("warning", text)
		return
	}
	fmt.Fprintf(a.err, "strake-runtime: warning: %s\n", text)
}

// oneID takes exactly the container's ID from the arguments. Options may stand behind it too.
func oneID(fs *flag.FlagSet, args []string) (string, error) {
	words, err := parseAround(fs, args)
	if err != nil {
		return "", err
	}
	if len(words) != 1 {
		return "", fmt.Errorf(
			"%s: %d arguments, want 1: the container's ID", fs.Name(), len(words),
		)
	}
	return words[0], nil
}

// parseAround parses options wherever they stand, up to "--", and returns the other words.
func parseAround(fs *flag.FlagSet, args []string) (words []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		rest := fs.Args()
		if parsed := len(args) - len(rest); parsed > 0 && args[parsed-1] == "--" {
			return append(words, rest...), nil
		}
		if len(rest) == 0 {
			return words, nil
		}
		words, args = append(words, rest[0]), rest[1:]
	}
}
