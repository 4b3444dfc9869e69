package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"strake/cli/terminal"
	"strake/container/cgroup"
)

// nanosPerTick are the nanoseconds of a clock tick of USER_HZ, which is 100 on all architectures
// that strake runs on.
const nanosPerTick = 1e9 / 100

// usage is a line of lxc-top.
type usage struct {
	name                        string
	cpu, system, user           uint64 // nanoseconds
	io, read, written, requests uint64
	memory, swap, kernel        uint64 // bytes
}

func usageOf(name string, s *cgroup.Stats) usage {
	u := usage{
		name: name, cpu: s.CPU.TotalNanos, system: s.CPU.KernelNanos, user: s.CPU.UserNanos,
		memory: s.Memory.Usage, swap: s.Memory.SwapUsage, kernel: s.Memory.Stat["kernel"],
	}
	for _, e := range s.IO {
		u.io += e.Bytes
		u.requests += e.Count
		switch strings.ToLower(e.Op) {
		case "read":
			u.read += e.Bytes
		case "write":
			u.written += e.Bytes
		}
	}
	return u
}

func (u *usage) add(o *usage) {
	u.cpu, u.system, u.user = u.cpu+o.cpu, u.system+o.system, u.user+o.user
	u.io, u.read, u.written = u.io+o.io, u.read+o.read, u.written+o.written
	u.memory, u.swap, u.kernel = u.memory+o.memory, u.swap+o.swap, u.kernel+o.kernel
}

// orders are what lxc-top sorts by, by the letter: numbers with the highest first.
var orders = map[byte]func(a, b *usage) int{
	'n': func(a, b *usage) int { return cmp.Compare(a.name, b.name) },
	'c': func(a, b *usage) int { return cmp.Compare(b.cpu, a.cpu) },
	'b': func(a, b *usage) int { return cmp.Compare(b.io, a.io) },
	'm': func(a, b *usage) int { return cmp.Compare(b.memory, a.memory) },
	's': func(a, b *usage) int { return cmp.Compare(b.memory+b.swap, a.memory+a.swap) },
	'k': func(a, b *usage) int { return cmp.Compare(b.kernel, a.kernel) },
}

// viewer is one run of lxc-top.
type viewer struct {
	*call
	batch, reverse bool
	by             byte
}

func top(f *pflag.FlagSet) action {
	v := &viewer{}
	seconds := f.IntP("delay", "d", 3, "seconds from one display to the next; 300 with -b")
	f.BoolVarP(&v.batch, "batch", "b", false, "print lines of values, separated by commas")
	by := f.StringP(
		"sort", "s", "n", "sort by n: name, c: processor time, b: block I/O, m: memory, s: memory "+
			"and swap, k: kernel memory",
	)
	f.BoolVarP(&v.reverse, "reverse", "r", false, "reverse the order")
	return func(ctx context.Context, c *call) (int, error) {
		v.call = c
		if *by == "" || orders[(*by)[0]] == nil {
			return 1, fmt.Errorf("sort %q: want n, c, b, m, s or k", *by)
		}
		v.by = (*by)[0]
		if v.batch && !c.set.Changed("delay") {
			*seconds = 300
		}
		if *seconds < 1 {
			return 1, fmt.Errorf("delay %d: want a number of seconds", *seconds)
		}
		keys := make(chan byte)
		if v.batch {
			fmt.Fprintln(c.Out, "time_ms,container,cpu_nanos,cpu_sys_userhz,cpu_user_userhz,"+
				"blkio_bytes,blkio_iops,mem_used_bytes,memsw_used_bytes,kernel_mem_used_bytes")
		} else {
			if !isTerminal(c.In) {
				return 1, fmt.Errorf("standard input is no terminal: want -b")
			}
			restore, err := terminal.MakeRaw(c.In)
			if err != nil {
				return 1, err
			}
			defer restore()
			go readKeys(c.In, keys)
		}
		return v.loop(ctx, time.Duration(*seconds)*time.Second, keys)
	}
}

// readKeys sends what is typed. It ends with the process.
func readKeys(from io.Reader, keys chan<- byte) {
	var b [1]byte
	for {
		if n, err := from.Read(b[:]); n == 0 || err != nil {
			b[0] = 'q'
		}
		keys <- b[0]
	}
}

func (v *viewer) loop(ctx context.Context, delay time.Duration, keys <-chan byte) (int, error) {
	const interrupt = 3 // the control key and C, on a raw terminal
	for {
		if err := v.show(time.Now()); err != nil {
			return 1, err
		}
		select {
		case <-ctx.Done():
			return 0, nil
		case <-time.After(delay):
		case key := <-keys:
			switch {
			case key == 'q' || key == interrupt:
				fmt.Fprint(v.Out, "\r\n")
				return 0, nil
			case key == 'r':
				v.reverse = !v.reverse
			case orders[key] != nil:
				v.reverse = v.by == key && !v.reverse
				v.by = key
			}
		}
	}
}

// show prints what the containers that run have used.
func (v *viewer) show(now time.Time) error {
	names, err := v.path.Active()
	if err != nil {
		return err
	}
	var list []usage
	total := usage{}
	for _, name := range names {
		x, err := v.path.Container(name)
		if err != nil {
			return err
		}
		stats, err := x.Group().Usage()
		if errdefs.IsFailedPrecondition(err) || errdefs.IsNotFound(err) {
			continue // It has ended meanwhile.
		}
		if err != nil {
			return err
		}
		list = append(list, usageOf(name, stats))
		total.add(&list[len(list)-1])
	}
	slices.SortStableFunc(list, func(a, b usage) int {
		n := orders[v.by](&a, &b)
		if v.reverse {
			n = -n
		}
		return n
	})
	var out bytes.Buffer
	if v.batch {
		for i := range list {
			batchLine(&out, now, &list[i])
		}
	} else {
		rows := len(list)
		if _, height, ok := terminal.Size(v.Out); ok {
			rows = min(rows, max(int(height)-4, 0))
		}
		screen(&out, list[:rows], &total, len(list))
	}
	_, err = v.Out.Write(out.Bytes())
	return err
}

func batchLine(w io.Writer, now time.Time, u *usage) {
	fmt.Fprintf(
		w, "%d,%s,%d,%d,%d,%d,%d,%d,%d,%d\n", now.UnixMilli(), u.name, u.cpu, u.system/nanosPerTick,
		u.user/nanosPerTick, u.io, u.requests, u.memory, u.swap, u.kernel,
	)
}

// screen clears the terminal and fills it. Lines end as a raw terminal wants them.
func screen(w io.Writer, list []usage, total *usage, count int) {
	const clear, bold, normal = "\x1b[H\x1b[J", "\x1b[7m\x1b[1m", "\x1b[0m"
	line := func(cells ...string) {
		format := []string{"%-18.18s", " %12s", " %12s", " %12s", " %36s", " %10s", " %10s", " %10s"}
		for i, cell := range cells {
			if i == 6 && total.swap == 0 || i == 7 && total.kernel == 0 {
				continue
			}
			fmt.Fprintf(w, format[i], cell)
		}
	}
	fmt.Fprint(w, clear+bold)
	line("Container", "CPU", "CPU", "CPU", "BlkIO", "Mem", "MemSw", "KMem")
	fmt.Fprint(w, "\r\n")
	line("Name", "Used", "Sys", "User", "Total(Read/Write)", "Used", "Used", "Used")
	fmt.Fprint(w, "\r\n"+normal)
	row := func(name string, u *usage) {
		seconds := func(nanos uint64) string { return fmt.Sprintf("%.2f", float64(nanos)/1e9) }
		line(
			name, seconds(u.cpu), seconds(u.system), seconds(u.user),
			fmt.Sprintf("%s(%s/%s)", humane(u.io), humane(u.read), humane(u.written)),
			humane(u.memory), humane(u.swap), humane(u.kernel),
		)
	}
	for i := range list {
		row(list[i].name, &list[i])
		fmt.Fprint(w, "\r\n")
	}
	row(fmt.Sprintf("TOTAL %d of %d", len(list), count), total)
}

// humane is a number of bytes as lxc-top writes it.
func humane(n uint64) string {
	for _, u := range []struct {
		name string
		size uint64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n > u.size {
			return fmt.Sprintf("%.2f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%3d.00   ", n)
}
