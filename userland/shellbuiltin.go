package userland

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/interp"
)

// call sees every simple command before it runs (interp.CallHandlerFunc): here pending traps are
// served, and the built-in commands that the interpreter lacks.
func (s *shell) call(ctx context.Context, args []string) ([]string, error) {
	hc := interp.HandlerCtx(ctx)
	result := func(status int) ([]string, error) {
		if status == exitOK {
			return []string{"true"}, nil
		}
		return []string{"false"}, nil
	}
	if job := jobNumber(hc, jobOwn); job != 0 && interp.IsBuiltin(args[0]) {
		s.jobs.settle(job, 0) // its name was not known before it was expanded
	}
	name := args[0]
	if _, defined := s.functions.Load(name); defined {
		name = "" // a function goes before a command of the shell (sh(1p))
	}
	switch name {
	case jobFork:
		return []string{"eval", fmt.Sprintf("%s=%d", jobNext, s.jobs.fork())}, nil
	case jobForked:
		return []string{"eval", s.forkedText(ctx, hc)}, nil
	case "wait":
		args = waitArgs(hc, args)
	case "printf":
		// The interpreter's knows few formats; -v, which sets a variable, is its alone.
		if p, err := interp.LookPathDir(hc.Dir, hc.Env, "printf"); err == nil &&
			(len(args) < 2 || args[1] != "-v") {
			args = append([]string{p}, args[1:]...)
		}
	case "umask":
		return result(s.umask(hc, args[1:]))
	case "trap":
		rest, status := s.traps.set(hc, args[1:])
		if rest == nil {
			return result(status)
		}
		return append([]string{"trap"}, rest...), nil
	case "kill":
		// The interpreter reserves the name but has no such command; a path is no built-in.
		if p, err := interp.LookPathDir(hc.Dir, hc.Env, "kill"); err == nil {
			args = append([]string{p}, args[1:]...)
		}
	}
	text, ok := s.traps.next()
	if !ok {
		switch name {
		case "echo", "pwd":
			// The interpreter's own do not look whether anything was written.
			a, _ := Lookup(name)
			return result(a.Serve(ctx, &Call{
				Name: name, Args: args[1:], Stdin: hc.Stdin, Stdout: hc.Stdout, Stderr: hc.Stderr,
				Dir: hc.Dir, Env: []string{"PWD=" + hc.Env.Get("PWD").String()},
			}))
		case "ulimit":
			return result(s.ulimit(hc, args[1:]))
		}
		return args, nil
	}
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = quoteWord(a)
	}
	return []string{"eval", text + "\n" + strings.Join(words, " ")}, nil
}

// umask shows or sets the mask of the process (umask(1p)); subshells share it.
func (s *shell) umask(hc interp.HandlerContext, args []string) int {
	c := &Call{Name: "umask", Args: args, Stdout: hc.Stdout, Stderr: hc.Stderr}
	o, words, status, ok := c.options("S", "")
	if !ok {
		return status
	}
	old := currentUmask()
	switch {
	case len(words) > 1:
		return c.usagef("extra operand %q", words[1])
	case len(words) == 0 && o.has('S'):
		m := modeString(^old & 0o777)
		fmt.Fprintf(
			hc.Stdout, "u=%s,g=%s,o=%s\n", strings.ReplaceAll(m[1:4], "-", ""),
			strings.ReplaceAll(m[4:7], "-", ""), strings.ReplaceAll(m[7:], "-", ""),
		)
		return exitOK
	case len(words) == 0:
		fmt.Fprintf(hc.Stdout, "%04o\n", old)
		return exitOK
	}
	change, err := parseMode(words[0], 0)
	if err != nil {
		return c.usagef("%v", err)
	}
	mask := change(^old&0o777, false)
	if words[0][0] < '0' || words[0][0] > '9' {
		mask = ^mask // symbolic modes name what is allowed
	}
	unix.Umask(int(mask & 0o777))
	return exitOK
}
