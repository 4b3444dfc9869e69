package userland

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	gosync "sync"
	"syscall"
	"time"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	shsyntax "mvdan.cc/sh/v3/syntax"
)

// sh is the shell. The language is bash's as mvdan.cc/sh understands it, without job control,
// noclobber and descriptors above 2. What this package adds: programs in the background have a
// process number (job.go); commands that lead to this very executable and are Inline run as
// function calls; the last command of -c and a top-level exec replace the process, so that the
// program and not the shell is the container's main process; traps for signals, umask, and on a
// terminal a prompt with line editing, history and completion.
func sh(ctx context.Context, c *Call) int {
	a, err := parseShellArgs(c.Args)
	if err != nil {
		return c.usagef("%v", err)
	}
	if a.help {
		fmt.Fprintf(
			c.Stdout, "usage: sh %s\n",
			"[-eufnxl] [-o OPTION] [-c COMMAND [NAME [ARG]...] | -s [ARG]... | FILE [ARG]...]",
		)
		return exitOK
	}
	s, err := newShell(c, a)
	if err != nil {
		return c.usagef("%v", err)
	}
	defer s.traps.stop()
	in, out, atTerminal := terminals(c)
	s.interactive = atTerminal && !a.hasCommand && a.script == ""
	ExitOnSignals(c, func(sig os.Signal) bool {
		return s.traps.has(sig) || s.interactive && sig == os.Interrupt
	})
	if a.login {
		for _, f := range []string{"/etc/profile", c.env("HOME") + "/.profile"} {
			if status, exited := s.profile(ctx, f); exited {
				return status
			}
		}
	}
	switch {
	case a.hasCommand:
		return s.source(ctx, strings.NewReader(a.command), "-c", true)
	case a.script != "":
		f, err := os.Open(c.path(a.script))
		if err != nil {
			c.fault(a.script, err)
			if errors.Is(err, os.ErrNotExist) {
				return exitNotFound
			}
			return exitNotRunnable
		}
		defer f.Close()
		return s.source(ctx, f, a.script, false)
	}
	if s.interactive {
		return s.interact(ctx, in, out)
	}
	return s.stream(ctx)
}

// terminals are the call's streams when a person sits at both.
func terminals(c *Call) (in, out *os.File, ok bool) {
	in, inFile := c.Stdin.(*os.File)
	out, outFile := c.Stderr.(*os.File)
	ok = inFile && outFile && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
	if !ok {
		return nil, nil, false
	}
	return in, out, true
}

// shellArgs is the command line of sh.
type shellArgs struct {
	options    []string // for set
	command    string
	hasCommand bool
	script     string
	zero       string
	params     []string
	login      bool
	help       bool
}

func parseShellArgs(args []string) (shellArgs, error) {
	a := shellArgs{zero: "sh"}
	stdin := false
	for len(args) > 0 {
		w := args[0]
		if w == "--help" {
			a.help = true
			return a, nil
		}
		if w == "--" || w == "-" {
			args = args[1:]
			break
		}
		if len(w) < 2 || w[0] != '-' && w[0] != '+' {
			break
		}
		args = args[1:]
		if strings.HasPrefix(w, "--") {
			return a, fmt.Errorf("unknown option %q", w)
		}
		for _, k := range w[1:] {
			switch k {
			case 'c':
				a.hasCommand = true
			case 's':
				stdin = true
			case 'l':
				a.login = true
			case 'i': // at a terminal it is, and elsewhere cannot be
			case 'e', 'u', 'f', 'n', 'x', 'a':
				a.options = append(a.options, w[:1]+string(k))
			case 'o':
				if len(args) == 0 {
					return a, errors.New(`option "-o" needs a value`)
				}
				a.options = append(a.options, w[:1]+"o", args[0])
				args = args[1:]
			default:
				return a, fmt.Errorf("unknown option %q", w[:1]+string(k))
			}
		}
	}
	if a.hasCommand {
		if len(args) == 0 {
			return a, errors.New(`option "-c" needs a value`)
		}
		a.command, args = args[0], args[1:]
		if len(args) > 0 {
			a.zero, args = args[0], args[1:]
		}
	} else if !stdin && len(args) > 0 {
		a.script, args = args[0], args[1:]
		a.zero = a.script
	}
	a.params = args
	return a, nil
}

// shell is one running shell.
type shell struct {
	c      *Call
	zero   string
	runner *interp.Runner
	parser *shsyntax.Parser
	traps  *traps
	jobs   *jobs
	// self is this executable: what leads to it may run inline.
	self os.FileInfo
	// replace holds where commands stand that may take this process's place. Written before the run
	// only.
	replace map[shsyntax.Pos]bool
	// functions are the names of functions that were seen; subshells look at it at the same time.
	functions gosync.Map

	interactive bool
	foreground  programs
	// ends the running command line; interactive only, called by watcher and handler
	interrupt func()
}

func newShell(c *Call, a shellArgs) (*shell, error) {
	s := &shell{
		c: c, zero: a.zero, parser: shsyntax.NewParser(shsyntax.Variant(shsyntax.LangBash)),
		traps: newTraps(), jobs: newJobs(), replace: map[shsyntax.Pos]bool{},
	}
	// Without /proc everything is executed, which is slower but right.
	s.self, _ = os.Stat("/proc/self/exe")
	params := append(append(append([]string{}, a.options...), "--"), a.params...)
	opts := []interp.RunnerOption{
		interp.Env(zeroEnv{expand.ListEnviron(c.Env...), a.zero}),
		interp.StdIO(c.Stdin, c.Stdout, c.Stderr),
		interp.Params(params...),
		interp.CallHandler(s.call),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return s.exec }),
	}
	if c.Dir != "" {
		opts = append(opts, interp.Dir(c.Dir))
	}
	var err error
	if s.runner, err = interp.New(opts...); err != nil {
		return nil, err
	}
	if c.env("HOME") == "" {
		// The interpreter would make one up.
		f, err := s.parser.Parse(strings.NewReader("unset HOME"), "")
		if err != nil {
			return nil, err
		}
		if err := s.runner.Run(context.Background(), f); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// zeroName is the variable that stands for $0 in statements run one by one, for which the
// interpreter has no name of its own.
const zeroName = "__sh_0"

// zeroEnv is an environment with $0, which Each does not show, so that no command inherits it.
type zeroEnv struct {
	expand.Environ
	zero string
}

func (e zeroEnv) Get(name string) expand.Variable {
	if name == zeroName {
		return expand.Variable{Set: true, Kind: expand.String, Str: e.zero}
	}
	return e.Environ.Get(name)
}

// prepare changes what the interpreter does not do as a shell should: $0 of statements run one by
// one, background programs, and >| (which is >, as there is no noclobber).
func (s *shell) prepare(n shsyntax.Node) {
	shsyntax.Walk(n, func(n shsyntax.Node) bool {
		switch n := n.(type) {
		case *shsyntax.FuncDecl:
			s.functions.Store(n.Name.Value, true)
		case *shsyntax.ParamExp:
			if n.Param != nil && n.Param.Value == "0" {
				n.Param.Value, n.Short = zeroName, false
			}
		case *shsyntax.Redirect:
			if n.Op == shsyntax.RdrClob {
				n.Op = shsyntax.RdrOut
			}
		}
		return true
	})
	rewriteJobs(n)
}

// status turns what the runner returns into an exit status; fatal errors are reported.
func (s *shell) status(err error) int {
	var es interp.ExitStatus
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &es):
		return int(es)
	case errors.Is(err, context.Canceled):
		return exitSignal + int(syscall.SIGINT)
	}
	return s.c.errorf("%v", err)
}

// source runs a text: what stands before a syntax error is run before the error is reported, as by
// a shell that reads line by line.
func (s *shell) source(ctx context.Context, r io.Reader, name string, command bool) int {
	file := &shsyntax.File{Name: s.zero}
	var fault error
	for st, err := range s.parser.StmtsSeq(r) {
		if err != nil {
			fault = err
			break
		}
		file.Stmts = append(file.Stmts, st)
	}
	if fault == nil {
		s.findReplaceable(file, command)
	}
	for _, st := range file.Stmts {
		s.prepare(st)
	}
	status := s.status(s.runner.Run(ctx, file))
	if s.runner.Exited() {
		return status
	}
	if fault != nil {
		s.c.errorf("%s: %v", name, fault)
		return exitUsage
	}
	return s.pendingTraps(ctx, status)
}

func (s *shell) pendingTraps(ctx context.Context, status int) int {
	for text, ok := s.traps.next(); ok; text, ok = s.traps.next() {
		if f, err := s.parser.Parse(strings.NewReader(text), s.zero); err == nil {
			if st := s.status(s.runner.Run(ctx, f)); s.runner.Exited() {
				return st
			}
		}
	}
	return status
}

// findReplaceable notes the commands that may replace the shell: a top-level exec and, with -c, a
// last simple command. Background statements forbid it: some of them live in this process.
func (s *shell) findReplaceable(file *shsyntax.File, command bool) {
	background := false
	shsyntax.Walk(file, func(n shsyntax.Node) bool {
		if st, ok := n.(*shsyntax.Stmt); ok && (st.Background || st.Coprocess) {
			background = true
		}
		return !background
	})
	if background {
		return
	}
	for i, st := range file.Stmts {
		call, ok := st.Cmd.(*shsyntax.CallExpr)
		if !ok || st.Negated || len(call.Args) == 0 {
			continue
		}
		// a substitution runs commands of its own, at the same place; a here-document is written by
		// this process
		plain := true
		shsyntax.Walk(st, func(n shsyntax.Node) bool {
			switch n := n.(type) {
			case *shsyntax.CmdSubst, *shsyntax.ProcSubst:
				plain = false
			case *shsyntax.Redirect:
				if n.Op == shsyntax.Hdoc || n.Op == shsyntax.DashHdoc || n.Op == shsyntax.WordHdoc {
					plain = false
				}
			}
			return plain
		})
		if plain && (call.Args[0].Lit() == "exec" || command && i == len(file.Stmts)-1) {
			s.replace[call.Pos()] = true
		}
	}
}

// stream runs standard input as it comes. It is read byte by byte, so that commands find what
// follows their line.
func (s *shell) stream(ctx context.Context) int {
	status := exitOK
	for st, err := range s.parser.StmtsSeq(oneByte{ctxReader{ctx, s.c.Stdin}}) {
		if err != nil {
			if ctx.Err() == nil {
				s.c.errorf("%v", err)
			}
			status = exitUsage
			break
		}
		s.prepare(st)
		status = s.status(s.runner.Run(ctx, st))
		if s.runner.Exited() {
			return status
		}
	}
	status = s.pendingTraps(ctx, status)
	return s.leave(ctx, status)
}

// leave runs the EXIT trap, with the status as $? and as the result.
func (s *shell) leave(ctx context.Context, status int) int {
	f, err := s.parser.Parse(strings.NewReader(fmt.Sprintf("exit %d", status)), s.zero)
	if err != nil {
		return status
	}
	return s.status(s.runner.Run(ctx, f))
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return o.r.Read(p[:1])
}

func (s *shell) profile(ctx context.Context, name string) (status int, exited bool) {
	f, err := os.Open(name)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for st, err := range s.parser.StmtsSeq(f) {
		if err != nil {
			s.c.errorf("%s: %v", name, err)
			break
		}
		s.prepare(st)
		status = s.status(s.runner.Run(ctx, st))
		if s.runner.Exited() {
			return status, true
		}
	}
	return status, false
}

// watch ends the running command line when the terminal's interrupt comes and no program runs that
// gets it too. The caller stops it.
func (s *shell) watch() (stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, os.Interrupt)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ch:
				missed, none := s.foreground.interrupted(time.Now())
				for _, p := range missed {
					p.Signal(os.Interrupt) // an error says that it has ended
				}
				if none {
					s.interrupt()
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(done)
		<-ended
	}
}
