package userland

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	gosync "sync"
	"time"

	"mvdan.cc/sh/v3/interp"
	shsyntax "mvdan.cc/sh/v3/syntax"
)

// The interpreter runs background commands as goroutines and names them g1, g2, ...; no signal can
// be sent to such a name. For the case that scripts rely on, a program in the background (`server &
// pid=$!; trap "kill $pid" TERM; wait $pid`), the shell therefore rewrites
//
//	program &
//
// when it has parsed it, into
//
//	{ __sh_fork; { __sh_job=N; program; } & __sh_forked; }
//
// where __sh_fork takes a job number, the exec handler notes the process under that number, and
// __sh_forked waits for it and sets the variables that $! and wait read. Other background commands
// (lists, functions, built-ins) keep the interpreter's names: they have no process of their own.
const (
	jobFork   = "__sh_fork"
	jobForked = "__sh_forked"
	jobNext   = "__sh_next" // variable: the number the next background command gets
	jobOwn    = "__sh_job"  // variable: the number of the command this runs in
	jobPID    = "__sh_pid"  // variable: what $! is
	jobName   = "__sh_name" // prefix of variables: the interpreter's name for a process number
)

// jobStart bounds the wait for a background program to start: a redirection from a pipe without a
// writer waits for ever.
const jobStart = time.Second

// jobs are the background programs of a shell.
type jobs struct {
	mu   gosync.Mutex
	last int // guarded by mu
	// job number to where its process number goes, until it went; guarded by mu
	live map[int]chan<- int
	wait map[int]<-chan int // the other ends, until they were read; guarded by mu
}

func newJobs() *jobs { return &jobs{live: map[int]chan<- int{}, wait: map[int]<-chan int{}} }

// fork takes a number for the background command that comes next.
func (j *jobs) fork() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	ch := make(chan int, 1)
	j.live[j.last], j.wait[j.last] = ch, ch
	return j.last
}

// settle tells what became of a job: a process, or 0 for none. Only the first time counts.
func (j *jobs) settle(job, pid int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if ch, ok := j.live[job]; ok {
		ch <- pid
		delete(j.live, job)
	}
}

// forked waits until a job is settled. It returns 0 when it is no process.
func (j *jobs) forked(ctx context.Context, job int) int {
	j.mu.Lock()
	ch := j.wait[job]
	delete(j.wait, job)
	j.mu.Unlock()
	if ch == nil {
		return 0
	}
	timer := time.NewTimer(jobStart)
	defer timer.Stop()
	select {
	case pid := <-ch:
		return pid
	case <-timer.C:
	case <-ctx.Done():
	}
	return 0
}

// jobNumber is the job that a command runs in, 0 for the foreground.
func jobNumber(hc interp.HandlerContext, variable string) int {
	n, err := strconv.Atoi(hc.Env.Get(variable).String())
	if err != nil {
		return 0
	}
	return n
}

// rewriteJobs changes the background commands below n, and the words that ask for their numbers.
func rewriteJobs(n shsyntax.Node) {
	functions := map[string]bool{}
	shsyntax.Walk(n, func(n shsyntax.Node) bool {
		if f, ok := n.(*shsyntax.FuncDecl); ok {
			functions[f.Name.Value] = true
		}
		return true
	})
	jobRewriter{functions}.rewrite(n)
}

type jobRewriter struct{ functions map[string]bool }

func (j jobRewriter) rewrite(n shsyntax.Node) {
	shsyntax.Walk(n, func(n shsyntax.Node) bool {
		switch n := n.(type) {
		case *shsyntax.ParamExp:
			if n.Param != nil && n.Param.Value == "!" {
				n.Param.Value, n.Short = jobPID, false
			}
		case *shsyntax.Stmt:
			if n.Background && n.Cmd != nil {
				j.rewrite(n.Cmd)
				j.background(n)
				return false
			}
		}
		return true
	})
}

// background puts a background command into a block with what notes its number.
func (j jobRewriter) background(n *shsyntax.Stmt) {
	body := *n
	block := &shsyntax.Block{Lbrace: n.Position, Rbrace: n.Semicolon}
	if call, ok := n.Cmd.(*shsyntax.CallExpr); ok && len(call.Args) > 0 &&
		!j.functions[call.Args[0].Lit()] && !interp.IsBuiltin(call.Args[0].Lit()) {
		inner := *n
		inner.Background = false
		body = shsyntax.Stmt{Position: n.Position, Semicolon: n.Semicolon, Background: true}
		body.Cmd = &shsyntax.Block{
			Lbrace: n.Position, Rbrace: n.Semicolon,
			Stmts: []*shsyntax.Stmt{assignment(jobOwn, jobNext), &inner},
		}
		block.Stmts = append(block.Stmts, word(jobFork))
	} else {
		// No number then, whatever was forked before.
		block.Stmts = append(block.Stmts, assignment(jobNext, ""))
	}
	block.Stmts = append(block.Stmts, &body, word(jobForked))
	*n = shsyntax.Stmt{Position: n.Position, Cmd: block}
}

// word is a command without arguments.
func word(name string) *shsyntax.Stmt {
	return &shsyntax.Stmt{
		Cmd: &shsyntax.CallExpr{
			Args: []*shsyntax.Word{{Parts: []shsyntax.WordPart{&shsyntax.Lit{Value: name}}}},
		},
	}
}

// assignment is name=$from, or name= when from is empty.
func assignment(name, from string) *shsyntax.Stmt {
	a := &shsyntax.Assign{Name: &shsyntax.Lit{Value: name}}
	if from != "" {
		a.Value = &shsyntax.Word{
			Parts: []shsyntax.WordPart{
				&shsyntax.ParamExp{Short: true, Param: &shsyntax.Lit{Value: from}},
			},
		}
	}
	return &shsyntax.Stmt{Cmd: &shsyntax.CallExpr{Assigns: []*shsyntax.Assign{a}}}
}

// forkedText is what __sh_forked evaluates. The $! in it is the interpreter's: evaluated text is
// not rewritten.
func (s *shell) forkedText(ctx context.Context, hc interp.HandlerContext) string {
	pid := s.jobs.forked(ctx, jobNumber(hc, jobNext))
	if pid == 0 {
		return jobPID + `=$!`
	}
	return fmt.Sprintf(`%s=%d; %s%d=$!`, jobPID, pid, jobName, pid)
}

// waitArgs gives the built-in wait the interpreter's names for process numbers.
func waitArgs(hc interp.HandlerContext, args []string) []string {
	out := []string{args[0]}
	for _, a := range args[1:] {
		if name := hc.Env.Get(jobName + a); a != "" && strings.Trim(a, "0123456789") == "" &&
			name.IsSet() {
			a = name.String()
		}
		out = append(out, a)
	}
	return out
}

// background runs a program of a job. handled is false when it could not be started: then the usual
// way finds out why and says so.
func (s *shell) background(
	ctx context.Context, hc interp.HandlerContext, job int, path string, args []string,
) (handled bool, err error) {
	cmd := program(ctx, hc, path, args)
	if s.interactive && hc.Stdin == s.c.Stdin {
		// It must not take what is typed at the prompt (POSIX sh, 2.9.3.1: /dev/null without job
		// control).
		null, err := os.Open(os.DevNull)
		if err != nil {
			return false, nil
		}
		defer null.Close()
		cmd.Stdin = null
	}
	if err := cmd.Start(); err != nil {
		s.jobs.settle(job, 0)
		return false, nil
	}
	s.jobs.settle(job, cmd.Process.Pid)
	return true, s.finished(hc, args[0], cmd.Wait())
}

// runForeground runs a program of an interactive shell. An interrupt of the terminal that came
// while the program was being started hit only the shell: it is passed on.
func (s *shell) runForeground(
	ctx context.Context, hc interp.HandlerContext, path string, args []string,
) (handled bool, err error) {
	cmd := program(ctx, hc, path, args)
	s.foreground.begin()
	err = cmd.Start()
	early := s.foreground.started(cmd.Process, time.Now())
	if err != nil {
		if early {
			s.interrupt()
		}
		return false, nil
	}
	defer s.foreground.ended(cmd.Process)
	if early {
		cmd.Process.Signal(os.Interrupt) // an error says that it has ended
	}
	return true, s.finished(hc, args[0], cmd.Wait())
}

// program is a command ready to be started.
func program(ctx context.Context, hc interp.HandlerContext, path string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path)
	cmd.Args, cmd.Dir, cmd.Env = args, hc.Dir, exported(hc.Env)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = hc.Stdin, hc.Stdout, hc.Stderr
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	return cmd
}

// finished turns what os/exec says into what the interpreter wants.
func (s *shell) finished(hc interp.HandlerContext, name string, err error) error {
	return exitError((&Call{Name: s.c.Name, Stderr: hc.Stderr}).exitStatus(name, err))
}
