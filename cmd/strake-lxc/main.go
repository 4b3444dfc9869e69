// Command strake-lxc is LXC's command line: "strake-lxc lxc VERB", or the links lxc-VERB to it.
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
	if len(args) < 2 {
		usage(errw)
		return 1
	}
	switch args[1] {
	case "lxc":
		if len(args) > 2 {
			return lxccli.Main(ctx, p, args[2], args[3:])
		}
	case "--version", "-v":
		fmt.Fprintf(out, "strake-lxc %s\n", version)
		return 0
	case "--help", "-h", "help":
		usage(out)
		return 0
	}
	usage(errw)
	return 1
}

func usage(w io.Writer) {
	fmt.Fprintf(
		w, "Usage: strake-lxc lxc VERB [OPTION...] [NAME]\n\nVerbs: %s\n",
		strings.Join(lxccli.Names(), " "),
	)
}
