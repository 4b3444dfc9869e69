package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/client"
	"strake/cli/command"
	"strake/cli/registry"
	"strake/cli/terminal"
)

// attachment connects the streams of this command with those of a container's process.
type attachment struct {
	s                     *command.Session
	id                    string
	tty                   bool
	stdin, stdout, stderr bool
	keys                  []byte
	keyNames              string
	condition             string // of the wait
	sig                   *signals
}

// unstarted is what to do with a container whose start was interrupted.
type unstarted int

const (
	keepUnstarted unstarted = iota
	removeUnstarted
)

// start attaches, begins to wait, starts the container and stays until it has ended. Attaching and
// waiting come first, at the same time: no output and no exit can be missed.
func (a *attachment) start(ctx context.Context, interrupted unstarted) error {
	status, h, err := a.prepare(ctx)
	if err != nil {
		return a.sig.or(
			a.giveUp(ctx, interrupted, &command.StatusError{Code: command.EngineFailed, Err: err}),
		)
	}
	if h != nil {
		defer h.Close()
	}
	restore, err := a.raw()
	if err != nil {
		return a.giveUp(
			ctx, interrupted, &command.StatusError{Code: command.EngineFailed, Err: err},
		)
	}
	defer restore()
	if err := a.s.Post(ctx, path(a.id, "start"), nil, nil, nil); err != nil {
		restore()
		if ctx.Err() != nil {
			return a.sig.or(a.giveUp(ctx, interrupted, err))
		}
		if a.condition == "removed" && interrupted == removeUnstarted {
			<-status // the engine removes it; the prompt shall not come back before
		}
		return startFailed(err)
	}
	a.sig.begin(ctx, a.id)
	return a.stay(ctx, h, restore, status)
}

// giveUp removes a container that this command made and did not start.
func (a *attachment) giveUp(ctx context.Context, what unstarted, err error) error {
	if what == removeUnstarted {
		ctx = context.WithoutCancel(ctx)
		if rm := a.s.Delete(
			ctx, path(a.id), command.Query("force", "1", "v", "1"), nil,
		); rm != nil {
			err = errors.Join(err, rm)
		}
	}
	return err
}

// exit is how a container ended.
type exit struct {
	code int
	err  error
}

// prepare opens the streams and begins to wait. Both requests are under way at the same time.
func (a *attachment) prepare(ctx context.Context) (<-chan exit, *client.Hijacked, error) {
	waiting := make(chan error, 1)
	status := make(chan exit, 1)
	go func() {
		resp, err := a.s.Do(
			ctx,
			client.Request{
				Method: "POST", Path: path(a.id, "wait"),
				Query: command.Query("condition", a.condition),
			},
		)
		waiting <- err
		if err != nil {
			status <- exit{err: err}
			return
		}
		var w api.Waited
		err = resp.Decode(&w)
		if err == nil && w.Error != nil && w.Error.Message != "" {
			err = errors.New(w.Error.Message)
		}
		status <- exit{w.StatusCode, err}
	}()
	h, err := a.open(ctx, false)
	if werr := <-waiting; err == nil && werr != nil {
		err = werr
		if h != nil {
			h.Close()
		}
	}
	return status, h, err
}

// open attaches to the streams, unless none is wanted.
func (a *attachment) open(ctx context.Context, logs bool) (*client.Hijacked, error) {
	if !a.stdin && !a.stdout && !a.stderr {
		return nil, nil
	}
	q := url.Values{"stream": {"1"}}
	for name, want := range map[string]bool{
		"stdin": a.stdin, "stdout": a.stdout, "stderr": a.stderr, "logs": logs,
	} {
		if want {
			q.Set(name, "1")
		}
	}
	if a.keyNames != "" {
		q.Set("detachKeys", a.keyNames)
	}
	c, err := a.s.Client()
	if err != nil {
		return nil, err
	}
	return c.Hijack(ctx, client.Request{Method: "POST", Path: path(a.id, "attach"), Query: q})
}

// raw puts the terminal that keys come from into raw mode, if the container's end is a terminal
// too.
func (a *attachment) raw() (restore func(), err error) {
	if !a.tty || !a.stdin {
		return func() {}, nil
	}
	return terminal.MakeRaw(a.s.In)
}

// stay copies the streams until the container has ended, the user detached or a signal ended the
// command.
func (a *attachment) stay(
	ctx context.Context, h *client.Hijacked, restore func(), status <-chan exit,
) error {
	if a.tty {
		stop := follow(ctx, a.s, path(a.id, "resize"))
		defer stop()
	}
	if h != nil {
		p := pump{tty: a.tty, out: a.s.Out, err: a.s.Err, keys: a.keys}
		if a.stdin {
			p.in = a.s.In
		}
		err := p.run(ctx, h)
		restore()
		switch {
		case errors.Is(err, terminal.ErrDetached):
			fmt.Fprintln(a.s.Err, "read escape sequence")
			return nil
		case ctx.Err() != nil:
			return a.sig.or(ctx.Err())
		case err != nil:
			return &command.StatusError{
				Code: command.EngineFailed, Err: fmt.Errorf("streams of the container: %w", err),
			}
		}
	}
	select {
	case e := <-status:
		if ctx.Err() != nil {
			return a.sig.or(ctx.Err())
		}
		if e.err != nil {
			return &command.StatusError{
				Code: command.EngineFailed, Err: fmt.Errorf("wait for the container: %w", e.err),
			}
		}
		return command.Exit(e.code)
	case <-ctx.Done():
		return a.sig.or(ctx.Err())
	}
}

// pump moves bytes between this process and one in a container.
type pump struct {
	tty      bool
	in       io.Reader // nil: nothing
	out, err io.Writer
	keys     []byte
}

// run returns when the output has ended, or with terminal.ErrDetached. The goroutine that reads the
// input may be left behind in its read, which nothing can interrupt; it ends with the process.
func (p pump) run(ctx context.Context, h *client.Hijacked) error {
	stop := context.AfterFunc(ctx, h.Interrupt)
	defer stop()
	out := make(chan error, 1)
	go func() {
		if p.tty {
			_, err := io.Copy(p.out, h)
			out <- err
			return
		}
		out <- client.Demux(p.out, p.err, h)
	}()
	detached := make(chan struct{})
	if p.in != nil {
		go func() {
			in := p.in
			if p.tty {
				in = terminal.DetachReader(in, p.keys)
			}
			if _, err := io.Copy(h, in); errors.Is(err, terminal.ErrDetached) {
				close(detached)
				return
			}
			h.CloseWrite()
		}()
	}
	select {
	case err := <-out:
		return err
	case <-detached:
		h.Interrupt()
		<-out
		return terminal.ErrDetached
	}
}

// detachKeys returns the keys of the flag, else of config.json, else Docker's. Without a TTY
// config.json is not read.
func detachKeys(s *command.Session, flag string, tty bool) ([]byte, error) {
	if flag == "" && tty {
		if c, err := registry.Load(s.ConfigDir); err == nil {
			flag = c.DetachKeys()
		}
	}
	keys, err := terminal.ParseKeys(flag)
	if err != nil {
		return nil, fmt.Errorf("--detach-keys: %w", err)
	}
	return keys, nil
}

// Attach is `strake attach`.
func Attach() command.Command {
	return command.Command{
		Name: "attach", Path: "container attach", Args: "[OPTIONS] CONTAINER", Min: 1, Max: 1,
		Complete: []command.Kind{command.Running},
		Short:    "Attach local standard input, output, and error streams to a running container",
		Setup: func(fs *pflag.FlagSet) command.Action {
			keyNames := fs.String(
				"detach-keys", "", "Override the key sequence for detaching a container",
			)
			noStdin := fs.Bool("no-stdin", false, "Do not attach STDIN")
			proxy := fs.Bool("sig-proxy", true, "Proxy all received signals to the process")
			return func(ctx context.Context, s *command.Session, args []string) error {
				keys, err := detachKeys(s, *keyNames, true)
				if err != nil {
					return command.Misused(err)
				}
				var c api.ContainerState
				if err := s.Get(ctx, path(args[0], "json"), nil, &c); err != nil {
					return err
				}
				switch {
				case !c.State.Running:
					return fmt.Errorf(
						"cannot attach to a stopped container, start it first: strake start -a %s",
						args[0],
					)
				case c.State.Paused:
					return fmt.Errorf(
						"cannot attach to a paused container, unpause it first: strake unpause %s",
						args[0],
					)
				case c.State.Restarting:
					return errors.New(
						"cannot attach to a restarting container, wait until it is running",
					)
				}
				stdin := c.Config.OpenStdin && !*noStdin
				if c.Config.Tty && stdin && !command.IsTerminal(s.In) {
					return errNoTerminal
				}
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				a := attachment{
					s: s, id: c.ID, tty: c.Config.Tty, stdin: stdin, stdout: true, stderr: true,
					keys: keys, keyNames: *keyNames,
					condition: "next-exit", sig: watch(s, *proxy, cancel),
				}
				defer a.sig.stop()
				if c.HostConfig.AutoRemove {
					a.condition = "removed"
				}
				status, h, err := a.prepare(ctx)
				if err != nil {
					return a.sig.or(err)
				}
				defer h.Close()
				restore, err := a.raw()
				if err != nil {
					return err
				}
				defer restore()
				a.sig.begin(ctx, a.id)
				return a.stay(ctx, h, restore, status)
			}
		},
	}
}
