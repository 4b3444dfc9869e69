package container

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sort"
	"strings"

	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/client"
	"strake/cli/command"
	"strake/cli/format"
)

// Inspect is `strake container inspect`.
func Inspect() command.Command {
	return command.Command{
		Name: "inspect", Path: "container inspect", Args: "[OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Display detailed information on one or more containers",
		Min:   1, Max: -1, Complete: []command.Kind{command.Containers},
		Setup: func(fs *pflag.FlagSet) command.Action {
			text := fs.StringP("format", "f", "", "Format output: 'json' or a Go template")
			size := fs.BoolP("size", "s", false, "Display total file sizes")
			return func(ctx context.Context, s *command.Session, args []string) error {
				get := func(name string) (raw json.RawMessage, err error) {
					err = s.Get(
						ctx, path(name, "json"), command.Query("size", command.If(*size)), &raw,
					)
					return raw, err
				}
				return command.InspectEach(s, *text, args, get)
			}
		},
	}
}

// Logs is `strake logs`.
func Logs() command.Command {
	return command.Command{
		Name: "logs", Path: "container logs", Args: "[OPTIONS] CONTAINER",
		Short: "Fetch the logs of a container", Min: 1, Max: 1,
		Complete: []command.Kind{command.Containers},
		Setup: func(fs *pflag.FlagSet) command.Action {
			follow := fs.BoolP("follow", "f", false, "Follow log output")
			since := fs.String(
				"since", "",
				`Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" `+
					`for 42 minutes)`,
			)
			until := fs.String(
				"until", "",
				`Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. `+
					`"42m" for 42 minutes)`,
			)
			tail := fs.StringP(
				"tail", "n", "all", "Number of lines to show from the end of the logs",
			)
			stamps := fs.BoolP("timestamps", "t", false, "Show timestamps")
			details := fs.Bool("details", false, "Show extra details provided to logs")
			return func(ctx context.Context, s *command.Session, args []string) error {
				from, err := command.Timestamp(*since, s.Now())
				if err != nil {
					return command.Misused(fmt.Errorf("--since: %w", err))
				}
				to, err := command.Timestamp(*until, s.Now())
				if err != nil {
					return command.Misused(fmt.Errorf("--until: %w", err))
				}
				resp, err := s.Do(ctx, client.Request{Method: "GET", Path: path(
					args[0], "logs",
				), Query: command.Query(
					"stdout", "1", "stderr", "1", "follow", command.If(*follow), "timestamps",
					command.If(*stamps), "details", command.If(*details),
					"since", from, "until", to, "tail", *tail)})
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				tty := resp.Header.Get("Content-Type") == client.RawStream
				if tty && olderThan(resp.Header.Get("Api-Version"), 42) {
					// Such an engine names one type for both.
					var c api.ContainerState
					if err := s.Get(ctx, path(args[0], "json"), nil, &c); err != nil {
						return err
					}
					tty = c.Config.Tty
				}
				if tty {
					_, err = io.Copy(s.Out, resp.Body)
					return err
				}
				return client.Demux(s.Out, s.Err, resp.Body)
			}
		},
	}
}

// olderThan says whether a version of the API is below 1.MINOR. An engine that does not say is old.
func olderThan(version string, minor int) bool {
	var got int
	_, err := fmt.Sscanf(version, "1.%d", &got)
	return err != nil || got < minor
}

// Top is `strake top`.
func Top() command.Command {
	return command.Command{
		Name: "top", Path: "container top", Args: "CONTAINER [ps OPTIONS]",
		Short: "Display the running processes of a container", Min: 1, Max: -1,
		Complete: []command.Kind{command.Running, command.Nothing},
		Setup: func(fs *pflag.FlagSet) command.Action {
			fs.SetInterspersed(false)
			return func(ctx context.Context, s *command.Session, args []string) error {
				var t api.Top
				if err := s.Get(
					ctx, path(args[0], "top"),
					command.Query("ps_args", strings.Join(args[1:], " ")), &t,
				); err != nil {
					return err
				}
				w := format.Table(s.Out)
				fmt.Fprintln(w, strings.Join(t.Titles, "\t"))
				for _, p := range t.Processes {
					fmt.Fprintln(w, strings.Join(p, "\t"))
				}
				return w.Flush()
			}
		},
	}
}

// Diff is `strake diff`.
func Diff() command.Command {
	return command.Command{
		Name: "diff", Path: "container diff", Args: "CONTAINER",
		Short: "Inspect changes to files or directories on a container's filesystem",
		Min:   1, Max: 1, Complete: []command.Kind{command.Containers},
		Setup: func(*pflag.FlagSet) command.Action {
			return func(ctx context.Context, s *command.Session, args []string) error {
				var changes []api.Change
				if err := s.Get(ctx, path(args[0], "changes"), nil, &changes); err != nil {
					return err
				}
				for _, c := range changes {
					if c.Kind < 0 || c.Kind > 2 {
						return fmt.Errorf("%s: change of unknown kind %d", c.Path, c.Kind)
					}
					fmt.Fprintf(s.Out, "%c %s\n", "CAD"[c.Kind], c.Path)
				}
				return nil
			}
		},
	}
}

// Port is `strake port`.
func Port() command.Command {
	return command.Command{
		Name: "port", Path: "container port", Args: "CONTAINER [PRIVATE_PORT[/PROTO]]", Min: 1,
		Max:      2,
		Short:    "List port mappings or a specific mapping for the container",
		Complete: []command.Kind{command.Running, command.Nothing},
		Setup: func(*pflag.FlagSet) command.Action {
			return func(ctx context.Context, s *command.Session, args []string) error {
				var c api.ContainerState
				if err := s.Get(ctx, path(args[0], "json"), nil, &c); err != nil {
					return err
				}
				ports := c.NetworkSettings.Ports
				if len(args) == 2 {
					port := args[1]
					if !strings.Contains(port, "/") {
						port += "/tcp"
					}
					if len(ports[port]) == 0 {
						return fmt.Errorf("no public port '%s' published for %s", args[1], args[0])
					}
					for _, b := range ports[port] {
						fmt.Fprintln(s.Out, net.JoinHostPort(b.HostIP, b.HostPort))
					}
					return nil
				}
				var lines []string
				for port, bindings := range ports {
					for _, b := range bindings {
						lines = append(lines, port+" -> "+net.JoinHostPort(b.HostIP, b.HostPort))
					}
				}
				sort.Strings(lines)
				for _, l := range lines {
					fmt.Fprintln(s.Out, l)
				}
				return nil
			}
		},
	}
}
