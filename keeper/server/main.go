package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/early"
	"strake/keeper/wire"
)

// exitUsage is the exit status for a command line that is wrong.
const exitUsage = 2

// options are a keeper's command line.
type options struct {
	socket, state, log       string
	fd, resume, check, spill int
	oomScore                 int
	linger                   time.Duration
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("keeper", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.socket, "socket", "", "`path` of the socket to listen at")
	f.IntVar(&o.fd, "fd", -1, "descriptor of a socket that listens already")
	f.StringVar(&o.state, "state", "", "`directory` for what must not be lost")
	f.StringVar(&o.log, "log", "", "`file` for messages")
	f.IntVar(&o.resume, "resume", -1, "descriptor with the state to take over")
	f.IntVar(&o.oomScore, "oom-score", 0, "oom_score_adj of children, with --resume")
	f.IntVar(
		&o.check, "check", -1, "descriptor with a state, to say whether it could be taken over",
	)
	f.IntVar(&o.spill, "spill", 0, "bytes that may wait on disk for one subscriber")
	f.DurationVar(
		&o.linger, "linger", 0, "how long to wait for a client while nothing runs",
	)
	if err := f.Parse(args); err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	sources := 0
	for _, given := range []bool{o.socket != "", o.fd >= 0, o.resume >= 0, o.check >= 0} {
		if given {
			sources++
		}
	}
	switch {
	case f.NArg() > 0:
		return nil, invalid("unexpected argument %q", f.Arg(0))
	case sources != 1:
		return nil, invalid("want exactly one of --socket, --fd, --resume and --check")
	case o.check < 0 && !filepath.IsAbs(o.state):
		return nil, invalid("--state %q: must be an absolute path", o.state)
	case o.log != "" && !filepath.IsAbs(o.log):
		return nil, invalid("--log %q: must be an absolute path", o.log)
	case o.linger < 0:
		return nil, invalid("--linger %s: must not be negative", o.linger)
	case o.spill < 0:
		return nil, invalid("--spill %d: must not be negative", o.spill)
	}
	return o, nil
}

// Main is the keeper's command: --socket PATH or --fd N, --state DIR, and optionally --log FILE,
// --spill BYTES and --linger DURATION. command is what leads to it ("strake-runtime", "keeper"), so
// that a successor can be executed in the same way. The result is the exit status: 0, 1, or 2 for a
// wrong command line.
//
// It ends when for some time no process runs and no client is connected, and at once by SIGTERM if
// no process runs; it has no other way to lose its children.
func Main(command, args, environ []string) int {
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "keeper: %v\n", err)
		return exitUsage
	}
	if o.check >= 0 {
		err = Check(o.check)
	} else {
		err = serve(o, command, environ)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "keeper: %v\n", err)
		return 1
	}
	return 0
}

func serve(o *options, command, environ []string) error {
	if err := settle(o); err != nil {
		return err
	}
	var normal *int
	if o.resume >= 0 {
		normal = &o.oomScore
	}
	protection, err := protect(protected, normal)
	if err != nil {
		return err
	}
	cfg := Config{
		Protection: protection,
		Listener:   o.fd, StateDir: o.state, Resume: o.resume, SpillBytes: int64(o.spill),
		Linger:  o.linger,
		Environ: environ,
		Successor: append(
			command[:len(command):len(command)], "--state", o.state, "--oom-score",
			strconv.Itoa(protection.normal),
		),
		Logf: func(format string, args ...any) {
			fmt.Fprintf(
				os.Stderr, "%s %s\n", time.Now().UTC().Format(time.RFC3339Nano),
				fmt.Sprintf(format, args...),
			)
		},
	}
	if o.log != "" {
		cfg.Successor = append(cfg.Successor, "--log", o.log)
	}
	if o.linger > 0 {
		cfg.Successor = append(cfg.Successor, "--linger", o.linger.String())
	}
	if o.spill > 0 {
		cfg.Successor = append(cfg.Successor, "--spill", strconv.Itoa(o.spill))
	}
	if o.socket != "" {
		fd, err := wire.Listen(o.socket)
		if err != nil {
			return err
		}
		cfg.Listener = fd
		defer unix.Unlink(o.socket)
	}
	// Handled, not ignored: what a process ignores its children ignore too, and CLONE_CLEAR_SIGHAND
	// does not change that.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM)
	others := make(chan os.Signal, 4)
	signal.Notify(others, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT)
	cfg.Terminate = signals
	return Serve(context.Background(), cfg)
}

// settle makes the process what a keeper should be: small, hard to kill for want of memory, and
// without anything of its starter.
func settle(o *options) error {
	early.Settle(2)
	debug.SetGCPercent(25) // a heap of 1 MiB before the first collection
	debug.SetMemoryLimit(64 << 20)
	if o.resume < 0 {
		closeInherited(o.fd)
	}
	unix.Umask(0o022)
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("chdir: %w", err)
	}
	os.WriteFile("/proc/self/comm", []byte("strake-keeper"), 0)
	if err := os.MkdirAll(o.state, 0o700); err != nil {
		return err
	}
	if o.log == "" {
		return nil
	}
	fd, err := unix.Open(o.log, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open %q: %w", o.log, err)
	}
	defer unix.Close(fd)
	return errors.Join(unix.Dup3(fd, 1, 0), unix.Dup3(fd, 2, 0))
}

// closeInherited closes the descriptors that the starter has left open: all but the standard ones,
// the socket, and those that are close-on-exec, which this process has opened itself.
func closeInherited(socket int) {
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range dir {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 || fd == socket {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil &&
			flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	if socket >= 0 {
		unix.CloseOnExec(socket)
	}
}
