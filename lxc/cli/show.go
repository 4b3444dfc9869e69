package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"strake/lxc"
)

func monitor(f *pflag.FlagSet) action {
	f.BoolP("quit", "Q", false, "end the monitor of LXC (there is none)")
	return func(ctx context.Context, c *call) (int, error) {
		pattern := c.name
		if pattern == "" && len(c.args) > 0 {
			pattern = c.args[0]
		}
		if pattern == "" {
			pattern = ".*"
		}
		match, err := regexp.Compile("^(?:" + pattern + ")$")
		if err != nil {
			return 1, fmt.Errorf("name %q: %w", pattern, err)
		}
		return 0, c.path.Watch(ctx, func() error { return nil }, func(e lxc.Event) bool {
			if match.MatchString(e.Name) {
				fmt.Fprintf(c.Out, "'%s' changed state to [%s]\n", e.Name, e.State)
			}
			return true
		})
	}
}

// row is what lxc-ls knows of a container.
type row struct {
	name string
	st   lxc.Status
	look *lxc.Look
}

// column is one of lxc-ls --fancy.
type column struct {
	name string
	text func(*row) string
}

var columns = []column{
	{"NAME", func(r *row) string { return r.name }},
	{"STATE", func(r *row) string { return string(r.st.State) }},
	{"PID", func(r *row) string { return number(int64(r.st.Pid)) }},
	{"RAM", func(r *row) string { return r.size(r.look.Memory) }},
	{"SWAP", func(r *row) string { return r.size(r.look.Swap) }},
	{"AUTOSTART", func(r *row) string { return binary(r.look.Auto) }},
	{"GROUPS", func(r *row) string { return dash(strings.Join(r.look.Groups, ", ")) }},
	{"INTERFACE", func(r *row) string { return dash(strings.Join(r.look.Interfaces, ", ")) }},
	{"IPV4", func(r *row) string { return dash(strings.Join(r.look.IPv4, ", ")) }},
	{"IPV6", func(r *row) string { return dash(strings.Join(r.look.IPv6, ", ")) }},
	{"UNPRIVILEGED", func(r *row) string { return fmt.Sprint(r.look.Unprivileged) }},
}

// fancy are the columns that --fancy shows.
const fancy = "NAME,STATE,AUTOSTART,GROUPS,IPV4,IPV6,UNPRIVILEGED"

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func number(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func binary(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// size is what a container uses that runs.
func (r *row) size(n uint64) string {
	if r.st.Pid == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fMB", float64(n)/(1<<20))
}

func list(f *pflag.FlagSet) action {
	one := f.BoolP("line", "1", false, "one name on a line")
	table := f.BoolP("fancy", "f", false, "show a table")
	which := f.StringP("fancy-format", "F", fancy, "the table's columns, separated by commas")
	active := f.Bool("active", false, "only those that run or are frozen")
	running := f.Bool("running", false, "only those that run")
	frozen := f.Bool("frozen", false, "only those that are frozen")
	stopped := f.Bool("stopped", false, "only those that are stopped")
	defined := f.Bool("defined", false, "only those with a configuration")
	groups := f.StringSliceP("groups", "g", nil, "only those of a group")
	filter := f.String("filter", "", "only those whose name matches a regular expression")
	asJSON := f.StringP("output", "O", "", "json")
	return func(ctx context.Context, c *call) (int, error) {
		pattern := *filter
		if len(c.args) > 0 {
			pattern = c.args[0]
		}
		match, err := regexp.Compile(pattern)
		if err != nil {
			return 1, fmt.Errorf("filter %q: %w", pattern, err)
		}
		shown, err := pickColumns(*which)
		if err != nil {
			return 1, err
		}
		names, err := c.path.List()
		if err != nil {
			return 1, err
		}
		var rows []*row
		for _, name := range names {
			if !match.MatchString(name) {
				continue
			}
			r, x, err := c.row(name, *table || *asJSON != "" || len(*groups) > 0)
			if err != nil {
				return 1, err
			}
			s := r.st.State
			up := s != lxc.Stopped
			if *active && !up || *running && s != lxc.Running || *frozen && s != lxc.Frozen ||
				*stopped && up || *defined && !x.Defined() ||
				len(*groups) > 0 && !r.look.InGroups(*groups) {
				continue
			}
			rows = append(rows, r)
		}
		switch {
		case *asJSON != "" && *asJSON != "json":
			return 1, fmt.Errorf("output %q: want json", *asJSON)
		case *asJSON != "":
			return 0, c.printJSON(rows, shown)
		case *table:
			return 0, c.printTable(rows, shown)
		}
		c.printNames(rows, *one)
		return 0, nil
	}
}

func pickColumns(list string) (out []column, err error) {
next:
	for want := range strings.SplitSeq(list, ",") {
		for _, col := range columns {
			if strings.EqualFold(col.name, strings.TrimSpace(want)) {
				out = append(out, col)
				continue next
			}
		}
		var known []string
		for _, col := range columns {
			known = append(known, col.name)
		}
		return nil, fmt.Errorf("column %q: want some of %s", want, strings.Join(known, ", "))
	}
	return out, nil
}

func (c *call) row(name string, whole bool) (*row, *lxc.Container, error) {
	x, err := c.path.Container(name)
	if err != nil {
		return nil, nil, err
	}
	r := &row{name: name, look: &lxc.Look{}}
	if r.st, err = x.Status(); err != nil || !whole {
		return r, x, err
	}
	r.look, err = x.Look(&r.st)
	return r, x, err
}

func (c *call) printNames(rows []*row, one bool) {
	if one || !isTerminal(c.Out) {
		for _, r := range rows {
			fmt.Fprintln(c.Out, r.name)
		}
		return
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	if len(names) > 0 {
		fmt.Fprintln(c.Out, strings.Join(names, " "))
	}
}

func (c *call) printTable(rows []*row, shown []column) error {
	w := tabwriter.NewWriter(c.Out, 0, 8, 1, ' ', 0)
	head := make([]string, 0, len(shown))
	for _, col := range shown {
		head = append(head, col.name)
	}
	fmt.Fprintln(w, strings.Join(head, "\t")+"\t")
	for _, r := range rows {
		cells := make([]string, 0, len(shown))
		for _, col := range shown {
			cells = append(cells, col.text(r))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t")+"\t")
	}
	return w.Flush()
}

func (c *call) printJSON(rows []*row, shown []column) error {
	out := make([]map[string]string, 0, len(rows))
	for _, r := range rows {
		m := map[string]string{}
		for _, col := range shown {
			m[strings.ToLower(col.name)] = col.text(r)
		}
		out = append(out, m)
	}
	e := json.NewEncoder(c.Out)
	e.SetIndent("", "  ")
	return e.Encode(out)
}

func info(f *pflag.FlagSet) action {
	keys := f.StringArrayP("config", "c", nil, "show what the configuration says of KEY")
	ips := f.BoolP("ips", "i", false, "show the addresses")
	pid := f.BoolP("pid", "p", false, "show the number of the container's init")
	stats := f.BoolP("stats", "S", false, "show what it uses")
	raw := f.BoolP("no-humanize", "H", false, "show numbers without units, and no labels")
	state := f.BoolP("state", "s", false, "show the state")
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.container(ctx)
		if err != nil {
			return 1, fmt.Errorf("%s doesn't exist", c.name)
		}
		st, err := x.Status()
		if err != nil {
			return 1, err
		}
		look, err := x.Look(&st)
		if err != nil {
			return 1, err
		}
		shown := 0
		for _, is := range []bool{*ips, *pid, *state} {
			if is {
				shown++
			}
		}
		all := shown == 0 && !*stats && len(*keys) == 0
		p := printer{c: c, raw: *raw, bare: *raw && shown == 1 && !*stats}
		if all {
			p.line("Name", c.name)
		}
		if all || *state {
			p.line("State", string(st.State))
		}
		if (all || *pid) && st.Pid != 0 {
			p.line("PID", fmt.Sprint(st.Pid))
		}
		if all || *ips {
			for _, ip := range append(look.IPv4, look.IPv6...) {
				p.line("IP", ip)
			}
		}
		if (all || *stats) && st.Pid != 0 {
			p.stats(look)
		}
		return 0, p.items(x, *keys)
	}
}

// printer prints what lxc-info shows. A raw one shows numbers without units, a bare one nothing but
// the value, which is raw too.
type printer struct {
	c         *call
	raw, bare bool
}

// items prints what the configuration says of keys, of a single one the value alone if it is raw.
func (p *printer) items(x *lxc.Container, keys []string) error {
	for _, key := range keys {
		values, err := x.Item(key)
		if err != nil {
			return err
		}
		value := strings.Join(values, "\n")
		if !p.raw || len(keys) > 1 {
			value = strings.TrimRight(key+" = "+value, " ")
		}
		fmt.Fprintln(p.c.Out, value)
	}
	return nil
}

func (p *printer) line(label, value string) {
	if p.bare {
		fmt.Fprintln(p.c.Out, value)
		return
	}
	fmt.Fprintf(p.c.Out, "%-16s%s\n", label+":", value)
}

func (p *printer) size(label string, n uint64) {
	switch {
	case p.raw:
		p.line(label, fmt.Sprint(n))
	case n >= 1<<30:
		p.line(label, fmt.Sprintf("%.2f GiB", float64(n)/(1<<30)))
	case n >= 1<<20:
		p.line(label, fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)))
	case n >= 1<<10:
		p.line(label, fmt.Sprintf("%.2f KiB", float64(n)/(1<<10)))
	default:
		p.line(label, fmt.Sprintf("%d bytes", n))
	}
}

func (p *printer) stats(l *lxc.Look) {
	if p.raw {
		p.line("CPU use", fmt.Sprint(l.CPUNanos))
	} else {
		p.line("CPU use", fmt.Sprintf("%.2f seconds", float64(l.CPUNanos)/1e9))
	}
	p.size("BlkIO use", l.IOBytes)
	p.size("Memory use", l.Memory)
	p.size("KMem use", l.KernelMemory)
	for _, n := range l.Links {
		p.line("Link", filepath.Base(n.Name))
		p.size(" TX bytes", n.TxBytes)
		p.size(" RX bytes", n.RxBytes)
		p.size(" Total bytes", n.TxBytes+n.RxBytes)
	}
}
