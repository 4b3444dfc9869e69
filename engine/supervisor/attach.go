package supervisor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/internal/message"
	"strake/keeper/logfile"
	"strake/task"
)

// outlet is the engine's end of a subscription to a process's output: a pipe that the keeper writes
// to. With both streams wanted it is one pipe with Docker's frames, so that their order is kept.
type outlet struct {
	output   task.Output
	read     *os.File
	write    *os.File
	tty      bool
	out, err io.Writer
}

// newOutlet makes the pipe; nil if nothing is wanted.
func newOutlet(s *engine.Streams, tty bool) (*outlet, error) {
	if s.Stdout == nil && s.Stderr == nil || tty && s.Stdout == nil {
		return nil, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	o := &outlet{read: r, write: w, tty: tty, out: s.Stdout, err: s.Stderr}
	if s.Stdout != nil {
		o.output.Stdout = w
	}
	if s.Stderr != nil && !tty {
		o.output.Stderr = w
		o.output.Framed = s.Stdout != nil
	}
	return o, nil
}

// handedOver closes the writing end here, once the keeper has its own.
func (o *outlet) handedOver() {
	if o != nil && o.write != nil {
		o.write.Close()
		o.write = nil
	}
}

func (o *outlet) close() {
	if o != nil {
		o.handedOver()
		o.read.Close()
	}
}

// pump writes what comes to the caller's writers until the stream ends. An end of the pipe by close
// is no error.
func (o *outlet) pump() error {
	var err error
	switch {
	case o.output.Framed:
		err = demultiplex(o.read, o.out, o.err)
	case o.output.Stdout != nil:
		_, err = io.Copy(o.out, o.read)
	default:
		_, err = io.Copy(o.err, o.read)
	}
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	return err
}

// maxFrame bounds what a frame's header is believed.
const maxFrame = 1 << 20

// demultiplex takes Docker's frames apart (eight bytes: stream, three zeros, length).
func demultiplex(r io.Reader, stdout, stderr io.Writer) error {
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(r, buf[:8]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		}
		size := int64(binary.BigEndian.Uint32(buf[4:]))
		to := stdout
		if buf[0] == 2 {
			to = stderr
		}
		if size > maxFrame {
			return fmt.Errorf("frame of %d bytes from the keeper: %w", size, errdefs.ErrDataLoss)
		}
		for size > 0 {
			n, err := io.ReadFull(r, buf[:min(size, int64(len(buf)))])
			if n > 0 {
				if _, err := to.Write(buf[:n]); err != nil {
					return err
				}
			}
			if err != nil {
				return nil // the stream ended in the middle of a frame: the keeper is gone
			}
			size -= int64(n)
		}
	}
}

// pendingAttach waits for a container to start.
type pendingAttach struct {
	out           *outlet
	width, height uint16
	begun         chan *run // capacity 1
	failed        chan error
}

func (p *pendingAttach) started(r *run) {
	p.out.handedOver()
	p.begun <- r
}

// takePending removes and returns those who wait for a start; those who want input only come too.
func (c *container) takePending() []*pendingAttach {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.pending
	c.pending = nil
	return list
}

func (c *container) returnPending(list []*pendingAttach) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = append(list, c.pending...)
}

// failPending tells them that there was no start.
func (c *container) failPending(err error) {
	for _, p := range c.takePending() {
		p.failed <- err
	}
}

// withdraw ends the wait for a start. If a start has taken it already that ends one way or the
// other before the pipe may be closed.
func (c *container) withdraw(p *pendingAttach) {
	c.mu.Lock()
	i := slices.Index(c.pending, p)
	if i >= 0 {
		c.pending = slices.Delete(slices.Clone(c.pending), i, i+1)
	}
	c.mu.Unlock()
	if i >= 0 {
		return
	}
	select {
	case <-p.begun:
	case <-p.failed:
	}
}

// await waits for the start that p waits for.
func (c *container) await(ctx context.Context, p *pendingAttach) (*run, error) {
	select {
	case r := <-p.begun:
		return r, nil
	case err := <-p.failed:
		return nil, fmt.Errorf("%w: %w", engine.ErrNotStarted, err)
	case <-ctx.Done():
	}
	c.withdraw(p)
	return nil, ctx.Err()
}

// streams connects callers to the streams and logs of containers.
type streams struct{ *core }

// errDetached ends an attachment by the user's keys.
var errDetached = errors.New("detached")

// Attach implements Containers. A container that does not run is waited for, unless only logs are
// wanted. A stream that ends with the container ends when the exit is recorded and what the
// container occupied is given back.
func (e *streams) Attach(ctx context.Context, name string, opt engine.AttachOptions) error {
	c, err := e.find(name)
	if err != nil {
		return err
	}
	if !opt.Stream {
		if opt.Attached != nil {
			opt.Attached()
		}
		if opt.Logs {
			return e.replay(ctx, c, &opt, nil)
		}
		return nil
	}
	c.mu.Lock()
	tty, openStdin, once := c.spec.TTY, c.spec.OpenStdin || c.spec.TTY, c.spec.StdinOnce
	c.mu.Unlock()
	out, err := newOutlet(&opt.Streams, tty)
	if err != nil {
		return err
	}
	defer out.close()
	if !openStdin {
		opt.Stdin = nil
	}
	r, err := e.subscribe(ctx, c, out, &opt)
	if err != nil {
		return err
	}
	e.publish(c, "attach", nil)
	err = converse(ctx, out, &opt.Streams, r.task.Input, r.ended, func() {
		if once && !tty {
			err := r.task.CloseInput(context.WithoutCancel(ctx))
			if !errdefs.IsNotFound(err) {
				e.warn("close the input of a container", err, "container", c.id)
			}
		}
	})
	if errors.Is(err, errDetached) {
		e.publish(c, "detach", nil)
		return nil
	}
	return err
}

// subscribe attaches to a container that runs, or waits for it to start.
func (e *streams) subscribe(
	ctx context.Context, c *container, out *outlet, opt *engine.AttachOptions,
) (*run, error) {
	c.mu.Lock()
	r := c.run
	if r == nil {
		if c.removed {
			c.mu.Unlock()
			return nil, notFound(c.id)
		}
		p := &pendingAttach{out: out, begun: make(chan *run, 1), failed: make(chan error, 1)}
		c.pending = append(c.pending, p)
		// What a start adds to the log is delivered; what is there now is replayed.
		var written *logfile.End
		if opt.Logs && c.state.Status != engine.Created {
			if st, err := os.Stat(c.logPath()); err == nil {
				written = &logfile.End{File: st, Offset: st.Size()}
			}
		}
		c.mu.Unlock()
		if opt.Attached != nil {
			opt.Attached()
		}
		if written != nil {
			if err := e.replay(ctx, c, opt, written); err != nil {
				c.withdraw(p)
				return nil, err
			}
		}
		return c.await(ctx, p)
	}
	c.mu.Unlock()
	return e.subscribeRunning(ctx, c, r, out, opt)
}

func (e *streams) subscribeRunning(
	ctx context.Context, c *container, r *run, out *outlet, opt *engine.AttachOptions,
) (*run, error) {
	if out == nil {
		if opt.Attached != nil {
			opt.Attached()
		}
		return r, nil
	}
	at := out.output
	at.Pending = opt.Logs
	for attempt := 0; ; attempt++ {
		before, _ := os.Stat(c.logPath())
		got, err := r.task.Attach(ctx, at)
		if err != nil {
			return nil, message.New(errdefs.ErrConflict, "attach to container %s: %w", c.id, err)
		}
		after, _ := os.Stat(c.logPath())
		if opt.Logs && before != nil && !os.SameFile(before, after) && attempt < 10 {
			// The log was rotated around the subscription, so that its offset is of an unknown
			// file.
			if err := r.task.Detach(ctx, got.ID); err != nil {
				return nil, err
			}
			continue
		}
		if opt.Attached != nil {
			opt.Attached()
		}
		if opt.Logs && after != nil {
			if err := e.replay(
				ctx, c, opt, &logfile.End{File: after, Offset: got.LogOffset},
			); err != nil {
				return nil, err
			}
		}
		out.handedOver()
		return r, nil
	}
}

// replay writes the log, up to the point at which a subscription began.
func (e *streams) replay(
	ctx context.Context, c *container, opt *engine.AttachOptions, end *logfile.End,
) error {
	o := logfile.Options{Stdout: opt.Stdout != nil, Stderr: opt.Stderr != nil, Tail: -1, End: end}
	return logfile.Read(ctx, c.logPath(), o, func(l logfile.Line) error {
		w := opt.Stdout
		if l.Stream == "stderr" {
			w = opt.Stderr
		}
		_, err := io.WriteString(w, l.Text)
		return err
	})
}

// converse carries output to the caller and the caller's input to the process until the output is
// delivered and ended is closed, the user has detached, or ctx ends. So a caller that has read its
// stream to the end finds the exit status recorded. Without output it lasts until the input has
// ended or ended is closed.
func converse(
	ctx context.Context, out *outlet, s *engine.Streams, open func() (*os.File, error),
	ended <-chan struct{}, inputEnded func(),
) error {
	var wait sync.WaitGroup
	defer wait.Wait()
	outputDone := make(chan error, 1)
	if out != nil {
		wait.Add(1)
		go func() {
			defer wait.Done()
			outputDone <- out.pump()
		}()
		defer out.close() // before wait.Wait: the pump ends
	}
	inputDone := make(chan error, 1)
	var input *os.File
	if s.Stdin != nil {
		var err error
		// A process that has ended already takes no input; its output is still to be delivered.
		if input, err = open(); err != nil && !errdefs.IsFailedPrecondition(err) {
			return message.New(errdefs.ErrConflict, "attach: %w", err)
		}
	}
	if input != nil {
		// The reader of the caller cannot be interrupted: it ends when the caller closes it, as a
		// server does with its connection.
		go func() {
			err := feed(input, s.Stdin, s.DetachKeys)
			input.Close()
			if err == nil {
				inputEnded()
			}
			inputDone <- err
		}()
		defer input.Close()
	}
	delivered := out == nil
	for {
		select {
		case err := <-outputDone:
			if err != nil || ended == nil {
				return err
			}
			delivered = true
		case err := <-inputDone:
			if errors.Is(err, errDetached) || out == nil {
				return err
			}
			inputDone = nil // the process went on without more input, or took no more
		case <-ended:
			if delivered {
				return nil
			}
			ended = nil // the rest of the output is still to come
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// feed copies input and looks for the detach keys, which are not delivered. What a process does not
// take any more is dropped.
func feed(to io.Writer, from io.Reader, keys []byte) error {
	buf := make([]byte, 32<<10)
	matched := 0
	for {
		n, err := from.Read(buf)
		out, detached := buf[:n], false
		if len(keys) > 0 {
			out, matched = withoutKeys(out, keys, matched)
			detached = matched == len(keys)
		}
		if len(out) > 0 {
			if _, werr := to.Write(out); werr != nil && !detached {
				return fmt.Errorf("write to the process: %w", werr)
			}
		}
		if detached {
			return errDetached
		}
		if err != nil {
			if matched > 0 {
				to.Write(keys[:matched])
			}
			return nil // the end of the input, whatever its reason
		}
	}
}

// withoutKeys returns what of in is to be delivered when the first keys[:matched] came before it,
// and how many keys have come at its end. All of them end it: what follows in is dropped.
func withoutKeys(in, keys []byte, matched int) (out []byte, now int) {
	for _, b := range in {
		if b != keys[matched] {
			out = append(out, keys[:matched]...)
			if matched = 0; b != keys[0] {
				out = append(out, b)
				continue
			}
		}
		if matched++; matched == len(keys) {
			break
		}
	}
	return out, matched
}

// Resize implements Containers.
func (e *streams) Resize(ctx context.Context, name string, width, height uint16) error {
	c, err := e.find(name)
	if err != nil {
		return err
	}
	c.mu.Lock()
	r := c.run
	for _, p := range c.pending {
		p.width, p.height = width, height // for the start to come
	}
	c.mu.Unlock()
	if r == nil {
		return message.New(
			errdefs.ErrConflict, "cannot resize a stopped container: %w", notRunning(c),
		)
	}
	if err := r.task.Resize(ctx, width, height); err != nil {
		return message.New(errdefs.ErrConflict, "resize container %s: %w", c.id, err)
	}
	e.publish(
		c, "resize", map[string]string{"width": fmt.Sprint(width), "height": fmt.Sprint(height)},
	)
	return nil
}
