package userland

import (
	"context"
	"errors"
	"fmt"
	"strings"
	gosync "sync"
)

// xargs puts commands together from standard input (xargs(1p); -0, -r, -d, -P as GNU). Without -0
// or -d, blanks separate and quotes and backslashes keep.
func xargs(ctx context.Context, c *Call) int {
	o, cmd, status, ok := c.options(
		"+0n:I:rtd:P:L:",
		"null=0 max-args=n replace=I no-run-if-empty=r verbose=t delimiter=d max-procs=P "+
			"max-lines=L",
	)
	if !ok {
		return status
	}
	if len(cmd) == 0 {
		cmd = []string{"echo"}
	}
	perCall, err := xargsNumber(o, 'n', 1<<30)
	perLines, err2 := xargsNumber(o, 'L', 0)
	procs, err3 := xargsNumber(o, 'P', 1)
	if err = errors.Join(err, err2, err3); err != nil {
		return c.usagef("%v", err)
	}
	if procs == 0 || procs > 256 {
		procs = 256
	}
	sep, err := xargsSeparator(o)
	if err != nil {
		return c.usagef("%v", err)
	}
	x := &xargsRun{c: c, ctx: ctx, trace: o.has('t'), slots: make(chan struct{}, procs)}
	batch := &xargsBatch{x: x, cmd: cmd, perCall: perCall}
	if o.has('I') {
		batch.replacing, batch.replace = true, o.value('I', "{}")
	}
	in := ctxReader{ctx, c.Stdin}
	switch {
	case o.has('0') || o.has('d'):
		err = records(in, sep, func(rec []byte, _ bool) error { return batch.add(string(rec)) })
	case o.has('I'):
		err = lines(in, func(l []byte, _ bool) error {
			if s := strings.TrimLeft(string(l), " \t"); s != "" {
				return batch.add(s)
			}
			return nil
		})
	default:
		err = words(in, batch.add, func() { batch.endLine(perLines) })
	}
	if err == nil {
		batch.flush()
		if !batch.ran && !o.has('r') && !o.has('I') {
			x.start(cmd)
		}
	}
	x.wg.Wait()
	if err != nil && err != errEnough {
		return c.errorf("%v", err)
	}
	return x.status
}

// xargsNumber reads the number that an option has. Only -P may be 0.
func xargsNumber(o options, k byte, def int64) (int64, error) {
	if !o.has(k) {
		return def, nil
	}
	n, err := parseCount(o.value(k, ""))
	if err == nil && n == 0 && k != 'P' {
		err = errors.New("0 is not allowed")
	}
	if err != nil {
		err = fmt.Errorf("option -%c: %w", k, err)
	}
	return n, err
}

// xargsSeparator is the byte that ends an argument with -d or -0.
func xargsSeparator(o options) (byte, error) {
	if o.has('0') {
		return 0, nil
	}
	if !o.has('d') {
		return '\n', nil
	}
	d := o.value('d', "")
	b, n := d[:min(1, len(d))], 1
	if strings.HasPrefix(d, `\`) {
		e, k := escapeByte(d)
		b, n = string(e), k
	}
	if b == "" || n != len(d) {
		return 0, fmt.Errorf("option -d: %q is not one byte", d)
	}
	return b[0], nil
}

// xargsBatch collects the arguments of one command.
type xargsBatch struct {
	x         *xargsRun
	cmd       []string
	replacing bool   // -I was given
	replace   string // the text that it replaces by the argument
	perCall   int64
	args      []string
	size      int   // bytes that the arguments take
	lineCount int64 // with -L
	ran       bool  // an argument was seen
}

// add takes an argument, and starts the command when it has enough. It returns errEnough when no
// more commands are to be started.
func (b *xargsBatch) add(a string) error {
	b.ran = true
	if b.replacing {
		line := make([]string, len(b.cmd))
		for i, w := range b.cmd {
			line[i] = strings.ReplaceAll(w, b.replace, a)
		}
		b.x.start(line)
		return b.x.stopped()
	}
	if b.size+len(a)+9 > commandBytes && len(b.args) > 0 {
		b.flush()
	}
	b.args = append(b.args, a)
	b.size += len(a) + 9
	if int64(len(b.args)) >= b.perCall {
		b.flush()
	}
	return b.x.stopped()
}

// endLine counts the lines that had arguments.
func (b *xargsBatch) endLine(perLines int64) {
	if len(b.args) == 0 {
		return
	}
	if b.lineCount++; perLines > 0 && b.lineCount >= perLines {
		b.flush()
	}
}

func (b *xargsBatch) flush() {
	if len(b.args) > 0 {
		b.x.start(append(append([]string{}, b.cmd...), b.args...))
	}
	b.args, b.size, b.lineCount = nil, 0, 0
}

// xargsRun runs commands, at most cap(slots) at a time.
type xargsRun struct {
	c     *Call
	ctx   context.Context
	trace bool
	slots chan struct{}
	wg    gosync.WaitGroup

	mu     gosync.Mutex
	status int  // guarded by mu
	stop   bool // guarded by mu
}

func (x *xargsRun) start(args []string) {
	if x.trace {
		fmt.Fprintln(x.c.Stderr, strings.Join(args, " "))
	}
	x.slots <- struct{}{}
	x.wg.Go(func() {
		s := x.c.runCommand(x.ctx, args, strings.NewReader(""))
		<-x.slots
		x.mu.Lock()
		defer x.mu.Unlock()
		switch {
		case s == exitOK:
		case s == 255:
			x.status, x.stop = 124, true
		case s == exitNotFound || s == exitNotRunnable:
			x.status, x.stop = s, true
		case s > exitSignal:
			x.status, x.stop = 125, true
		default:
			x.status = 123
		}
	})
	if cap(x.slots) == 1 {
		x.wg.Wait()
	}
}

func (x *xargsRun) stopped() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stop || x.ctx.Err() != nil {
		return errEnough
	}
	return nil
}
