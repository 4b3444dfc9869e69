// Package volume has the verbs of `strake volume`.
//
// Not for: the files in volumes.
//
// Tested by tables, and by the scripts of package cli against a server that plays the engine.
package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/client"
	"strake/cli/command"
	"strake/cli/format"
	"strake/cli/spec"
)

// Commands are the verbs.
func Commands() []command.Command {
	return []command.Command{create(), inspect(), list(), prune(), remove()}
}

func path(name string) string { return client.Path("volumes", name) }

// row is a line of `volume ls`: docker/cli:docs/reference/commandline/volume_ls.md, "Format the
// output".
type row struct {
	Driver     string `head:"DRIVER"`
	Labels     string `head:"LABELS"`
	Links      string `head:"LINKS"`
	Mountpoint string `head:"MOUNTPOINT"`
	Name       string `head:"VOLUME NAME"`
	Scope      string `head:"SCOPE"`
	Size       string `head:"SIZE"`

	labels map[string]string
}

// Label is the value of one label, for templates.
func (r row) Label(name string) string { return r.labels[name] }

func list() command.Command {
	return command.Command{
		Name: "ls", Aliases: []string{"list"}, Path: "volume ls", Args: "[OPTIONS]",
		Short: "List volumes",
		Setup: func(fs *pflag.FlagSet) command.Action {
			l := command.ListingFlags(
				fs, "Only display volume names", "dangling", "driver", "label", "name",
			)
			return func(ctx context.Context, s *command.Session, _ []string) error {
				filters, err := l.Filters()
				if err != nil {
					return err
				}
				var v api.Volumes
				if err := s.Get(
					ctx, "/volumes", command.Query("filters", filters), &v,
				); err != nil {
					return err
				}
				for _, w := range v.Warnings {
					s.Warn(w)
				}
				rows := make([]row, len(v.Volumes))
				for i, v := range v.Volumes {
					rows[i] = row{
						Driver: v.Driver, Labels: command.Joined(v.Labels), Links: "N/A",
						Mountpoint: v.Mountpoint, Name: v.Name, Scope: v.Scope,
						Size: "N/A", labels: v.Labels,
					}
					if u := v.UsageData; u != nil {
						rows[i].Links, rows[i].Size = strconv.FormatInt(
							u.RefCount, 10,
						), format.Size(u.Size, 3)
					}
				}
				command.SortBy(rows, func(r row) string { return r.Name })
				return command.Show(s, l, "Name", "Driver Name", rows)
			}
		},
	}
}

func create() command.Command {
	return command.Command{
		Name: "create", Path: "volume create", Args: "[OPTIONS] [VOLUME]", Short: "Create a volume",
		Min: 0, Max: 1,
		Setup: func(fs *pflag.FlagSet) command.Action {
			driver := fs.StringP("driver", "d", "local", "Specify volume driver name")
			name := fs.String("name", "", "Specify volume name")
			fs.Lookup("name").Hidden = true
			options := fs.StringArrayP("opt", "o", nil, "Set driver specific options")
			labels := fs.StringArray("label", nil, "Set metadata for a volume")
			return func(ctx context.Context, s *command.Session, args []string) error {
				if len(args) == 1 {
					if *name != "" {
						return command.Misused(
							errors.New("conflicting options: cannot specify a volume-name " +
								"through both --name and as a positional arg"),
						)
					}
					*name = args[0]
				}
				r := api.VolumeCreate{Name: *name, Driver: *driver}
				var err error
				if r.DriverOpts, err = spec.Pairs("opt", *options); err != nil {
					return command.Misused(err)
				}
				if r.Labels, err = spec.Labels(*labels); err != nil {
					return command.Misused(err)
				}
				var v api.Volume
				if err := s.Post(ctx, "/volumes/create", nil, r, &v); err != nil {
					return err
				}
				fmt.Fprintln(s.Out, v.Name)
				return nil
			}
		},
	}
}

func inspect() command.Command {
	return command.Command{
		Name: "inspect", Path: "volume inspect", Args: "[OPTIONS] VOLUME [VOLUME...]",
		Short: "Display detailed information on one or more volumes",
		Min:   1, Max: -1, Complete: []command.Kind{command.Volumes},
		Setup: func(fs *pflag.FlagSet) command.Action {
			text := fs.StringP("format", "f", "", "Format output: 'json' or a Go template")
			return func(ctx context.Context, s *command.Session, args []string) error {
				get := func(name string) (raw json.RawMessage, err error) {
					err = s.Get(ctx, path(name), nil, &raw)
					return raw, err
				}
				return command.InspectEach(s, *text, args, get)
			}
		},
	}
}

func remove() command.Command {
	return command.Command{
		Name: "rm", Aliases: []string{"remove"}, Path: "volume rm",
		Args: "[OPTIONS] VOLUME [VOLUME...]", Short: "Remove one or more volumes",
		Min: 1, Max: -1, Complete: []command.Kind{command.Volumes},
		Setup: func(fs *pflag.FlagSet) command.Action {
			force := fs.BoolP("force", "f", false, "Force the removal of one or more volumes")
			return func(ctx context.Context, s *command.Session, args []string) error {
				return command.Each(s, args, func(name string) error {
					return s.Delete(
						ctx, path(name), command.Query("force", command.If(*force)), nil,
					)
				})
			}
		},
	}
}

func prune() command.Command {
	return command.Command{
		Name: "prune", Path: "volume prune", Args: "[OPTIONS]",
		Short: "Remove unused local volumes",
		Setup: func(fs *pflag.FlagSet) command.Action {
			all := fs.BoolP("all", "a", false, "Remove all unused volumes, not just anonymous ones")
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			filters := fs.StringArray("filter", nil, `Provide filter values (e.g. "label=<label>")`)
			return func(ctx context.Context, s *command.Session, _ []string) error {
				given, what := *filters, "anonymous local volumes"
				if *all {
					given, what = append(given, "all=true"), "local volumes"
				}
				filter, err := command.Filters(given)
				if err != nil {
					return err
				}
				if !*force {
					fmt.Fprintf(
						s.Err, "WARNING! This will remove %s not used by at least one container.\n",
						what,
					)
					if ok, err := s.Confirm("Are you sure you want to continue?"); err != nil ||
						!ok {
						return err
					}
				}
				var p api.Pruned
				if err := s.Post(
					ctx, "/volumes/prune", command.Query("filters", filter), nil, &p,
				); err != nil {
					return err
				}
				if len(p.VolumesDeleted) > 0 {
					fmt.Fprintf(
						s.Out, "Deleted Volumes:\n%s\n\n", strings.Join(p.VolumesDeleted, "\n"),
					)
				}
				fmt.Fprintln(s.Out, "Total reclaimed space:", format.Size(p.SpaceReclaimed, 4))
				return nil
			}
		},
	}
}
