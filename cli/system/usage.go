package system

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/command"
	"strake/cli/format"
)

// usageRow is a line of `system df`.
type usageRow struct {
	Active      string `head:"ACTIVE"`
	Reclaimable string `head:"RECLAIMABLE"`
	Size        string `head:"SIZE"`
	TotalCount  string `head:"TOTAL"`
	Type        string `head:"TYPE"`
}

// DiskUsage is `strake system df`.
func DiskUsage() command.Command {
	return command.Command{
		Name: "df", Path: "system df", Args: "[OPTIONS]",
		Short: "Show disk usage of images, containers and volumes",
		Setup: func(fs *pflag.FlagSet) command.Action {
			l := &command.Listing{}
			fs.StringVar(
				&l.Format, "format", "",
				"Format output: 'table', 'table TEMPLATE', 'json' (one object a line), or a Go "+
					"template",
			)
			fs.StringVarP(&l.Output, "output", "o", "", "Output form: 'json' (one array)")
			verbose := fs.BoolP("verbose", "v", false, "Show detailed information on space usage")
			return func(ctx context.Context, s *command.Session, _ []string) error {
				var u api.DiskUsage
				if err := s.Get(ctx, "/system/df", command.Query("verbose", "1"), &u); err != nil {
					return err
				}
				u.Lists()
				if *verbose {
					if l.Format != "" || l.Output != "" {
						return command.Misused(
							errors.New("conflicting options: --verbose and --format or -o"),
						)
					}
					return verboseUsage(s, &u)
				}
				return command.Show(
					s, l, "Type", "Type TotalCount Active Size Reclaimable", usageRows(&u),
				)
			}
		},
	}
}

func usageRows(u *api.DiskUsage) []usageRow {
	var active int
	var used int64
	for _, m := range u.Images {
		if m.Containers > 0 {
			active++
			used += m.Size - max(m.SharedSize, 0)
		}
	}
	size := u.LayersSize
	rows := []usageRow{usageLine("Images", len(u.Images), active, size, max(size-used, 0), true)}
	var all, idle int64
	active = 0
	for _, c := range u.Containers {
		all += c.SizeRw
		if isLive(c.State) {
			active++
		} else {
			idle += c.SizeRw
		}
	}
	rows = append(rows, usageLine("Containers", len(u.Containers), active, all, idle, true))
	all, idle, active = 0, 0, 0
	for _, v := range u.Volumes {
		if v.UsageData == nil || v.UsageData.Size < 0 {
			continue
		}
		all += v.UsageData.Size
		if v.UsageData.RefCount > 0 {
			active++
		} else {
			idle += v.UsageData.Size
		}
	}
	rows = append(rows, usageLine("Local Volumes", len(u.Volumes), active, all, idle, true))
	all, idle, active = 0, 0, 0
	for _, b := range u.BuildCache {
		if b.Shared {
			continue
		}
		all += b.Size
		if b.InUse {
			active++
		} else {
			idle += b.Size
		}
	}
	return append(rows, usageLine("Build Cache", len(u.BuildCache), active, all, idle, false))
}

func isLive(state string) bool {
	return state == "running" || state == "paused" || state == "restarting"
}

func usageLine(kind string, total, active int, size, reclaimable int64, share bool) usageRow {
	r := usageRow{
		Type: kind, TotalCount: fmt.Sprint(total), Active: fmt.Sprint(active),
		Size: format.Size(size, 4), Reclaimable: format.Size(reclaimable, 4),
	}
	if share && size > 0 {
		r.Reclaimable += fmt.Sprintf(" (%d%%)", reclaimable*100/size)
	}
	return r
}

func verboseUsage(s *command.Session, u *api.DiskUsage) error {
	t := format.Table(s.Out)
	ago := func(unix int64) string {
		return format.Duration(s.Now().Sub(time.Unix(unix, 0))) + " ago"
	}
	fmt.Fprint(
		t,
		"Images space usage:\n\n"+
			"IMAGE ID\tNAME\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS\n",
	)
	for _, m := range u.Images {
		shared := max(m.SharedSize, 0)
		name := strings.Join(m.RepoTags, ",")
		if name == "" {
			name = "<none>"
		}
		fmt.Fprintf(
			t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", format.ShortID(m.ID), name, ago(m.Created),
			format.Size(m.Size, 4), format.Size(shared, 4), format.Size(m.Size-shared, 4),
			max(m.Containers, 0),
		)
	}
	t.Flush()
	fmt.Fprint(
		t, "\nContainers space usage:\n\nCONTAINER ID\tIMAGE\tSIZE\tCREATED\tSTATUS\tNAMES\n",
	)
	for _, c := range u.Containers {
		fmt.Fprintf(
			t, "%s\t%s\t%s\t%s\t%s\t%s\n", format.ShortID(c.ID), c.Image,
			format.Size(c.SizeRw, 4), ago(c.Created), c.Status,
			strings.ReplaceAll(strings.Join(c.Names, ","), "/", ""),
		)
	}
	t.Flush()
	fmt.Fprint(t, "\nLocal Volumes space usage:\n\nVOLUME NAME\tLINKS\tSIZE\n")
	for _, v := range u.Volumes {
		links, size := "N/A", "N/A"
		if v.UsageData != nil {
			links, size = fmt.Sprint(v.UsageData.RefCount), format.Size(v.UsageData.Size, 4)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", v.Name, links, size)
	}
	return t.Flush()
}

// Prune is `strake system prune`. Named volumes are never touched, anonymous ones on request only.
func Prune() command.Command {
	return command.Command{
		Name: "prune", Path: "system prune", Args: "[OPTIONS]", Short: "Remove unused data",
		Setup: func(fs *pflag.FlagSet) command.Action {
			all := fs.BoolP("all", "a", false, "Remove all unused images not just dangling ones")
			volumes := fs.Bool("volumes", false, "Prune anonymous volumes")
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			filters := fs.StringArray(
				"filter", nil, `Provide filter values (e.g. "label=<key>=<value>")`,
			)
			return func(ctx context.Context, s *command.Session, _ []string) error {
				images := append([]string(nil), *filters...)
				if *all {
					images = append(images, "dangling=false")
				}
				filter, err := command.Filters(*filters)
				if err != nil {
					return err
				}
				imageFilter, err := command.Filters(images)
				if err != nil {
					return err
				}
				steps := []struct{ path, what, filter string }{
					{"/containers/prune", "all stopped containers", filter},
					{"/networks/prune", "all networks not used by at least one container", filter},
				}
				if *volumes {
					steps = append(
						steps,
						struct{ path, what, filter string }{
							"/volumes/prune",
							"all anonymous volumes not used by at least one container", filter,
						},
					)
				}
				what := "all dangling images"
				if *all {
					what = "all images without at least one container associated to them"
				}
				steps = append(
					steps, struct{ path, what, filter string }{"/images/prune", what, imageFilter},
				)
				if !*force {
					fmt.Fprintln(s.Err, "WARNING! This will remove:")
					for _, st := range steps {
						fmt.Fprintln(s.Err, "  -", st.what)
					}
					if ok, err := s.Confirm("Are you sure you want to continue?"); err != nil ||
						!ok {
						return err
					}
				}
				var reclaimed int64
				for _, st := range steps {
					var p api.Pruned
					if err := s.Post(
						ctx, st.path, command.Query("filters", st.filter), nil, &p,
					); err != nil {
						return err
					}
					reclaimed += p.SpaceReclaimed
					printPruned(s, &p)
				}
				fmt.Fprintln(s.Out, "Total reclaimed space:", format.Size(reclaimed, 4))
				return nil
			}
		},
	}
}

func printPruned(s *command.Session, p *api.Pruned) {
	for _, list := range []struct {
		title string
		names []string
	}{
		{"Containers", p.ContainersDeleted}, {"Networks", p.NetworksDeleted},
		{"Volumes", p.VolumesDeleted},
	} {
		if len(list.names) > 0 {
			fmt.Fprintf(s.Out, "Deleted %s:\n%s\n\n", list.title, strings.Join(list.names, "\n"))
		}
	}
	if len(p.ImagesDeleted) == 0 {
		return
	}
	fmt.Fprintln(s.Out, "Deleted Images:")
	for _, d := range p.ImagesDeleted {
		if d.Untagged != "" {
			fmt.Fprintln(s.Out, "untagged:", d.Untagged)
		} else {
			fmt.Fprintln(s.Out, "deleted:", d.Deleted)
		}
	}
	fmt.Fprintln(s.Out)
}
