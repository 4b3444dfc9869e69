package container

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/client"
	"strake/cli/command"
	"strake/cli/spec"
	"strake/cli/terminal"
)

// Exec is `strake exec`.
func Exec() command.Command {
	return command.Command{
		Name: "exec", Path: "container exec", Args: "[OPTIONS] CONTAINER COMMAND [ARG...]",
		Short: "Execute a command in a running container",
		Group: command.Common, Min: 2, Max: -1,
		Complete: []command.Kind{command.Running, command.Nothing},
		Setup: func(fs *pflag.FlagSet) command.Action {
			e := &execFlags{}
			fs.SetInterspersed(false)
			fs.BoolVarP(
				&e.detach, "detach", "d", false, "Detached mode: run command in the background",
			)
			fs.BoolVarP(&e.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
			fs.BoolVarP(&e.tty, "tty", "t", false, "Allocate a pseudo-TTY")
			fs.StringVar(
				&e.keyNames, "detach-keys", "",
				"Override the key sequence for detaching a container",
			)
			fs.StringArrayVarP(&e.env, "env", "e", nil, "Set environment variables")
			fs.StringArrayVar(
				&e.envFile, "env-file", nil, "Read in a file of environment variables",
			)
			fs.BoolVar(
				&e.privileged, "privileged", false, "Give extended privileges to the command",
			)
			fs.StringVarP(
				&e.user, "user", "u", "", "Username or UID (format: \"<name|uid>[:<group|gid>]\")",
			)
			fs.StringVarP(&e.workdir, "workdir", "w", "", "Working directory inside the container")
			command.CompleteFlag(fs, "env", string(command.Variables))
			command.CompleteFlag(fs, "env-file", string(command.Files))
			return e.run
		},
	}
}

type execFlags struct {
	detach, stdin, tty, privileged bool
	env, envFile                   []string
	keyNames, user, workdir        string
}

func (e *execFlags) run(ctx context.Context, s *command.Session, args []string) error {
	keys, err := detachKeys(s, e.keyNames, e.tty)
	if err != nil {
		return command.Misused(err)
	}
	env, err := spec.Environment(e.envFile, e.env, spec.Source{
		LookupEnv: s.LookupEnv, ReadFile: func(name string) ([]byte, error) {
			return os.ReadFile(s.Path(name))
		},
	})
	if err != nil {
		return command.Misused(err)
	}
	if e.tty && e.stdin && !e.detach && !command.IsTerminal(s.In) {
		return errNoTerminal
	}
	req := api.ExecRequest{
		User: e.user, Privileged: e.privileged, Tty: e.tty, Env: env, WorkingDir: e.workdir,
		Cmd: args[1:], DetachKeys: e.keyNames,
	}
	if !e.detach {
		req.AttachStdin, req.AttachStdout, req.AttachStderr = e.stdin, true, true
	}
	start := api.ExecStart{Detach: e.detach, Tty: e.tty}
	if columns, rows, ok := terminal.Size(s.Out); ok && e.tty {
		req.ConsoleSize = &[2]uint{uint(rows), uint(columns)}
		start.ConsoleSize = req.ConsoleSize
	}
	var made api.Created
	if err := s.Post(ctx, path(args[0], "exec"), nil, req, &made); err != nil {
		return err
	}
	if made.ID == "" {
		return errors.New("the engine's answer has no exec ID")
	}
	at := client.Path("exec", made.ID)
	if e.detach {
		if err := s.Post(ctx, at+"/start", nil, start, nil); err != nil {
			return execFailed(err)
		}
		return nil
	}
	return e.attach(ctx, s, at, start, keys)
}

// execFailed gives an error of the start request its exit status: 126 or 127, as a shell has it, if
// the command could not be executed, else 1.
func execFailed(err error) error {
	if code := command.StartStatus(err.Error()); code != command.EngineFailed {
		return &command.StatusError{Code: code, Err: err}
	}
	return err
}

func (e *execFlags) attach(
	ctx context.Context, s *command.Session, at string, start api.ExecStart, keys []byte,
) error {
	restore := func() {}
	if e.tty && e.stdin {
		var err error
		if restore, err = terminal.MakeRaw(s.In); err != nil {
			return err
		}
		defer restore()
		// There is no way to pass a signal to an exec: it ends the command, with the terminal
		// restored.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		sig := watch(s, false, cancel)
		defer sig.stop()
		return sig.or(e.stream(ctx, s, at, start, keys, restore))
	}
	return e.stream(ctx, s, at, start, keys, restore)
}

func (e *execFlags) stream(
	ctx context.Context, s *command.Session, at string, start api.ExecStart, keys []byte,
	restore func(),
) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	h, err := c.Hijack(ctx, client.Request{Method: "POST", Path: at + "/start", JSON: start})
	if err != nil {
		restore()
		return execFailed(err)
	}
	defer h.Close()
	stop := func() {}
	if e.tty {
		stop = follow(ctx, s, at+"/resize")
	}
	p := pump{tty: e.tty, out: s.Out, err: s.Err, keys: keys}
	if e.stdin {
		p.in = s.In
	}
	err = p.run(ctx, h)
	stop()
	restore()
	if errors.Is(err, terminal.ErrDetached) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("streams of the command: %w", err)
	}
	var state api.ExecState
	if err := s.Get(ctx, at+"/json", nil, &state); err != nil {
		return err
	}
	if state.ExitCode == nil {
		return errors.New(
			"the command's output has ended, but the engine does not know its exit status",
		)
	}
	return command.Exit(*state.ExitCode)
}
