// Command strake is the command line people use: it speaks the Docker Engine API with straked, and
// starts straked if none listens on the default socket.
//
// Exit status: that of the container's process for run, exec, attach and start -a; 125 if the
// engine or the command line was at fault, 126 or 127 if the process could not be executed or
// found; 1 for every other failure.
package main

import (
	"context"
	"math"
	"os"
	"os/signal"
	"syscall"
	"time"

	"strake/cli"
	"strake/cli/command"
	"strake/internal/early"
)

// version and commit are set by the build.
var (
	version = "0.1.0-dev"
	commit  = "unknown"
)

// lasting is the running time after which a command is taken for one that streams or waits, and
// gets all processors.
const lasting = 100 * time.Millisecond

func main() {
	early.Relax()
	time.AfterFunc(lasting, func() { early.Settle(math.MaxInt) })
	dir, _ := os.Getwd() // only relative names need it, and they will say that they were not found
	own, _ := os.Executable()
	os.Exit(cli.Main(context.Background(), os.Args, command.Env{
		DefaultHost: command.DefaultHost,
		In:          os.Stdin, Out: os.Stdout, Err: os.Stderr,
		LookupEnv: os.LookupEnv, Environ: os.Environ(), Dir: dir, Executable: own,
		UID:     os.Geteuid(),
		Version: version, Commit: commit,
		Notify: signal.Notify, StopNotify: signal.Stop, Now: time.Now, Exec: replace,
	}))
}

// replace executes another program in place of this one.
func replace(program string, args, environ []string) error {
	defer early.Lock()()
	return syscall.Exec(program, args, environ)
}
