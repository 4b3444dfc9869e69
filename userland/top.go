package userland

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// top shows the processes that use the processor most, again and again (top(1): -b, -n, -d). On a
// terminal it fills the screen until q or an interrupt; elsewhere, and with -b, it prints one table
// after the other, one without -n when it is not a terminal.
func top(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options("bn:d:", "batch=b iterations=n delay=d")
	if !ok {
		return status
	}
	if len(names) > 0 {
		return c.usagef("extra operand %q", names[0])
	}
	delay := 3 * time.Second
	if o.has('d') {
		d, err := parseSeconds(o.value('d', ""))
		if err != nil || d <= 0 {
			return c.usagef("option -d: %q is no time above 0", o.value('d', ""))
		}
		delay = d
	}
	screen, atTerminal := topScreen(c)
	if o.has('b') {
		atTerminal = false
	}
	times := int64(1<<62 - 1)
	if !atTerminal && !o.has('b') {
		times = 1
	}
	if o.has('n') {
		n, err := parseCount(o.value('n', ""))
		if err != nil || n == 0 {
			return c.usagef("option -n: %q is no number above 0", o.value('n', ""))
		}
		times = n
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if atTerminal {
		restore, err := topKeys(c, cancel)
		if err != nil {
			return c.fault("terminal", err)
		}
		defer restore()
	}
	tick := time.NewTicker(delay)
	defer tick.Stop()
	var before topSample
	for i := int64(0); i < times; i++ {
		if i > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return exitOK
			}
		}
		now, err := takeTopSample()
		if err != nil {
			return c.fault("/proc", err)
		}
		var b bytes.Buffer
		w := bufio.NewWriter(&b)
		rows, columns := 0, 0
		if atTerminal {
			rows, columns = screenSize(screen)
			w.WriteString("\x1b[H\x1b[J")
		}
		writeTop(w, now, before, readAccounts(), rows, columns, atTerminal)
		w.Flush()
		if _, err := c.Stdout.Write(b.Bytes()); err != nil {
			return c.fault("write", err)
		}
		before = now
	}
	return exitOK
}

// topScreen is the terminal on both sides of the call.
func topScreen(c *Call) (*os.File, bool) {
	in, inFile := c.Stdin.(*os.File)
	out, outFile := c.stdoutFile()
	if !inFile || !outFile || !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) {
		return nil, false
	}
	return out, true
}

func screenSize(f *os.File) (rows, columns int) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Row == 0 || ws.Col == 0 {
		return 24, 80
	}
	return int(ws.Row), int(ws.Col)
}

// topKeys reads keys without waiting for a line, until q, ^C or the end. The goroutine that reads
// ends with the process.
func topKeys(c *Call, quit func()) (restore func(), err error) {
	in := c.Stdin.(*os.File)
	fd := int(in.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGTERM, unix.SIGHUP)
	go func() {
		for range ch {
			quit()
		}
	}()
	go func() {
		buf := make([]byte, 1)
		for {
			n, err := in.Read(buf)
			if err != nil || n == 1 &&
				(buf[0] == 'q' || buf[0] == 'Q' || buf[0] == 3 || buf[0] == 4) {
				quit()
				return
			}
		}
	}()
	io.WriteString(c.Stdout, "\x1b[?25l")
	return func() {
		signal.Stop(ch)
		close(ch)
		io.WriteString(c.Stdout, "\x1b[?25h\r\n")
		term.Restore(fd, old)
	}, nil
}

// topSample is the processes at a moment, and the processors' time up to then in clock ticks.
type topSample struct {
	processes   []process
	busy, total uint64
	memory      map[string]uint64 // bytes, by the names of /proc/meminfo
	load        string
}

func takeTopSample() (s topSample, err error) {
	if s.processes, err = readProcesses(); err != nil {
		return s, err
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return s, err
	}
	s.busy, s.total = processorTime(string(stat))
	if s.memory, err = readMeminfo(); err != nil {
		return s, err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(load)); len(f) >= 3 {
		s.load = strings.Join(f[:3], " ")
	}
	return s, err
}

// processorTime reads the first line of /proc/stat: user nice system idle iowait irq softirq steal
// (proc_stat(5)).
func processorTime(stat string) (busy, total uint64) {
	line, _, _ := strings.Cut(stat, "\n")
	for i, f := range strings.Fields(line) {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil || i > 8 {
			continue // the name, and the guests' time, which is in the user's
		}
		total += n
		if i != 4 && i != 5 {
			busy += n
		}
	}
	return busy, total
}

// writeTop writes a table: at most rows lines of at most columns characters, where 0 is no limit.
func writeTop(w *bufio.Writer, now, before topSample, a accounts, rows, columns int, raw bool) {
	end := "\n"
	if raw {
		end = "\r\n"
	}
	lines := 0
	line := func(text string) bool {
		if rows > 0 && lines >= rows-1 {
			return false
		}
		if r := []rune(text); columns > 0 && len(r) > columns {
			text = string(r[:columns])
		}
		lines++
		w.WriteString(text + end)
		return true
	}
	used := map[int]uint64{}
	for _, p := range before.processes {
		used[p.pid] = p.cpu
	}
	elapsed := now.total - before.total
	// Of the time since the last table, or since the machine started; whole processors count as in
	// ps, all of them are 100 %.
	share := func(ticks uint64) float64 {
		if elapsed == 0 {
			return 0
		}
		return 100 * float64(ticks) / float64(elapsed)
	}
	recent := func(p process) uint64 { return p.cpu - min(p.cpu, used[p.pid]) }
	list := slices.Clone(now.processes)
	slices.SortStableFunc(list, func(x, y process) int {
		if rx, ry := recent(x), recent(y); rx != ry {
			return int(int64(ry) - int64(rx))
		}
		return x.pid - y.pid
	})
	m := now.memory
	line(
		fmt.Sprintf(
			"Memory: %s, %s free, %s available", humanSize(m["MemTotal"]), humanSize(m["MemFree"]),
			humanSize(m["MemAvailable"]),
		),
	)
	line(
		fmt.Sprintf(
			"CPU: %.0f%% busy, load average %s, %d processes", share(now.busy-before.busy),
			now.load, len(list),
		),
	)
	line("  PID  PPID USER     STAT   RSS %CPU COMMAND")
	for _, p := range list {
		command := p.cmdline
		if command == "" {
			command = "[" + p.comm + "]"
		}
		if !line(
			fmt.Sprintf(
				"%5d %5d %-8s %-4s %5s %4.0f %s", p.pid, p.ppid, a.userName(p.uid), p.state,
				humanSize(p.rss), share(recent(p)), command,
			),
		) {
			break
		}
	}
}
