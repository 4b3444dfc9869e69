// Package network has the verbs of `strake network`.
//
// Not for: addresses and packets, which are the engine's.
//
// Tested by tables, and by the scripts of package cli against a server that plays the engine.
package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/client"
	"strake/cli/command"
	"strake/cli/spec"
)

// Commands are the verbs.
func Commands() []command.Command {
	return []command.Command{
		connect(), create(), disconnect(), inspect(), list(), prune(), remove(),
	}
}

func path(name string, more ...string) string {
	return client.Path(append([]string{"networks", name}, more...)...)
}

// row is a line of `network ls`: docker/cli:docs/reference/commandline/network_ls.md, "Format the
// output".
type row struct {
	CreatedAt string `head:"CREATED AT"`
	Driver    string `head:"DRIVER"`
	ID        string `head:"NETWORK ID"`
	IPv4      string `head:"IPV4"`
	IPv6      string `head:"IPV6"`
	Internal  string `head:"INTERNAL"`
	Labels    string `head:"LABELS"`
	Name      string `head:"NAME"`
	Scope     string `head:"SCOPE"`

	labels map[string]string
}

// Label is the value of one label, for templates.
func (r row) Label(name string) string { return r.labels[name] }

func list() command.Command {
	return command.Command{
		Name: "ls", Aliases: []string{"list"}, Path: "network ls", Args: "[OPTIONS]",
		Short: "List networks",
		Setup: func(fs *pflag.FlagSet) command.Action {
			l := command.ListingFlags(
				fs, "Only display network IDs", "dangling", "driver", "id", "label", "name",
				"scope", "type",
			)
			return func(ctx context.Context, s *command.Session, _ []string) error {
				filters, err := l.Filters()
				if err != nil {
					return err
				}
				var nets []api.Network
				if err := s.Get(
					ctx, "/networks", command.Query("filters", filters), &nets,
				); err != nil {
					return err
				}
				rows := make([]row, len(nets))
				for i, n := range nets {
					v4 := n.EnableIPv4 == nil || *n.EnableIPv4
					rows[i] = row{
						CreatedAt: n.Created, Driver: n.Driver, ID: l.ID(n.ID),
						IPv4: fmt.Sprint(v4), IPv6: fmt.Sprint(n.EnableIPv6),
						Internal: fmt.Sprint(n.Internal), Labels: command.Joined(n.Labels),
						Name: n.Name, Scope: n.Scope, labels: n.Labels,
					}
				}
				command.SortBy(rows, func(r row) string { return r.Name })
				return command.Show(s, l, "ID", "ID Name Driver Scope", rows)
			}
		},
	}
}

func create() command.Command {
	return command.Command{
		Name: "create", Path: "network create", Args: "[OPTIONS] NETWORK",
		Short: "Create a network", Min: 1, Max: 1,
		Setup: func(fs *pflag.FlagSet) command.Action {
			var f createFlags
			fs.StringVarP(&f.driver, "driver", "d", "bridge", "Driver to manage the Network")
			fs.StringArrayVarP(&f.options, "opt", "o", nil, "Set driver specific options")
			fs.StringArrayVar(&f.labels, "label", nil, "Set metadata on a network")
			fs.BoolVar(&f.internal, "internal", false, "Restrict external access to the network")
			fs.BoolVar(&f.attachable, "attachable", false, "Enable manual container attachment")
			fs.BoolVar(&f.ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
			fs.BoolVar(&f.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
			fs.StringVar(&f.ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
			fs.StringSliceVar(
				&f.subnets, "subnet", nil,
				"Subnet in CIDR format that represents a network segment",
			)
			fs.StringSliceVar(&f.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
			fs.StringSliceVar(
				&f.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet",
			)
			fs.StringArrayVar(
				&f.aux, "aux-address", nil,
				"Auxiliary IPv4 or IPv6 addresses used by Network driver",
			)
			fs.StringArrayVar(&f.ipamOptions, "ipam-opt", nil, "Set IPAM driver specific options")
			return func(ctx context.Context, s *command.Session, args []string) error {
				req, err := f.request(args[0], fs)
				if err != nil {
					return command.Misused(err)
				}
				var answer struct {
					ID      string `json:"Id"`
					Warning string
				}
				if err := s.Post(ctx, "/networks/create", nil, req, &answer); err != nil {
					return err
				}
				if answer.Warning != "" {
					s.Warn(answer.Warning)
				}
				fmt.Fprintln(s.Out, answer.ID)
				return nil
			}
		},
	}
}

type createFlags struct {
	driver, ipamDriver                                           string
	options, labels, subnets, ranges, gateways, aux, ipamOptions []string
	internal, attachable, ipv4, ipv6                             bool
}

func (f *createFlags) request(name string, fs *pflag.FlagSet) (*api.NetworkCreate, error) {
	r := &api.NetworkCreate{
		Name: name, Driver: f.driver, Internal: f.internal, Attachable: f.attachable,
	}
	if fs.Changed("ipv4") {
		r.EnableIPv4 = &f.ipv4
	}
	if fs.Changed("ipv6") {
		r.EnableIPv6 = &f.ipv6
	}
	var err error
	if r.Options, err = spec.Pairs("opt", f.options); err != nil {
		return nil, err
	}
	if r.Labels, err = spec.Labels(f.labels); err != nil {
		return nil, err
	}
	ipam := &api.IPAM{Driver: f.ipamDriver}
	if ipam.Options, err = spec.Pairs("ipam-opt", f.ipamOptions); err != nil {
		return nil, err
	}
	if ipam.Config, err = f.pools(); err != nil {
		return nil, err
	}
	if len(ipam.Config) > 0 || len(ipam.Options) > 0 || fs.Changed("ipam-driver") {
		r.IPAM = ipam
	}
	return r, nil
}

// pools puts each range, gateway and auxiliary address with the subnet that it lies in.
func (f *createFlags) pools() ([]api.IPAMPool, error) {
	var pools []api.IPAMPool
	var prefixes []netip.Prefix
	for _, s := range f.subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--subnet %q: want ADDRESS/LENGTH", s)
		}
		for _, other := range prefixes {
			if other.Overlaps(p) {
				return nil, fmt.Errorf("--subnet %q: overlaps with %s", s, other)
			}
		}
		prefixes = append(prefixes, p)
		pools = append(pools, api.IPAMPool{Subnet: s})
	}
	within := func(flag, value string, addr netip.Addr) (*api.IPAMPool, error) {
		for i, p := range prefixes {
			if p.Contains(addr) {
				return &pools[i], nil
			}
		}
		return nil, fmt.Errorf("--%s %q: no matching --subnet", flag, value)
	}
	for _, s := range f.ranges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--ip-range %q: want ADDRESS/LENGTH", s)
		}
		pool, err := within("ip-range", s, p.Addr())
		if err != nil {
			return nil, err
		}
		if pool.IPRange != "" {
			return nil, fmt.Errorf("--ip-range %q: subnet %s has one already", s, pool.Subnet)
		}
		pool.IPRange = s
	}
	for _, s := range f.gateways {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("--gateway %q: not an IP address", s)
		}
		pool, err := within("gateway", s, addr)
		if err != nil {
			return nil, err
		}
		if pool.Gateway != "" {
			return nil, fmt.Errorf("--gateway %q: subnet %s has one already", s, pool.Subnet)
		}
		pool.Gateway = s
	}
	for _, s := range f.aux {
		name, a, ok := strings.Cut(s, "=")
		addr, err := netip.ParseAddr(a)
		if !ok || name == "" || err != nil {
			return nil, fmt.Errorf("--aux-address %q: want NAME=ADDRESS", s)
		}
		pool, err := within("aux-address", s, addr)
		if err != nil {
			return nil, err
		}
		if pool.AuxiliaryAddresses == nil {
			pool.AuxiliaryAddresses = map[string]string{}
		}
		pool.AuxiliaryAddresses[name] = a
	}
	return pools, nil
}

func connect() command.Command {
	return command.Command{
		Name: "connect", Path: "network connect", Args: "[OPTIONS] NETWORK CONTAINER",
		Short: "Connect a container to a network", Min: 2, Max: 2,
		Complete: []command.Kind{command.Networks, command.Containers},
		Setup: func(fs *pflag.FlagSet) command.Action {
			e := &api.Endpoint{}
			ip := fs.String("ip", "", `IPv4 address (e.g., "172.30.100.104")`)
			ip6 := fs.String("ip6", "", `IPv6 address (e.g., "2001:db8::33")`)
			linkLocal := fs.StringArray(
				"link-local-ip", nil, "Add a link-local address for the container",
			)
			options := fs.StringArray("driver-opt", nil, "driver options for the network")
			fs.StringArrayVar(
				&e.Aliases, "alias", nil, "Add network-scoped alias for the container",
			)
			fs.StringArrayVar(&e.Links, "link", nil, "Add link to another container")
			fs.IntVar(
				&e.GwPriority, "gw-priority", 0, "Highest gw-priority provides the default gateway",
			)
			return func(ctx context.Context, s *command.Session, args []string) error {
				for flag, addr := range map[string]string{"ip": *ip, "ip6": *ip6} {
					if addr == "" {
						continue
					}
					if _, err := netip.ParseAddr(addr); err != nil {
						return command.Misused(fmt.Errorf("--%s %q: not an IP address", flag, addr))
					}
				}
				if *ip != "" || *ip6 != "" || len(*linkLocal) > 0 {
					e.IPAMConfig = &api.EndpointIPAM{
						IPv4Address: *ip, IPv6Address: *ip6, LinkLocalIPs: *linkLocal,
					}
				}
				var err error
				if e.DriverOpts, err = spec.Pairs("driver-opt", *options); err != nil {
					return command.Misused(err)
				}
				return s.Post(
					ctx, path(args[0], "connect"), nil,
					api.NetworkConnect{Container: args[1], EndpointConfig: e}, nil,
				)
			}
		},
	}
}

func disconnect() command.Command {
	return command.Command{
		Name: "disconnect", Path: "network disconnect", Args: "[OPTIONS] NETWORK CONTAINER",
		Short: "Disconnect a container from a network",
		Min:   2, Max: 2, Complete: []command.Kind{command.Networks, command.Containers},
		Setup: func(fs *pflag.FlagSet) command.Action {
			force := fs.BoolP(
				"force", "f", false, "Force the container to disconnect from a network",
			)
			return func(ctx context.Context, s *command.Session, args []string) error {
				return s.Post(
					ctx, path(args[0], "disconnect"), nil,
					api.NetworkConnect{Container: args[1], Force: *force}, nil,
				)
			}
		},
	}
}

func inspect() command.Command {
	return command.Command{
		Name: "inspect", Path: "network inspect", Args: "[OPTIONS] NETWORK [NETWORK...]",
		Short: "Display detailed information on one or more networks",
		Min:   1, Max: -1, Complete: []command.Kind{command.Networks},
		Setup: func(fs *pflag.FlagSet) command.Action {
			text := fs.StringP("format", "f", "", "Format output: 'json' or a Go template")
			verbose := fs.BoolP("verbose", "v", false, "Verbose output for diagnostics")
			return func(ctx context.Context, s *command.Session, args []string) error {
				get := func(name string) (raw json.RawMessage, err error) {
					err = s.Get(
						ctx, path(name), command.Query("verbose", command.If(*verbose)), &raw,
					)
					return raw, err
				}
				return command.InspectEach(s, *text, args, get)
			}
		},
	}
}

func remove() command.Command {
	return command.Command{
		Name: "rm", Aliases: []string{"remove"}, Path: "network rm", Args: "NETWORK [NETWORK...]",
		Short: "Remove one or more networks",
		Min:   1, Max: -1, Complete: []command.Kind{command.Networks},
		Setup: func(fs *pflag.FlagSet) command.Action {
			force := fs.BoolP("force", "f", false, "Do not error if the network does not exist")
			return func(ctx context.Context, s *command.Session, args []string) error {
				return command.Each(s, args, func(name string) error {
					err := s.Delete(ctx, path(name), nil, nil)
					if *force && errdefs.IsNotFound(err) {
						return command.ErrAbsent
					}
					return err
				})
			}
		},
	}
}

func prune() command.Command {
	return command.Command{
		Name: "prune", Path: "network prune", Args: "[OPTIONS]",
		Short: "Remove all unused networks",
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
					fmt.Fprintln(
						s.Err,
						"WARNING! This will remove all custom networks not used by at least one "+
							"container.",
					)
					if ok, err := s.Confirm("Are you sure you want to continue?"); err != nil ||
						!ok {
						return err
					}
				}
				var p api.Pruned
				if err := s.Post(
					ctx, "/networks/prune", command.Query("filters", filter), nil, &p,
				); err != nil {
					return err
				}
				if len(p.NetworksDeleted) > 0 {
					fmt.Fprintf(
						s.Out, "Deleted Networks:\n%s\n", strings.Join(p.NetworksDeleted, "\n"),
					)
				}
				return nil
			}
		},
	}
}
