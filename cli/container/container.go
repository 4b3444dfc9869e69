// Package container has the verbs that work on containers: run, ps, logs, exec and the rest.
//
// Promises:
//
//   - Flags, output and exit statuses are Docker's (docker/cli:docs/reference/run.md, "Exit
//     status").
//   - `run` makes four requests.
//   - The terminal has its old settings again however the command ends.
//   - A container whose start this command gave up, because of an interrupt, is removed.
//
// Not for: what flags mean in a request (spec), or images (image).
//
// Tested by tables of what is shown, by the scripts of package cli against a server that plays the
// engine, and by the engine's integration tests.
package container

import (
	"context"

	"github.com/spf13/pflag"

	"strake/cli/client"
	"strake/cli/command"
)

// Commands are the verbs of `strake container`, under the names they have there.
func Commands() []command.Command {
	return []command.Command{
		Attach(), Create(), Diff(), Exec(), Inspect(), Kill(), Logs(), List("ls"), Pause(), Port(),
		Prune(), Remove(), Rename(), Restart(), Run(),
		Start(), Stats(), Stop(), Top(), Unpause(), Update(), Wait(),
	}
}

// path is the path of a container's endpoint.
func path(name string, more ...string) string {
	return client.Path(append([]string{"containers", name}, more...)...)
}

// forOne does what a verb is for with one container.
type forOne = func(ctx context.Context, s *command.Session, container string) error

// each makes a verb that does one request for every container. setup declares its flags.
func each(
	name, short string, complete command.Kind, setup func(fs *pflag.FlagSet) forOne,
) command.Command {
	return command.Command{
		Name: name, Path: "container " + name, Args: "[OPTIONS] CONTAINER [CONTAINER...]",
		Short: short, Min: 1, Max: -1,
		Complete: []command.Kind{complete},
		Setup: func(fs *pflag.FlagSet) command.Action {
			do := setup(fs)
			return func(ctx context.Context, s *command.Session, args []string) error {
				return command.Each(s, args, func(c string) error { return do(ctx, s, c) })
			}
		},
	}
}
