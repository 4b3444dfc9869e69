package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"strake/cli/terminal"
	"strake/lxc"
)

// connect joins the caller's terminal with one of the container's until the escape sequence.
func (c *call) connect(ctx context.Context, x *lxc.Container, n int, escape string) (int, error) {
	if !isTerminal(c.In) {
		return 1, fmt.Errorf("standard input is no terminal")
	}
	prefix, err := escapeKey(escape)
	if err != nil {
		return 1, err
	}
	tty, err := x.Terminal(ctx, n)
	if err != nil {
		return 1, err
	}
	defer tty.Close()
	fmt.Fprintf(
		c.Out, "\nConnected to tty %d\nType <%s q> to exit the console, <%s %s> to enter %s itself\n",
		tty.Number, escape, escape, escape, escape,
	)
	resize := func() {
		if w, h, ok := terminal.Size(c.In); ok {
			tty.Resize(uint16(w), uint16(h))
		}
	}
	resize()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	defer signal.Stop(signals)
	restore, err := terminal.MakeRaw(c.In)
	if err != nil {
		return 1, err
	}
	defer restore()
	ended := make(chan struct{}, 2)
	go func() {
		io.Copy(tty, terminal.DetachReader(c.In, []byte{prefix, 'q'}))
		ended <- struct{}{}
	}()
	go func() {
		io.Copy(c.Out, tty)
		ended <- struct{}{}
	}()
	for {
		select {
		case <-signals:
			resize()
		case <-ended:
			return 0, nil
		case <-ctx.Done():
			return 1, ctx.Err()
		}
	}
}

// escapeKey is a character, or ^ and a letter for one with the control key.
func escapeKey(s string) (byte, error) {
	switch {
	case len(s) == 1:
		return s[0], nil
	case len(s) == 2 && s[0] == '^':
		return s[1] & 0x1f, nil
	}
	return 0, fmt.Errorf("escape %q: want a character, or ^ and a letter", s)
}
