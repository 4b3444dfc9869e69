// Command straked is the engine of strake: it serves the Docker Engine API for package engine on
// unix sockets.
//
// It may be stopped, killed and started again at any time: containers go on under the keeper, and
// the next straked picks everything up. It starts the keeper on demand, from strake-runtime beside
// its own executable. Several instances with different --exec-root and --data-root live side by
// side; everything that one makes in the kernel carries a tag derived from its --exec-root.
//
// Exit status: 0 after SIGINT or SIGTERM, 1 for a failure, 2 for a wrong command line or
// configuration file.
//
// Not for: TCP listeners (an SSH tunnel or a proxy that authenticates does that), running without
// root.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"

	"strake/internal/early"
)

// version and commit are set by the linker.
var (
	version = "0.1.0-dev"
	commit  = "unknown"
)

func main() {
	early.Relax()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return runAs(ctx, os.Geteuid(), args, stdout, stderr)
}

// runAs is run for a user.
func runAs(ctx context.Context, uid int, args []string, stdout, stderr io.Writer) int {
	s, err := parse(args, stdout)
	var wrong usageError
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "straked: %v\nRun 'straked --help' for more information\n", err)
		return 2
	case err != nil:
		fmt.Fprintf(stderr, "straked: %v\n", err)
		return 1
	}
	if s.ShowVersion {
		fmt.Fprintf(stdout, "straked %s\n", version)
		return 0
	}
	if uid != 0 {
		fmt.Fprintln(stderr, "straked: the engine needs root's privileges: run it with sudo")
		return 1
	}
	level := slog.LevelInfo
	if s.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	// A start makes 0.2 MiB of garbage: collecting at the usual heap of a few MiB would take a
	// tenth of the time. The limit keeps the promise about memory (docs/SPECIFICATION.md) where the
	// live heap is large.
	debug.SetGCPercent(200)
	debug.SetMemoryLimit(48 << 20)
	if s.Teardown {
		err = teardown(ctx, s, log)
	} else {
		err = serve(ctx, s, log)
	}
	if err != nil {
		fmt.Fprintf(stderr, "straked: %v\n", err)
		return 1
	}
	return 0
}
