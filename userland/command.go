package userland

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Statuses of commands that could not be run, and of those a signal ended (POSIX sh, 2.8.2).
const (
	exitNotRunnable = 126
	exitNotFound    = 127
	exitSignal      = 128
)

// commandBytes bounds the arguments of one command that xargs and find put together: well below
// what execve(2) allows at every stack limit.
const commandBytes = 96 << 10

// defaultPath is where commands are looked for without PATH, as execvp(3) does.
const defaultPath = "/bin:/usr/bin"

// lookPath finds a command by the call's PATH. Applets are found like every other program: by the
// links in the file system.
func (c *Call) lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return c.path(name), nil
	}
	path := c.env("PATH")
	if path == "" {
		path = defaultPath
	}
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		p := c.path(filepath.Join(dir, name))
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
}

// runCommand runs a program with the call's streams (stdin when not nil) and returns its status.
// When ctx ends it is killed.
func (c *Call) runCommand(ctx context.Context, args []string, stdin io.Reader) int {
	p, err := c.lookPath(args[0])
	if err != nil {
		c.errorf("%s: not found", args[0])
		return exitNotFound
	}
	cmd := exec.CommandContext(ctx, p)
	cmd.Args, cmd.Dir, cmd.Env = args, c.Dir, c.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	return c.exitStatus(args[0], cmd.Run())
}

// exitStatus turns what os/exec says of a finished command into a status.
func (c *Call) exitStatus(name string, err error) int {
	var ee *exec.ExitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &ee):
		if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return exitSignal + int(ws.Signal())
		}
		return ee.ExitCode()
	case errors.Is(err, os.ErrNotExist):
		c.fault(name, err)
		return exitNotFound
	}
	c.fault(name, err)
	return exitNotRunnable
}

// env runs a command in a changed environment, or shows the environment (env(1p); -u as GNU).
func env(ctx context.Context, c *Call) int {
	o, rest, status, ok := c.options("+iu:0", "ignore-environment=i unset=u null=0")
	if !ok {
		return status
	}
	vars := c.Env
	if o.has('i') {
		vars = nil
	}
	for _, n := range o.values('u') {
		vars = withoutVar(vars, n)
	}
	if len(rest) > 0 && rest[0] == "-" {
		vars, rest = nil, rest[1:]
	}
	for len(rest) > 0 && strings.Index(rest[0], "=") > 0 {
		n, _, _ := strings.Cut(rest[0], "=")
		vars = append(withoutVar(vars, n), rest[0])
		rest = rest[1:]
	}
	if len(rest) > 0 {
		sub := *c
		sub.Env = vars
		return sub.become(ctx, rest)
	}
	end := "\n"
	if o.has('0') {
		end = "\x00"
	}
	w := c.buffered()
	for _, v := range vars {
		w.WriteString(v + end)
	}
	return c.finish(w, exitOK)
}

// become runs a command in this process's place where the call has the process's own streams, and
// as its child otherwise.
func (c *Call) become(ctx context.Context, args []string) int {
	p, err := c.lookPath(args[0])
	if err == nil && c.Stdin == io.Reader(os.Stdin) && c.Stdout == io.Writer(os.Stdout) &&
		c.Stderr == io.Writer(os.Stderr) && c.Dir == "" {
		err = syscall.Exec(p, args, c.Env)
		return c.exitStatus(args[0], err)
	}
	return c.runCommand(ctx, args, nil)
}

// withoutVar drops a variable.
func withoutVar(vars []string, name string) []string {
	var out []string
	for _, v := range vars {
		if !strings.HasPrefix(v, name+"=") {
			out = append(out, v)
		}
	}
	return out
}

// printenv shows variables (printenv(1)); status 1 when one is not set.
func printenv(_ context.Context, c *Call) int {
	_, names, status, ok := c.options("+", "")
	if !ok {
		return status
	}
	w := c.buffered()
	if len(names) == 0 {
		for _, v := range c.Env {
			w.WriteString(v + "\n")
		}
	}
	for _, n := range names {
		found := false
		for i := len(c.Env) - 1; i >= 0 && !found; i-- {
			if v, ok := strings.CutPrefix(c.Env[i], n+"="); ok {
				w.WriteString(v + "\n")
				found = true
			}
		}
		if !found {
			status = exitFault
		}
	}
	return c.finish(w, status)
}

// which shows where commands are found.
func which(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("a", "all=a")
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no command given")
	}
	for _, n := range names {
		dirs := strings.Split(c.env("PATH"), ":")
		if strings.Contains(n, "/") {
			dirs = []string{""}
		}
		found := false
		for _, d := range dirs {
			p := n
			if d != "" {
				p = strings.TrimSuffix(d, "/") + "/" + n
			}
			if st, err := os.Stat(c.path(p)); err == nil && st.Mode().IsRegular() &&
				st.Mode()&0o111 != 0 && (!found || o.has('a')) {
				fmt.Fprintln(c.Stdout, p)
				found = true
			}
		}
		if !found {
			status = exitFault
		}
	}
	return status
}

// words splits as xargs(1p) says; eol is called at the end of each line.
func words(r io.Reader, fn func(string) error, eol func()) error {
	br := bufio.NewReader(r)
	var word []byte
	inWord := false
	quote := byte(0)
	for {
		b, err := br.ReadByte()
		if err == io.EOF {
			if quote != 0 {
				return fmt.Errorf("unmatched %c quote", quote)
			}
			if inWord {
				return fn(string(word))
			}
			return nil
		}
		if err != nil {
			return err
		}
		if len(word) > maxLine {
			return fmt.Errorf("argument longer than %d bytes", maxLine)
		}
		switch {
		case quote != 0:
			if b == quote {
				quote = 0
			} else if b == '\n' {
				return fmt.Errorf("unmatched %c quote", quote)
			} else {
				word = append(word, b)
			}
		case b == '\'' || b == '"':
			quote, inWord = b, true
		case b == '\\':
			if b, err = br.ReadByte(); err == nil {
				word, inWord = append(word, b), true
			}
		case b == ' ' || b == '\t' || b == '\n':
			if inWord {
				if err := fn(string(word)); err != nil {
					return err
				}
				word, inWord = word[:0], false
			}
			if b == '\n' {
				eol()
			}
		default:
			word, inWord = append(word, b), true
		}
	}
}

// timeout runs a command for at most so long (timeout(1) of coreutils): status 124 when it was
// ended.
func timeout(ctx context.Context, c *Call) int {
	o, rest, status, ok := c.options("+s:k:", "signal=s kill-after=k")
	if !ok {
		return status
	}
	if len(rest) < 2 {
		return c.usagef("a time and a command are needed")
	}
	limit, err := parseSeconds(rest[0])
	if err != nil {
		return c.usagef("%v", err)
	}
	sig, err := parseSignal(o.value('s', "TERM"))
	if err != nil {
		return c.usagef("option -s: %v", err)
	}
	grace := time.Duration(0)
	if o.has('k') {
		if grace, err = parseSeconds(o.value('k', "")); err != nil {
			return c.usagef("option -k: %v", err)
		}
	}
	p, err := c.lookPath(rest[1])
	if err != nil {
		c.errorf("%s: not found", rest[1])
		return exitNotFound
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, p)
	cmd.Args, cmd.Dir, cmd.Env = rest[1:], c.Dir, c.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(sig) }
	cmd.WaitDelay = grace
	err = cmd.Run()
	if ctx.Err() == context.DeadlineExceeded {
		return 124
	}
	return c.exitStatus(rest[1], err)
}
