package container

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/command"
	"strake/cli/flagvalue"
	"strake/cli/format"
	"strake/cli/spec"
)

// Start is `strake start`.
func Start() command.Command {
	return command.Command{
		Name: "start", Path: "container start", Args: "[OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Start one or more stopped containers",
		Min:   1, Max: -1, Complete: []command.Kind{command.Stopped},
		Setup: func(fs *pflag.FlagSet) command.Action {
			attach := fs.BoolP("attach", "a", false, "Attach STDOUT/STDERR and forward signals")
			stdin := fs.BoolP("interactive", "i", false, "Attach container's STDIN")
			keyNames := fs.String(
				"detach-keys", "", "Override the key sequence for detaching a container",
			)
			return func(ctx context.Context, s *command.Session, args []string) error {
				if *attach || *stdin {
					if len(args) > 1 {
						return command.Misused(
							errors.New("you cannot start and attach multiple containers at once"),
						)
					}
					return startAttached(ctx, s, args[0], *stdin, *keyNames)
				}
				return command.Each(s, args, func(c string) error {
					return s.Post(ctx, path(c, "start"), nil, nil, nil)
				})
			}
		},
	}
}

func startAttached(
	ctx context.Context, s *command.Session, name string, stdin bool, keyNames string,
) error {
	var c api.ContainerState
	if err := s.Get(ctx, path(name, "json"), nil, &c); err != nil {
		return err
	}
	stdin = stdin && c.Config.OpenStdin
	if c.Config.Tty && stdin && !command.IsTerminal(s.In) {
		return errNoTerminal
	}
	keys, err := detachKeys(s, keyNames, c.Config.Tty)
	if err != nil {
		return command.Misused(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := attachment{
		s: s, id: c.ID, tty: c.Config.Tty, stdin: stdin, stdout: true, stderr: true, keys: keys,
		keyNames: keyNames, condition: "next-exit",
		sig: watch(s, true, cancel),
	}
	defer a.sig.stop()
	if c.HostConfig.AutoRemove {
		a.condition = "removed"
	}
	return a.start(ctx, keepUnstarted)
}

func stopFlags(fs *pflag.FlagSet) (signal *string, seconds func() string) {
	signal = fs.StringP("signal", "s", "", "Signal to send to the container")
	t := fs.IntP("timeout", "t", 0, "Seconds to wait before killing the container (-1: forever)")
	fs.IntVar(t, "time", 0, "Seconds to wait before killing the container")
	fs.Lookup("time").Hidden = true
	command.CompleteFlag(fs, "signal", signalNames()...)
	return signal, func() string {
		if fs.Changed("timeout") || fs.Changed("time") {
			return strconv.Itoa(*t)
		}
		return ""
	}
}

// Stop is `strake stop`.
func Stop() command.Command {
	return stopping("stop", "Stop one or more running containers", command.Running)
}

// Restart is `strake restart`.
func Restart() command.Command {
	return stopping("restart", "Restart one or more containers", command.Containers)
}

func stopping(verb, short string, complete command.Kind) command.Command {
	return each(verb, short, complete, func(fs *pflag.FlagSet) forOne {
		signal, seconds := stopFlags(fs)
		return func(ctx context.Context, s *command.Session, c string) error {
			return s.Post(
				ctx, path(c, verb), command.Query("signal", *signal, "t", seconds()), nil, nil,
			)
		}
	})
}

// Kill is `strake kill`.
func Kill() command.Command {
	setup := func(fs *pflag.FlagSet) forOne {
		signal := fs.StringP("signal", "s", "", "Signal to send to the container")
		command.CompleteFlag(fs, "signal", signalNames()...)
		return func(ctx context.Context, s *command.Session, c string) error {
			return s.Post(ctx, path(c, "kill"), command.Query("signal", *signal), nil, nil)
		}
	}
	return each("kill", "Kill one or more running containers", command.Running, setup)
}

// Pause is `strake pause`.
func Pause() command.Command {
	return simple("pause", "Pause all processes within one or more containers")
}

// Unpause is `strake unpause`.
func Unpause() command.Command {
	return simple("unpause", "Unpause all processes within one or more containers")
}

func simple(verb, short string) command.Command {
	return each(verb, short, command.Running, func(*pflag.FlagSet) forOne {
		return func(ctx context.Context, s *command.Session, c string) error {
			return s.Post(ctx, path(c, verb), nil, nil, nil)
		}
	})
}

// Remove is `strake rm`.
func Remove() command.Command {
	setup := func(fs *pflag.FlagSet) forOne {
		force := fs.BoolP(
			"force", "f", false, "Force the removal of a running container (uses SIGKILL)",
		)
		volumes := fs.BoolP(
			"volumes", "v", false, "Remove anonymous volumes associated with the container",
		)
		link := fs.BoolP("link", "l", false, "Remove the specified link")
		return func(ctx context.Context, s *command.Session, c string) error {
			err := s.Delete(
				ctx, path(strings.Trim(c, "/")),
				command.Query(
					"v", command.If(*volumes), "force", command.If(*force), "link",
					command.If(*link),
				),
				nil,
			)
			if *force && errdefs.IsNotFound(err) {
				s.Tell(err)
				return command.ErrAbsent
			}
			return err
		}
	}
	c := each("rm", "Remove one or more containers", command.Containers, setup)
	c.Aliases = []string{"remove"}
	return c
}

// Rename is `strake rename`.
func Rename() command.Command {
	return command.Command{
		Name: "rename", Path: "container rename", Args: "CONTAINER NEW_NAME",
		Short: "Rename a container", Min: 2, Max: 2,
		Complete: []command.Kind{command.Containers, command.Nothing},
		Setup: func(*pflag.FlagSet) command.Action {
			return func(ctx context.Context, s *command.Session, args []string) error {
				return s.Post(
					ctx, path(args[0], "rename"), command.Query("name", args[1]), nil, nil,
				)
			}
		},
	}
}

// Wait is `strake wait`: it prints exit statuses.
func Wait() command.Command {
	return command.Command{
		Name: "wait", Path: "container wait", Args: "CONTAINER [CONTAINER...]", Min: 1, Max: -1,
		Complete: []command.Kind{command.Containers},
		Short:    "Block until one or more containers stop, then print their exit codes",
		Setup: func(*pflag.FlagSet) command.Action {
			return func(ctx context.Context, s *command.Session, args []string) error {
				failed := false
				for _, c := range args {
					var w api.Waited
					if err := s.Post(ctx, path(c, "wait"), nil, nil, &w); err != nil {
						failed = true
						s.Tell(err)
						continue
					}
					fmt.Fprintln(s.Out, w.StatusCode)
				}
				if failed {
					return command.Exit(1)
				}
				return nil
			}
		},
	}
}

// Update is `strake update`.
func Update() command.Command {
	return command.Command{
		Name: "update", Path: "container update", Args: "[OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Update configuration of one or more containers",
		Min:   1, Max: -1, Complete: []command.Kind{command.Containers},
		Setup: func(fs *pflag.FlagSet) command.Action {
			var u api.Update
			var restart string
			var pids int64
			fs.Uint16Var(
				&u.BlkioWeight, "blkio-weight", 0,
				"Block IO (relative weight), between 10 and 1000, or 0 to disable",
			)
			fs.Int64Var(
				&u.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period",
			)
			fs.Int64Var(
				&u.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota",
			)
			fs.Int64VarP(&u.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
			fs.Var(flagvalue.CPUs(&u.NanoCPUs), "cpus", "Number of CPUs")
			fs.StringVar(
				&u.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)",
			)
			fs.StringVar(
				&u.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)",
			)
			fs.VarP(flagvalue.Bytes(&u.Memory), "memory", "m", "Memory limit")
			fs.Var(flagvalue.Bytes(&u.MemoryReservation), "memory-reservation", "Memory soft limit")
			fs.Var(
				flagvalue.BytesOrUnlimited(&u.MemorySwap), "memory-swap",
				"Swap limit equal to memory plus swap: -1 to enable unlimited swap",
			)
			fs.Int64Var(&pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
			fs.StringVar(&restart, "restart", "", "Restart policy to apply when a container exits")
			command.CompleteFlag(fs, "restart", "no", "always", "unless-stopped", "on-failure")
			return func(ctx context.Context, s *command.Session, args []string) error {
				if fs.NFlag() == 0 {
					return command.Misused(
						errors.New("you must provide one or more flags when using this command"),
					)
				}
				if fs.Changed("pids-limit") {
					u.PidsLimit = &pids
				}
				if restart != "" {
					var err error
					if u.RestartPolicy, err = spec.RestartPolicy(restart); err != nil {
						return command.Misused(err)
					}
				}
				return command.Each(s, args, func(c string) error {
					var answer api.Created
					err := s.Post(ctx, path(c, "update"), nil, u, &answer)
					for _, w := range answer.Warnings {
						s.Warn(w)
					}
					return err
				})
			}
		},
	}
}

// Prune is `strake container prune`.
func Prune() command.Command {
	return command.Command{
		Name: "prune", Path: "container prune", Args: "[OPTIONS]",
		Short: "Remove all stopped containers",
		Setup: func(fs *pflag.FlagSet) command.Action {
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			filters := fs.StringArray(
				"filter", nil, `Provide filter values (e.g. "until=<timestamp>")`,
			)
			return func(ctx context.Context, s *command.Session, _ []string) error {
				filter, err := command.Filters(*filters)
				if err != nil {
					return err
				}
				if !*force {
					fmt.Fprintln(s.Err, "WARNING! This will remove all stopped containers.")
					if ok, err := s.Confirm("Are you sure you want to continue?"); err != nil ||
						!ok {
						return err
					}
				}
				var p api.Pruned
				if err := s.Post(
					ctx, "/containers/prune", command.Query("filters", filter), nil, &p,
				); err != nil {
					return err
				}
				if len(p.ContainersDeleted) > 0 {
					fmt.Fprintf(
						s.Out, "Deleted Containers:\n%s\n\n",
						strings.Join(p.ContainersDeleted, "\n"),
					)
				}
				fmt.Fprintln(s.Out, "Total reclaimed space:", format.Size(p.SpaceReclaimed, 4))
				return nil
			}
		},
	}
}
