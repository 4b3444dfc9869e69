// Package system has the verbs that concern the engine as a whole: version, info, df, events,
// inspect of anything, login and logout, uninstall, and handing over to strake-runtime.
//
// Not for: starting the engine (launch).
//
// Tested by tables, by the scripts of package cli against a server that plays the engine, and with
// directories in the place of the host's.
package system

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/command"
	"strake/cli/format"
)

// Commands are the verbs of `strake system`.
func Commands() []command.Command {
	return []command.Command{DiskUsage(), Events(), Info(), Prune(), Uninstall()}
}

type clientVersion struct {
	Version    string
	APIVersion string `json:"ApiVersion"`
	GitCommit  string
	GoVersion  string
	Os         string
	Arch       string
}

// newest is the newest version of the API whose answers the commands know.
const newest = "1.51"

// Version is `strake version`. It works without an engine, which it neither needs nor starts.
func Version() command.Command {
	return command.Command{
		Name: "version", Path: "version", Args: "[OPTIONS]", Short: "Show the version information",
		Group: command.Common,
		Setup: func(fs *pflag.FlagSet) command.Action {
			text := fs.StringP("format", "f", "", "Format output: 'json' or a Go template")
			output := fs.StringP("output", "o", "", "Output form: 'json'")
			client := fs.Bool("client", false, "Only what this program is; the engine is not asked")
			return func(ctx context.Context, s *command.Session, _ []string) error {
				s.NoStart = true
				if *output != "" && *output != "json" {
					return command.Misused(fmt.Errorf("--output %q: want json", *output))
				}
				if *output == "json" {
					*text = "json"
				}
				v := struct {
					Client clientVersion
					Server *api.Version
				}{
					Client: clientVersion{
						s.Version, newest, s.Commit, runtime.Version(), runtime.GOOS,
						runtime.GOARCH,
					},
				}
				var err error
				if !*client {
					var server api.Version
					if err = s.Get(ctx, "/version", nil, &server); err == nil {
						v.Server = &server
					}
				}
				if *text == "" {
					printVersion(s.Out, &v.Client, v.Server)
					return err
				}
				raw, merr := json.Marshal(v)
				if merr != nil {
					return merr
				}
				if ferr := format.Object(s.Out, *text, raw); ferr != nil {
					if err != nil {
						return err // what the template misses is what the engine did not say
					}
					return ferr
				}
				return err
			}
		},
	}
}

func printVersion(w io.Writer, c *clientVersion, server *api.Version) {
	t := format.Table(w)
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(t, " %s:\t%s\n", key, value)
		}
	}
	fmt.Fprintln(t, "Client: strake")
	line("Version", c.Version)
	line("API version", c.APIVersion)
	line("Go version", c.GoVersion)
	line("Git commit", c.GitCommit)
	line("OS/Arch", c.Os+"/"+c.Arch)
	if server != nil {
		fmt.Fprintln(t)
		fmt.Fprintln(t, "Server:", server.Platform.Name)
		for _, p := range server.Components {
			fmt.Fprintf(t, " %s:\n", p.Name)
			fmt.Fprintf(t, "  Version:\t%s\n", p.Version)
			for _, d := range [][2]string{
				{"ApiVersion", "API version"}, {"MinAPIVersion", "Minimum API version"},
				{"GoVersion", "Go version"}, {"GitCommit", "Git commit"},
				{"KernelVersion", "Kernel"},
			} {
				if v := p.Details[d[0]]; v != "" {
					fmt.Fprintf(t, "  %s:\t%s\n", d[1], v)
				}
			}
		}
		if len(server.Components) == 0 {
			line("Version", server.Version)
			line("API version", server.APIVersion)
			line("Git commit", server.GitCommit)
			line("OS/Arch", server.Os+"/"+server.Arch)
			line("Kernel", server.KernelVersion)
		}
	}
	t.Flush()
}

// Info is `strake info`.
func Info() command.Command {
	return command.Command{
		Name: "info", Path: "system info", Args: "[OPTIONS]",
		Short: "Display system-wide information", Group: command.Common,
		Setup: func(fs *pflag.FlagSet) command.Action {
			text := fs.StringP("format", "f", "", "Format output: 'json' or a Go template")
			output := fs.StringP("output", "o", "", "Output form: 'json'")
			return func(ctx context.Context, s *command.Session, _ []string) error {
				if *output != "" && *output != "json" {
					return command.Misused(fmt.Errorf("--output %q: want json", *output))
				}
				var raw json.RawMessage
				if err := s.Get(ctx, "/info", nil, &raw); err != nil {
					return err
				}
				if *output == "json" {
					*text = "json"
				}
				if *text != "" {
					return format.Object(s.Out, *text, raw)
				}
				return printInfo(s, raw)
			}
		},
	}
}

// engineInfo is what `info` shows of GET /info.
type engineInfo struct {
	Containers, ContainersRunning, ContainersPaused, ContainersStopped int

	Images int

	ServerVersion, Driver, LoggingDriver, CgroupDriver, CgroupVersion string

	DriverStatus    [][2]string
	Plugins         struct{ Volume, Network, Log []string }
	Runtimes        map[string]json.RawMessage
	DefaultRuntime  string
	SecurityOptions []string

	KernelVersion, OperatingSystem, OSType, Architecture, Name, ID string

	DockerRootDir string
	HTTPProxy     string `json:"HttpProxy"`
	HTTPSProxy    string `json:"HttpsProxy"`
	NoProxy       string
	NCPU          int
	MemTotal      int64

	Debug, LiveRestoreEnabled bool

	RegistryConfig struct {
		InsecureRegistryCIDRs []string
		IndexConfigs          map[string]struct{ Secure bool }
		Mirrors               []string
	}
	Warnings []string
}

func printInfo(s *command.Session, raw json.RawMessage) error {
	var i engineInfo
	if err := json.Unmarshal(raw, &i); err != nil {
		return fmt.Errorf("decode the engine's answer: %w", err)
	}
	var b strings.Builder
	line := func(indent int, key string, value any) {
		if v := fmt.Sprint(value); v != "" {
			fmt.Fprintf(&b, "%s%s: %s\n", strings.Repeat(" ", indent), key, v)
		}
	}
	b.WriteString("Client: strake\n")
	line(1, "Version", s.Version)
	line(1, "Host", s.Host)
	b.WriteString("\nServer:\n")
	line(1, "Containers", i.Containers)
	line(2, "Running", i.ContainersRunning)
	line(2, "Paused", i.ContainersPaused)
	line(2, "Stopped", i.ContainersStopped)
	line(1, "Images", i.Images)
	line(1, "Server Version", i.ServerVersion)
	line(1, "Storage Driver", i.Driver)
	for _, d := range i.DriverStatus {
		line(2, d[0], d[1])
	}
	line(1, "Logging Driver", i.LoggingDriver)
	line(1, "Cgroup Driver", i.CgroupDriver)
	line(1, "Cgroup Version", i.CgroupVersion)
	line(1, "Volume drivers", strings.Join(i.Plugins.Volume, " "))
	line(1, "Network drivers", strings.Join(i.Plugins.Network, " "))
	line(1, "Log drivers", strings.Join(i.Plugins.Log, " "))
	line(1, "Default Runtime", i.DefaultRuntime)
	for _, o := range i.SecurityOptions {
		line(1, "Security Option", o)
	}
	line(1, "Kernel Version", i.KernelVersion)
	line(1, "Operating System", i.OperatingSystem)
	line(1, "OSType", i.OSType)
	line(1, "Architecture", i.Architecture)
	line(1, "CPUs", i.NCPU)
	line(1, "Total Memory", format.BinarySize(float64(i.MemTotal)))
	line(1, "Name", i.Name)
	line(1, "ID", i.ID)
	line(1, "Root Dir", i.DockerRootDir)
	line(1, "HTTP Proxy", i.HTTPProxy)
	line(1, "HTTPS Proxy", i.HTTPSProxy)
	line(1, "No Proxy", i.NoProxy)
	line(1, "Live Restore Enabled", i.LiveRestoreEnabled)
	line(1, "Insecure Registries", strings.Join(i.RegistryConfig.InsecureRegistryCIDRs, " "))
	line(1, "Registry Mirrors", strings.Join(i.RegistryConfig.Mirrors, " "))
	if _, err := io.WriteString(s.Out, b.String()); err != nil {
		return err
	}
	for _, w := range i.Warnings {
		fmt.Fprintln(s.Err, strings.TrimSpace(w))
	}
	return nil
}

// Inspect is `strake inspect`: of whatever has the name, in Docker's order.
func Inspect() command.Command {
	return command.Command{
		Name: "inspect", Path: "inspect", Args: "[OPTIONS] NAME|ID [NAME|ID...]",
		Short: "Return low-level information on strake objects", Min: 1, Max: -1,
		Complete: []command.Kind{command.Any},
		Setup: func(fs *pflag.FlagSet) command.Action {
			text := fs.StringP("format", "f", "", "Format output: 'json' or a Go template")
			kind := fs.String(
				"type", "",
				"Only inspect objects of the given type: container, image, network or volume",
			)
			size := fs.BoolP(
				"size", "s", false, "Display total file sizes if the type is container",
			)
			command.CompleteFlag(fs, "type", "container", "image", "network", "volume")
			return func(ctx context.Context, s *command.Session, args []string) error {
				places, err := placesOf(*kind)
				if err != nil {
					return err
				}
				get := func(name string) (json.RawMessage, error) {
					return inspectAny(ctx, s, places, *kind, name, *size)
				}
				return command.InspectEach(s, *text, args, get)
			}
		},
	}
}
