// Command strake-lxc is LXC's and lmctfy's command line: "strake-lxc lxc VERB" and "strake-lxc lmctfy
// VERB", or the links lxc-VERB and lmctfy to it.
//
// A process of a few milliseconds does not follow the limits of its own cgroup:
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"strake/internal/early"
	"strake/lmctfy"
	lmctfycli "strake/lmctfy/cli"
	policy "strake/lmctfy/policy/command"
	"strake/lmctfy/policy/containers"
	"strake/lmctfy/policy/driver"
	lxccli "strake/lxc/cli"
)

// version and commit are set by the linker.
var (
	version = "0.1.0-dev"
	commit  = "unknown"
)

func main() {
	early.Relax()
	os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, in *os.File, out, errw io.Writer) int {
	p := &lxccli.Process{In: in, Out: out, Err: errw, Version: version}
	if exe, err := os.Executable(); err == nil {
		p.Program = []string{exe, "lxc"}
	}
	called := filepath.Base(args[0])
	if verb, ok := strings.CutPrefix(called, "lxc-"); ok {
		return lxccli.Main(ctx, p, verb, args[1:])
	}
	if called == "lmctfy" {
		return runLmctfy(ctx, args[1:], in, out, errw)
	}
	if len(args) < 2 {
		usage(errw)
		return 1
	}
	switch args[1] {
	case "lmctfy":
		return runLmctfy(ctx, args[2:], in, out, errw)
	case "lxc":
		if len(args) == 2 {
			lxccli.Usage(errw)
			return 1
		}
		if args[2] == "--help" || args[2] == "-h" || args[2] == "help" {
			lxccli.Usage(out)
			return 0
		}
		return lxccli.Main(ctx, p, args[2], args[3:])
	case "links":
		// The names that the program is called by, for whoever makes links.
		for _, verb := range lxccli.Names() {
			fmt.Fprintln(out, "lxc-"+verb)
		}
		fmt.Fprintln(out, "lmctfy")
		return 0
	case "--version", "-v":
		fmt.Fprintf(out, "strake-lxc %s (%s)\n", version, commit)
		return 0
	case "--help", "-h", "help":
		usage(out)
		return 0
	}
	usage(errw)
	return 1
}

// runLmctfy executes one of lmctfy's commands.
func runLmctfy(ctx context.Context, args []string, in *os.File, out, errw io.Writer) int {
	if len(args) > 0 && args[0] == "policy" {
		return policy.Command{Stdin: in, Open: openMachine}.Main(args[1:], out, errw)
	}
	return lmctfycli.Main(ctx, args, lmctfycli.System{
		Out: out, Err: errw, Version: version, Parent: os.Getppid(), Environ: os.Environ(),
		ReadFile:   os.ReadFile,
		OpenOutput: func(fd int) io.Writer { return os.NewFile(uintptr(fd), "output") },
	})
}

// openMachine is policy.Command.Open.
func openMachine(context.Context) (driver.Source, driver.Actuator, error) {
	m, err := lmctfy.Open(lmctfy.Config{})
	if err != nil {
		return nil, nil, err
	}
	c := containers.New(m)
	return c, c, nil
}

func usage(w io.Writer) {
	fmt.Fprintf(
		w, "Usage: strake-lxc lxc VERB [OPTION...] [NAME]\n"+
			"       strake-lxc lmctfy COMMAND [ARG...]\n\n"+
			"strake-lxc lxc --help and strake-lxc lmctfy help list them.\n",
	)
}
