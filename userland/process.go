package userland

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is what /proc says of one (proc(5)).
type process struct {
	pid, ppid, uid int
	state          string
	comm, cmdline  string
	tty            int
	start, cpu     uint64 // clock ticks: since boot, and used
	rss            uint64 // bytes
	vsize          uint64
}

// ticks a second in /proc: USER_HZ is 100 on every architecture strake runs on.
const userHZ = 100

func readProcesses() ([]process, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return nil, err
	}
	var out []process
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if p, ok := readProcess("/proc/"+n, pid); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b process) int { return a.pid - b.pid })
	return out, nil
}

// readProcess is not ok for one that is gone.
func readProcess(dir string, pid int) (process, bool) {
	var st unix.Stat_t
	b, err := os.ReadFile(dir + "/stat")
	if err != nil || unix.Stat(dir, &st) != nil {
		return process{}, false
	}
	p, ok := parseProcess(string(b))
	p.pid, p.uid = pid, int(st.Uid)
	cmd, _ := os.ReadFile(dir + "/cmdline")
	p.cmdline = strings.TrimRight(strings.ReplaceAll(string(cmd), "\x00", " "), " ")
	return p, ok
}

// parseProcess reads /proc/PID/stat, whose second field may hold anything, parentheses too.
func parseProcess(s string) (process, bool) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	f := strings.Fields(s[end+1:])
	if len(f) < 22 {
		return process{}, false
	}
	num := func(i int) uint64 { n, _ := strconv.ParseUint(f[i], 10, 64); return n }
	return process{
		comm: s[open+1 : end], state: f[0], ppid: int(num(1)), tty: int(num(4)),
		cpu: num(11) + num(12), start: num(19), vsize: num(20),
		rss: num(21) * uint64(os.Getpagesize()),
	}, true
}

// ps shows processes: all of them, as busybox does, since a container has few. -o chooses columns
// of pid ppid user uid stat tty time etime rss vsz comm args; -e, -A, -f, -l, -w and the BSD
// letters aux choose what people expect of them.
func ps(_ context.Context, c *Call) int {
	if len(c.Args) > 0 && c.Args[0] != "" && strings.Trim(c.Args[0], "auxwef") == "" {
		bsd := c.Args[0]
		c.Args = c.Args[1:]
		if strings.ContainsAny(bsd, "u") {
			c.Args = append([]string{"-o", "user,pid,vsz,rss,tty,stat,time,args"}, c.Args...)
		}
	}
	o, names, status, ok := c.options("eAaxflwo:p:", "format=o pid=p")
	if !ok {
		return status
	}
	if len(names) > 0 {
		return c.usagef("extra operand %q", names[0])
	}
	columns := "pid,user,time,args"
	switch {
	case o.has('o'):
		columns = strings.Join(o.values('o'), ",")
	case o.has('f'):
		columns = "user,pid,ppid,tty,time,args"
	case o.has('l'):
		columns = "stat,uid,pid,ppid,vsz,rss,tty,time,args"
	}
	only, err := processNumbers(o.values('p'))
	if err != nil {
		return c.usagef("option -p: %v", err)
	}
	list, err := readProcesses()
	if err != nil {
		return c.fault("/proc", err)
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return c.fault("sysinfo", err)
	}
	t := &psTable{accounts: readAccounts(), uptime: uint64(si.Uptime)}
	rows := [][]string{{}}
	var left []bool
	for col := range strings.SplitSeq(columns, ",") {
		name, title, retitled := strings.Cut(col, "=")
		h, text, known := t.column(name, process{})
		if !known {
			return c.usagef(
				"option -o: column %q is none of pid ppid user uid stat tty time etime rss vsz "+
					"comm args",
				name,
			)
		}
		_ = text
		if retitled {
			h = title
		}
		rows[0] = append(rows[0], h)
		left = append(left, strings.Contains(" user stat tty comm args ", " "+name+" "))
	}
	for _, p := range list {
		if len(only) > 0 && !only[p.pid] {
			continue
		}
		var row []string
		for col := range strings.SplitSeq(columns, ",") {
			name, _, _ := strings.Cut(col, "=")
			_, v, _ := t.column(name, p)
			row = append(row, v)
		}
		rows = append(rows, row)
	}
	w := c.buffered()
	printColumns(w, rows, left)
	if len(only) > 0 && len(rows) == 1 {
		return c.finish(w, exitFault)
	}
	return c.finish(w, exitOK)
}

// processNumbers reads lists of process numbers, which commas separate.
func processNumbers(lists []string) (map[int]bool, error) {
	only := map[int]bool{}
	for _, v := range lists {
		for s := range strings.SplitSeq(v, ",") {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("%q is no process number", s)
			}
			only[n] = true
		}
	}
	return only, nil
}

// printColumns prints rows, of which the first has the titles. left says which columns are aligned
// to the left.
func printColumns(w *bufio.Writer, rows [][]string, left []bool) {
	width := make([]int, len(left))
	for _, r := range rows {
		for i, v := range r {
			width[i] = max(width[i], len(v))
		}
	}
	for n, r := range rows {
		if n == 0 && strings.Join(r, "") == "" {
			continue // -o pid= hides the titles
		}
		for i, v := range r {
			pad := strings.Repeat(" ", width[i]-len(v))
			switch {
			case !left[i]:
				w.WriteString(pad + v)
			case i == len(r)-1:
				w.WriteString(v)
			default:
				w.WriteString(v + pad)
			}
			if i < len(r)-1 {
				w.WriteByte(' ')
			}
		}
		w.WriteByte('\n')
	}
}

type psTable struct {
	accounts accounts
	uptime   uint64
}

func (t *psTable) column(name string, p process) (title, value string, known bool) {
	clock := func(sec uint64) string {
		if sec >= 86400 {
			return fmt.Sprintf("%d-%02d:%02d:%02d", sec/86400, sec/3600%24, sec/60%60, sec%60)
		}
		return fmt.Sprintf("%02d:%02d:%02d", sec/3600, sec/60%60, sec%60)
	}
	switch name {
	case "pid":
		return "PID", strconv.Itoa(p.pid), true
	case "ppid":
		return "PPID", strconv.Itoa(p.ppid), true
	case "user":
		return "USER", t.accounts.userName(p.uid), true
	case "uid":
		return "UID", strconv.Itoa(p.uid), true
	case "stat", "state":
		return "STAT", p.state, true
	case "tty", "tt":
		return "TTY", ttyName(p.tty), true
	case "time":
		return "TIME", clock(p.cpu / userHZ), true
	case "etime":
		return "ELAPSED", clock(t.uptime - min(t.uptime, p.start/userHZ)), true
	case "rss":
		return "RSS", strconv.FormatUint(p.rss>>10, 10), true
	case "vsz":
		return "VSZ", strconv.FormatUint(p.vsize>>10, 10), true
	case "comm":
		return "COMMAND", p.comm, true
	case "args", "cmd", "command":
		if p.cmdline == "" {
			return "COMMAND", "[" + p.comm + "]", true
		}
		return "COMMAND", p.cmdline, true
	}
	return "", "", false
}

// ttyName names a terminal by its device number (devices.txt of the kernel).
func ttyName(dev int) string {
	major, minor := unix.Major(uint64(dev)), unix.Minor(uint64(dev))
	switch {
	case dev == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<8|minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	case major == 5 && minor == 1:
		return "console"
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

// pidof shows the processes that run a program (pidof(8): -s one only).
func pidof(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("s", "single-shot=s")
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no program given")
	}
	list, err := readProcesses()
	if err != nil {
		return c.fault("/proc", err)
	}
	var out []string
	for _, p := range slices.Backward(list) {
		arg0, _, _ := strings.Cut(p.cmdline, " ")
		for _, n := range names {
			if p.comm == n || arg0 == n || arg0 != "" && filepath.Base(arg0) == filepath.Base(n) &&
				!strings.Contains(n, "/") {
				out = append(out, strconv.Itoa(p.pid))
				break
			}
		}
	}
	if len(out) == 0 {
		return exitFault
	}
	if o.has('s') {
		out = out[:1]
	}
	fmt.Fprintln(c.Stdout, strings.Join(out, " "))
	return exitOK
}

// parseSignal reads a signal's number or name, with or without SIG.
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}

// kill sends signals (kill(1p)).
func kill(_ context.Context, c *Call) int {
	sig := unix.SIGTERM
	args := c.Args
	if len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "--" {
		name := args[0][1:]
		args = args[1:]
		switch {
		case name == "l":
			return c.listSignals(args)
		case name == "-help":
			fmt.Fprintf(
				c.Stdout, "usage: kill [-SIGNAL | -s SIGNAL] PID...\n       kill -l [STATUS...]\n",
			)
			return exitOK
		case name == "s" && len(args) > 0:
			name, args = args[0], args[1:]
		}
		var err error
		if sig, err = parseSignal(name); err != nil {
			return c.usagef("%v", err)
		}
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return c.usagef("no process given")
	}
	status := exitOK
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		if err != nil {
			status = c.errorf("%q is no process number", a)
			continue
		}
		if err := unix.Kill(pid, sig); err != nil {
			status = c.fault(a, err)
		}
	}
	return status
}

func (c *Call) listSignals(args []string) int {
	if len(args) == 0 {
		for i := range 32 {
			if n := unix.SignalName(unix.Signal(i)); n != "" {
				fmt.Fprintf(c.Stdout, "%2d) %s\n", i, n)
			}
		}
	}
	for _, a := range args {
		if n, err := strconv.Atoi(a); err == nil {
			if n > exitSignal {
				n -= exitSignal
			}
			if name := unix.SignalName(unix.Signal(n)); name != "" {
				fmt.Fprintln(c.Stdout, strings.TrimPrefix(name, "SIG"))
				continue
			}
		} else if s, err := parseSignal(a); err == nil {
			fmt.Fprintln(c.Stdout, int(s))
			continue
		}
		return c.errorf("unknown signal %q", a)
	}
	return exitOK
}
