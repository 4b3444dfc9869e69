package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/client"
	"strake/cli/command"
	"strake/cli/format"
)

// statsRow is a line of `stats`: docker/cli:docs/reference/commandline/container_stats.md, "Format
// the output".
type statsRow struct {
	BlockIO   string `head:"BLOCK I/O"`
	CPUPerc   string `head:"CPU %"`
	Container string `head:"CONTAINER"`
	ID        string `head:"CONTAINER ID"`
	MemPerc   string `head:"MEM %"`
	MemUsage  string `head:"MEM USAGE / LIMIT"`
	Name      string `head:"NAME"`
	NetIO     string `head:"NET I/O"`
	PIDs      string `head:"PIDS"`
}

// Stats is `strake stats`.
func Stats() command.Command {
	return command.Command{
		Name: "stats", Path: "container stats", Args: "[OPTIONS] [CONTAINER...]", Min: 0, Max: -1,
		Complete: []command.Kind{command.Running},
		Short:    "Display a live stream of container(s) resource usage statistics",
		Setup: func(fs *pflag.FlagSet) command.Action {
			f := &statsFlags{Listing: &command.Listing{}}
			fs.BoolVarP(
				&f.all, "all", "a", false, "Show all containers (default shows just running)",
			)
			fs.BoolVar(
				&f.once, "no-stream", false,
				"Disable streaming stats and only pull the first result",
			)
			fs.StringVar(
				&f.Format, "format", "",
				"Format output: 'table', 'table TEMPLATE', 'json' (one object a line), or a Go "+
					"template",
			)
			fs.StringVarP(
				&f.Output, "output", "o", "",
				"Output form: 'json' (one array; implies --no-stream)",
			)
			fs.BoolVar(&f.NoTrunc, "no-trunc", false, "Do not truncate output")
			return f.run
		},
	}
}

type statsFlags struct {
	*command.Listing
	all, once bool
}

func (f *statsFlags) run(ctx context.Context, s *command.Session, args []string) error {
	names := args
	if len(names) == 0 {
		var list []api.Container
		if err := s.Get(
			ctx, "/containers/json", command.Query("all", command.If(f.all)), &list,
		); err != nil {
			return err
		}
		for _, c := range list {
			names = append(names, c.ID)
		}
	}
	if f.once || f.Output != "" {
		return f.single(ctx, s, names)
	}
	return f.stream(ctx, s, names)
}

const statsColumns = "ID Name CPUPerc MemUsage MemPerc NetIO BlockIO PIDs"

// parallel bounds requests that are under way at once.
const parallel = 16

// single shows each container once. The engine measures for a moment; all of them do so at the same
// time.
func (f *statsFlags) single(ctx context.Context, s *command.Session, names []string) error {
	if _, err := s.Client(); err != nil {
		return err
	}
	rows := make([]statsRow, len(names))
	errs := make([]error, len(names))
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			var st api.Stats
			if errs[i] = s.Get(
				ctx, path(name, "stats"), command.Query("stream", "0"), &st,
			); errs[i] == nil {
				rows[i] = f.row(name, &st)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return command.Show(s, f.Listing, "ID", statsColumns, rows)
}

// stream redraws a table each time that the first container has something new, until all containers
// are gone.
func (f *statsFlags) stream(ctx context.Context, s *command.Session, names []string) error {
	if _, err := s.Client(); err != nil {
		return err
	}
	if len(names) == 0 {
		return command.Show(s, f.Listing, "ID", statsColumns, []statsRow{})
	}
	ctx, cancel := context.WithCancel(ctx)
	type reading struct {
		index int
		stats *api.Stats // nil: there will be no more
		err   error
	}
	readings := make(chan reading)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i, name := range names {
		wg.Go(func() {
			err := readStats(ctx, s, name, func(st *api.Stats) {
				select {
				case readings <- reading{index: i, stats: st}:
				case <-ctx.Done():
				}
			})
			select {
			case readings <- reading{index: i, err: err}:
			case <-ctx.Done():
			}
		})
	}
	rows := make(map[int]statsRow, len(names))
	left := len(names)
	var drawn time.Time
	for left > 0 {
		select {
		case r := <-readings:
			switch {
			case r.err != nil:
				return r.err
			case r.stats == nil:
				left--
				delete(rows, r.index)
				continue
			}
			rows[r.index] = f.row(names[r.index], r.stats)
		case <-ctx.Done():
			return ctx.Err()
		}
		if now := s.Now(); len(rows) == left && now.Sub(drawn) >= time.Second/2 {
			drawn = now
			if err := f.draw(s, names, rows); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *statsFlags) draw(s *command.Session, names []string, rows map[int]statsRow) error {
	var list []statsRow
	for i := range names {
		if r, ok := rows[i]; ok {
			list = append(list, r)
		}
	}
	var b strings.Builder
	if command.IsTerminal(s.Out) {
		b.WriteString("\x1b[H\x1b[J")
	}
	if err := command.ShowTo(&b, f.Listing, "ID", statsColumns, list); err != nil {
		return err
	}
	_, err := io.WriteString(s.Out, b.String())
	return err
}

func readStats(ctx context.Context, s *command.Session, name string, each func(*api.Stats)) error {
	resp, err := s.Do(
		ctx,
		client.Request{
			Method: "GET", Path: path(name, "stats"), Query: command.Query("stream", "1"),
		},
	)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	for {
		st := &api.Stats{}
		if err := d.Decode(st); err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read statistics of %s: %w", name, err)
		}
		each(st)
	}
}

// row computes what is shown, as Docker's client does
// (docker/cli:docs/reference/commandline/container_stats.md): memory without the page cache that
// can be dropped, and processor time as a share of one processor.
func (f *statsFlags) row(container string, st *api.Stats) statsRow {
	used := st.Memory.Usage
	for _, cache := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := st.Memory.Stats[cache]; ok {
			if v < used {
				used -= v
			}
			break
		}
	}
	memory := 0.0
	if st.Memory.Limit > 0 {
		memory = float64(used) / float64(st.Memory.Limit) * 100
	}
	var rx, tx uint64
	for _, n := range st.Networks {
		rx += n.RxBytes
		tx += n.TxBytes
	}
	var read, written uint64
	for _, e := range st.Blkio.Bytes {
		switch strings.ToLower(e.Op) {
		case "read":
			read += e.Value
		case "write":
			written += e.Value
		}
	}
	return statsRow{
		Container: container, ID: f.ID(st.ID), Name: strings.TrimPrefix(st.Name, "/"),
		CPUPerc: fmt.Sprintf("%.2f%%", cpuPercent(st)),
		MemUsage: format.BinarySize(float64(used)) + " / " + format.BinarySize(
			float64(st.Memory.Limit),
		),
		MemPerc: fmt.Sprintf("%.2f%%", memory),
		NetIO:   format.Size(int64(rx), 3) + " / " + format.Size(int64(tx), 3),
		BlockIO: format.Size(int64(read), 3) + " / " + format.Size(int64(written), 3),
		PIDs:    fmt.Sprint(st.Pids.Current),
	}
}

func cpuPercent(st *api.Stats) float64 {
	used := float64(st.CPU.Usage.Total) - float64(st.PreCPU.Usage.Total)
	whole := float64(st.CPU.System) - float64(st.PreCPU.System)
	online := float64(st.CPU.Online)
	if online == 0 {
		online = float64(len(st.CPU.Usage.PerCPU))
	}
	if used <= 0 || whole <= 0 {
		return 0
	}
	return used / whole * online * 100
}
