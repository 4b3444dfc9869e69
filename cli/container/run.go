package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/client"
	"strake/cli/command"
	"strake/cli/registry"
	"strake/cli/spec"
	"strake/cli/terminal"
)

// creation is the flags that run and create share.
type creation struct {
	spec                 *spec.Flags
	name, platform, pull string
	quiet                bool
}

func creationFlags(fs *pflag.FlagSet) *creation {
	c := &creation{spec: spec.Register(fs)}
	fs.StringVar(&c.name, "name", "", "Assign a name to the container")
	fs.StringVar(&c.platform, "platform", "", "Set platform if server is multi-platform capable")
	fs.StringVar(&c.pull, "pull", "missing", "Pull image before running (always, missing, never)")
	fs.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress the pull output")
	command.CompleteFlag(fs, "pull", "always", "missing", "never")
	command.CompleteFlag(fs, "restart", "no", "always", "unless-stopped", "on-failure")
	command.CompleteFlag(fs, "network", string(command.Networks))
	command.CompleteFlag(fs, "volumes-from", string(command.Containers))
	command.CompleteFlag(fs, "link", string(command.Running))
	command.CompleteFlag(fs, "env", string(command.Variables))
	command.CompleteFlag(fs, "log-driver", "json-file", "local", "none")
	command.CompleteFlag(fs, "attach", "stdin", "stdout", "stderr")
	command.CompleteFlag(fs, "stop-signal", signalNames()...)
	for _, f := range []string{"env-file", "label-file", "cidfile", "volume"} {
		command.CompleteFlag(fs, f, string(command.Files))
	}
	return c
}

// Create is `strake create`.
func Create() command.Command {
	return command.Command{
		Name: "create", Path: "container create", Args: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create a new container", Min: 1, Max: -1,
		Complete: []command.Kind{command.Images, command.Nothing},
		Setup: func(fs *pflag.FlagSet) command.Action {
			c := creationFlags(fs)
			return func(ctx context.Context, s *command.Session, args []string) error {
				req, err := c.request(s, args)
				if err != nil {
					return err
				}
				id, err := c.create(ctx, s, req)
				if err != nil {
					return err
				}
				fmt.Fprintln(s.Out, id)
				return nil
			}
		},
	}
}

// request makes the request of the flags. Its errors are mistakes in the command line.
func (c *creation) request(s *command.Session, args []string) (*api.CreateRequest, error) {
	switch c.pull {
	case "always", "missing", "never":
	default:
		return nil, command.Misused(fmt.Errorf("--pull %q: want always, missing or never", c.pull))
	}
	req, err := c.spec.Create(args[0], args[1:], spec.Source{
		LookupEnv: s.LookupEnv, Dir: s.Dir,
		ReadFile: func(name string) ([]byte, error) { return os.ReadFile(s.Path(name)) },
	})
	if err != nil {
		return nil, command.Misused(err)
	}
	if req.Tty {
		if columns, rows, ok := terminal.Size(s.Out); ok {
			req.HostConfig.ConsoleSize = &[2]uint{uint(rows), uint(columns)}
		}
	}
	return req, nil
}

// create makes the container, pulling its image if need be, and writes its ID to the --cidfile.
func (c *creation) create(
	ctx context.Context, s *command.Session, req *api.CreateRequest,
) (id string, err error) {
	if name := c.spec.CIDFile(); name != "" {
		f, err := os.OpenFile(s.Path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf(
				"container ID file found, make sure the other container isn't running or delete %s",
				name,
			)
		}
		if err != nil {
			return "", fmt.Errorf("create the container ID file: %w", err)
		}
		defer func() {
			if id != "" {
				_, err = f.WriteString(id)
			}
			if err = errors.Join(err, f.Close()); err != nil || id == "" {
				os.Remove(f.Name())
			}
		}()
	}
	if c.pull == "always" {
		if err := registry.Pull(ctx, s, req.Image, c.platform, false, c.quiet); err != nil {
			return "", err
		}
	}
	query := command.Query("name", c.name, "platform", c.platform)
	var made api.Created
	err = s.Post(ctx, "/containers/create", query, req, &made)
	if c.pull == "missing" && noSuchImage(err) {
		if !c.quiet {
			fmt.Fprintf(s.Err, "Unable to find image '%s' locally\n", withTag(req.Image))
		}
		if err := registry.Pull(ctx, s, req.Image, c.platform, false, c.quiet); err != nil {
			return "", err
		}
		err = s.Post(ctx, "/containers/create", query, req, &made)
	}
	if err != nil {
		return "", err
	}
	for _, w := range made.Warnings {
		s.Warn(w)
	}
	return made.ID, nil
}

func noSuchImage(err error) bool {
	var refused *client.APIError
	return errors.As(err, &refused) && errdefs.IsNotFound(refused) &&
		strings.Contains(strings.ToLower(refused.Message), "no such image")
}

func withTag(ref string) string {
	if _, tag := registry.Split(ref); tag == "" {
		return ref + ":latest"
	}
	return ref
}

// Run is `strake run`.
func Run() command.Command {
	return command.Command{
		Name: "run", Path: "container run", Args: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create and run a new container from an image",
		Group: command.Common, Min: 1, Max: -1,
		Complete: []command.Kind{command.Images, command.Nothing},
		Setup: func(fs *pflag.FlagSet) command.Action {
			r := &runFlags{creation: creationFlags(fs)}
			fs.BoolVarP(
				&r.detach, "detach", "d", false,
				"Run container in background and print container ID",
			)
			fs.BoolVar(&r.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
			fs.StringVar(
				&r.detachKeys, "detach-keys", "",
				"Override the key sequence for detaching a container",
			)
			return r.run
		},
	}
}

type runFlags struct {
	*creation
	detach, sigProxy bool
	detachKeys       string
}

func (r *runFlags) run(ctx context.Context, s *command.Session, args []string) error {
	req, err := r.request(s, args)
	if err != nil {
		return err
	}
	if r.detach {
		if err := r.spec.Detach(req); err != nil {
			return &command.StatusError{Code: 1, Usage: true, Err: err}
		}
	} else if req.Tty && req.AttachStdin && !command.IsTerminal(s.In) {
		return &command.StatusError{Code: 1, Err: errNoTerminal}
	}
	keys, err := detachKeys(s, r.detachKeys, req.Tty)
	if err != nil {
		return command.Misused(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sig *signals
	if !r.detach {
		sig = watch(s, r.sigProxy, cancel)
		defer sig.stop()
	}
	id, err := r.create(ctx, s, req)
	if err != nil {
		return sig.or(startFailed(err))
	}
	if r.detach {
		if err := s.Post(ctx, path(id, "start"), nil, nil, nil); err != nil {
			return startFailed(err)
		}
		fmt.Fprintln(s.Out, id)
		return nil
	}
	a := attachment{
		s: s, id: id, tty: req.Tty, keys: keys, keyNames: r.detachKeys, sig: sig,
		stdin: req.AttachStdin, stdout: req.AttachStdout, stderr: req.AttachStderr,
		condition: "next-exit",
	}
	if req.HostConfig.AutoRemove {
		a.condition = "removed"
	}
	return a.start(ctx, removeUnstarted)
}

var errNoTerminal = errors.New(
	"the input device is not a TTY: leave -t out, or run the command in a terminal",
)

// startFailed gives an error of the requests that create and start the container its exit status.
func startFailed(err error) error {
	return &command.StatusError{Code: command.StartStatus(err.Error()), Err: err}
}
