package system

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"strake/cli/command"
	"strake/cli/launch"
)

// Runtime is `strake runtime`: strake-runtime in the place of this program.
func Runtime() command.Command {
	return handOver(
		"runtime", "Run OCI containers without the engine (strake-runtime)", "strake-runtime",
	)
}

// LXC is `strake lxc`: strake-lxc in the place of this program.
func LXC() command.Command {
	return handOver(
		"lxc", "Run system containers as LXC does, without the engine (strake-lxc)", "strake-lxc",
		"lxc",
	)
}

// Lmctfy is `strake lmctfy`: strake-lxc in the place of this program.
func Lmctfy() command.Command {
	return handOver(
		"lmctfy", "Isolate resources without an image, as lmctfy does (strake-lxc)", "strake-lxc",
		"lmctfy",
	)
}

// handOver is a command that another program carries out: it is executed in the place of this one,
// with words in front of the arguments.
func handOver(name, short, program string, words ...string) command.Command {
	return command.Command{
		Name: name, Path: name, Args: "[ARG...]", Short: short, Group: command.Management,
		Min: 0, Max: -1, Passthrough: true,
		Setup: func(*pflag.FlagSet) command.Action {
			return func(_ context.Context, s *command.Session, args []string) error {
				file, err := launch.Find(program, s.Executable, s.Getenv("PATH"))
				if err != nil {
					return err
				}
				argv := append(append([]string{file}, words...), args...)
				if err := s.Exec(file, argv, s.Environ); err != nil {
					return fmt.Errorf("execute %q: %w", file, err)
				}
				return nil
			}
		},
	}
}
