package supervisor

import (
	"context"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/internal/message"
	"strake/keeper/logfile"
)

// Logs implements Containers. Following ends when the container has ended and everything it wrote
// is delivered.
func (e *streams) Logs(
	ctx context.Context, name string, opt engine.LogOptions, emit func(engine.LogLine) error,
) error {
	c, err := e.find(name)
	if err != nil {
		return err
	}
	if !opt.Stdout && !opt.Stderr {
		return message.New(
			errdefs.ErrInvalidArgument, "Bad parameters: you must choose at least one stream",
		)
	}
	c.mu.Lock()
	path, r := c.logPath(), c.run
	c.mu.Unlock()
	if path == "" {
		return message.New(
			errdefs.ErrFailedPrecondition, "configured logging driver does not support reading",
		)
	}
	o := logfile.Options{
		Stdout: opt.Stdout, Stderr: opt.Stderr, Since: opt.Since, Until: opt.Until, Tail: opt.Tail,
		Follow: opt.Follow && r != nil,
	}
	if o.Follow {
		done := make(chan struct{})
		o.Done = done
		fctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			defer close(done)
			select {
			case <-r.ended: // by then the keeper has written everything
			case <-fctx.Done():
			}
		}()
	}
	return logfile.Read(ctx, path, o, func(l logfile.Line) error {
		return emit(engine.LogLine{
			Stream: l.Stream, Time: l.Time, Line: []byte(l.Text), Attributes: l.Attributes,
		})
	})
}
