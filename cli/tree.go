package cli

import (
	"context"

	"github.com/spf13/pflag"

	"strake/cli/command"
	"strake/cli/container"
	"strake/cli/image"
	"strake/cli/network"
	"strake/cli/system"
	"strake/cli/volume"
)

// tree is every verb, in the order of help. Values only: flags and the lists below nouns are made
// for the chosen one.
func tree() []command.Command {
	list := []command.Command{
		container.Run(), container.Exec(), container.List("ps"), image.Pull(), image.Push(),
		image.List("images"),
		system.Login(), system.Logout(), system.Version(), system.Info(),
		{
			Name: "container", Short: "Manage containers", Group: command.Management,
			Sub: container.Commands,
		},
		{Name: "image", Short: "Manage images", Group: command.Management, Sub: image.Commands},
		{
			Name: "network", Short: "Manage networks", Group: command.Management,
			Sub: network.Commands,
		},
		{Name: "volume", Short: "Manage volumes", Group: command.Management, Sub: volume.Commands},
		{Name: "system", Short: "Manage strake", Group: command.Management, Sub: system.Commands},
		system.Lmctfy(), system.LXC(),
		system.Runtime(),
		container.Attach(), container.Create(), container.Diff(), system.Events(), image.History(),
		image.Import(), system.Inspect(),
		container.Kill(), image.Load(), container.Logs(), container.Pause(), container.Port(),
		container.Rename(), container.Restart(),
		container.Remove(), image.Remove("rmi"), image.Save(), container.Start(), container.Stats(),
		container.Stop(), image.Tag(),
		container.Top(), container.Unpause(), container.Update(), container.Wait(), completion(),
	}
	for i := range list {
		list[i].Aliases = topAliases(list[i])
	}
	return list
}

// topAliases are those that a verb has without its noun: "strake remove" could be of anything.
func topAliases(c command.Command) []string {
	if c.Sub != nil {
		return c.Aliases
	}
	return nil
}

// completion is `strake completion`.
func completion() command.Command {
	return command.Command{
		Name: "completion", Path: "completion", Args: "bash|zsh|fish|powershell", Min: 1, Max: 1,
		Short: "Generate the autocompletion script for the specified shell",
		Setup: func(fs *pflag.FlagSet) command.Action {
			return func(_ context.Context, s *command.Session, args []string) error {
				return writeCompletion(s.Out, args[0])
			}
		},
	}
}
