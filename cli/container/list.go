package container

import (
	"context"
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/command"
	"strake/cli/format"
)

// row is a line of `ps`: docker/cli:docs/reference/commandline/container_ls.md, "Format the
// output".
type row struct {
	Command      string `head:"COMMAND"`
	CreatedAt    string `head:"CREATED AT"`
	ID           string `head:"CONTAINER ID"`
	Image        string `head:"IMAGE"`
	Labels       string `head:"LABELS"`
	LocalVolumes string `head:"LOCAL VOLUMES"`
	Mounts       string `head:"MOUNTS"`
	Names        string `head:"NAMES"`
	Networks     string `head:"NETWORKS"`
	Ports        string `head:"PORTS"`
	RunningFor   string `head:"CREATED"`
	Size         string `head:"SIZE"`
	State        string `head:"STATE"`
	Status       string `head:"STATUS"`

	labels  map[string]string
	heading bool
}

// Label is the value of one label, for templates.
func (r row) Label(name string) string {
	if r.heading {
		i := strings.LastIndexAny(name, "./")
		return strings.ToUpper(strings.NewReplacer("-", " ", "_", " ").Replace(name[i+1:]))
	}
	return r.labels[name]
}

// Heading is the row above all others.
func (r row) Heading() any {
	r.heading = true
	return r
}

// List is `strake ps`, under the name given.
func List(name string) command.Command {
	c := command.Command{
		Name: name, Path: "container " + name, Args: "[OPTIONS]", Short: "List containers",
		Setup: func(fs *pflag.FlagSet) command.Action {
			l := &listFlags{Listing: command.ListingFlags(
				fs, "Only display container IDs", "ancestor", "before", "expose", "exited",
				"health", "id", "is-task", "label", "name", "network", "publish", "since", "status",
				"volume",
			)}
			fs.BoolVarP(
				&l.all, "all", "a", false, "Show all containers (default shows just running)",
			)
			fs.IntVarP(
				&l.last, "last", "n", -1, "Show n last created containers (includes all states)",
			)
			fs.BoolVarP(
				&l.latest, "latest", "l", false,
				"Show the latest created container (includes all states)",
			)
			fs.BoolVarP(&l.size, "size", "s", false, "Display total file sizes")
			return l.run
		},
	}
	if name == "ls" {
		c.Aliases = []string{"ps", "list"}
	} else {
		c.Path, c.Group = "ps", command.Common
	}
	return c
}

type listFlags struct {
	*command.Listing
	all, latest, size bool
	last              int
}

func (l *listFlags) run(ctx context.Context, s *command.Session, _ []string) error {
	filters, err := l.Filters()
	if err != nil {
		return err
	}
	if l.latest && l.last == -1 {
		l.last = 1
	}
	limit := ""
	if l.last > 0 {
		limit = strconv.Itoa(l.last)
	}
	// The engine measures sizes only if it is asked to.
	size := l.size || !l.Quiet && strings.Contains(l.Format, ".Size")
	var list []api.Container
	if err := s.Get(
		ctx, "/containers/json",
		command.Query(
			"all", command.If(l.all), "limit", limit, "size", command.If(size), "filters", filters,
		),
		&list,
	); err != nil {
		return err
	}
	rows := make([]row, 0, len(list))
	for i := range list {
		rows = append(rows, containerRow(&list[i], l.Listing, s.Now()))
	}
	columns := "ID Image Command RunningFor Status Ports Names"
	if l.size {
		columns += " Size"
	}
	return command.Show(s, l.Listing, "ID", columns, rows)
}

func containerRow(c *api.Container, l *command.Listing, now time.Time) row {
	r := row{
		ID: l.ID(c.ID), Image: c.Image, State: c.State, Status: c.Status, Ports: portList(c.Ports),
		labels:     c.Labels,
		CreatedAt:  time.Unix(c.Created, 0).String(),
		RunningFor: format.Duration(now.Sub(time.Unix(c.Created, 0))) + " ago",
		Labels:     command.Joined(c.Labels), Size: format.Size(c.SizeRw, 3),
	}
	if c.SizeRootFs > 0 {
		r.Size += " (virtual " + format.Size(c.SizeRootFs, 3) + ")"
	}
	if c.Image == "" {
		r.Image = "<no image>"
	}
	if !l.NoTrunc && strings.HasPrefix(c.Image, "sha256:") {
		r.Image = format.ShortID(c.Image)
	}
	line := c.Command
	var names []string
	for _, n := range c.Names {
		n = strings.TrimPrefix(n, "/")
		if l.NoTrunc || !strings.Contains(n, "/") {
			names = append(names, n)
		}
	}
	var mounts []string
	local := 0
	for _, m := range c.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if m.Type == "volume" {
			local++
		}
		if !l.NoTrunc {
			name = format.Ellipsis(name, 15)
		}
		mounts = append(mounts, name)
	}
	if !l.NoTrunc {
		line = format.Ellipsis(line, 20)
	}
	networks := make([]string, 0, len(c.NetworkSettings.Networks))
	for n := range c.NetworkSettings.Networks {
		networks = append(networks, n)
	}
	sort.Strings(networks)
	r.Command, r.Names = strconv.Quote(line), strings.Join(names, ",")
	r.Mounts, r.Networks = strings.Join(mounts, ","), strings.Join(networks, ",")
	r.LocalVolumes = strconv.Itoa(local)
	return r
}

// portList shows ports, neighbours as ranges: "0.0.0.0:80-81->80-81/tcp, 443/tcp".
func portList(ports []api.Port) string {
	sort.Slice(ports, func(i, j int) bool {
		a, b := ports[i], ports[j]
		if a.Type != b.Type {
			return a.Type < b.Type
		}
		if a.PrivatePort != b.PrivatePort {
			return a.PrivatePort < b.PrivatePort
		}
		if a.IP != b.IP {
			return a.IP < b.IP
		}
		return a.PublicPort < b.PublicPort
	})
	type span struct {
		api.Port
		length uint16 // beyond the first
	}
	var spans []span
next:
	for _, p := range ports {
		for i := range spans {
			s := &spans[i]
			sameShift := p.PublicPort == 0 && s.PublicPort == 0 || p.PublicPort != 0 &&
				s.PublicPort != 0 && p.PublicPort-p.PrivatePort == s.PublicPort-s.PrivatePort
			if p.Type == s.Type && p.IP == s.IP && sameShift &&
				p.PrivatePort == s.PrivatePort+s.length+1 {
				s.length++
				continue next
			}
		}
		spans = append(spans, span{Port: p})
	}
	number := func(first, length uint16) string {
		if length == 0 {
			return strconv.Itoa(int(first))
		}
		return fmt.Sprintf("%d-%d", first, first+length)
	}
	out := make([]string, len(spans))
	for i, s := range spans {
		out[i] = number(s.PrivatePort, s.length) + "/" + s.Type
		if s.PublicPort != 0 {
			host := net.JoinHostPort(s.IP, number(s.PublicPort, s.length))
			if s.IP == "" {
				host = number(s.PublicPort, s.length)
			}
			out[i] = host + "->" + out[i]
		}
	}
	return strings.Join(out, ", ")
}
