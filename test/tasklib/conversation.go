package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"strake/keeper/logfile"
	"strake/task"
)

// conversation writes numbers to a task's input and expects them in its log: each once, in order.
type conversation struct {
	task        task.Task
	in          *os.File
	lines       <-chan string // of the log; closed at its end
	err         <-chan error  // how reading the log has ended
	said, heard int
}

// follow begins a conversation with a task that logs to a file.
func follow(ctx context.Context, t task.Task, log string) (*conversation, error) {
	in, err := t.Input()
	if err != nil {
		return nil, err
	}
	lines, ended := make(chan string), make(chan error, 1)
	go func() {
		defer close(lines)
		all := logfile.Options{Stdout: true, Tail: -1, Follow: true, Done: t.Drained()}
		ended <- logfile.Read(ctx, log, all, func(l logfile.Line) error {
			select {
			case lines <- l.Text:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return &conversation{task: t, in: in, lines: lines, err: ended}, nil
}

// say writes the next numbers, which the task answers.
func (c *conversation) say(n int) error {
	for range n {
		c.said++
		if _, err := fmt.Fprintln(c.in, c.said); err != nil {
			return err
		}
	}
	return nil
}

// hear waits until everything that was said is in the log.
func (c *conversation) hear() error {
	for c.heard < c.said {
		c.heard++
		want := fmt.Sprintf("line %d\n", c.heard)
		if got := <-c.lines; got != want {
			return fmt.Errorf("the log has %q, want %q", got, want)
		}
	}
	return nil
}

// during does something while lines are on their way, and hears them and more.
func (c *conversation) during(something func() error) error {
	return errors.Join(c.say(100), something(), c.say(100), c.hear())
}

// end ends the task's input, and so the task.
func (c *conversation) end(ctx context.Context) error {
	if err := errors.Join(c.in.Close(), c.task.CloseInput(ctx)); err != nil {
		return err
	}
	exit, err := task.Wait(ctx, c.task)
	if err != nil {
		return err
	}
	for l := range c.lines {
		return fmt.Errorf("the log has %q more", l)
	}
	fmt.Printf("log: %d lines, none missing\n", c.heard)
	fmt.Printf("demo: ended with status %d\n", exit.Code)
	return errors.Join(<-c.err, c.task.Delete(ctx))
}
