package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"strake/internal/early"
)

// runPS prints the processes with the columns of ps -f, as runc does. Options of ps(1) can only be
// understood by ps itself: with them its output is filtered by the PID column.
func runPS(w io.Writer, pids []int, args []string) error {
	if len(args) > 0 {
		return filterPS(w, pids, args)
	}
	up, err := uptime()
	if err != nil {
		return err
	}
	names := readUsers()
	t := tabwriter.NewWriter(w, 4, 1, 2, ' ', 0)
	fmt.Fprint(t, "UID\tPID\tPPID\tC\tSTIME\tTTY\tTIME\tCMD\n")
	for _, pid := range pids {
		p, err := readProcess(pid, names)
		if err != nil {
			continue // it has ended
		}
		fmt.Fprintf(
			t, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", p.user, pid, p.parent, p.share(up),
			p.started(up, time.Now()), p.terminal, clock(p.used), p.command,
		)
	}
	return t.Flush()
}

// process is what a line of ps -f says of a process.
type process struct {
	user, terminal, command string
	parent                  int
	used                    time.Duration // of processors
	start                   time.Duration // after the start of the machine
}

// ticks are how many of the units of /proc/PID/stat are in a second: USER_HZ, which is part of the
// interface of Linux (proc_pid_stat(5)).
const ticks = 100

func readProcess(pid int, names userNames) (p process, err error) {
	dir := "/proc/" + strconv.Itoa(pid)
	raw, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, err
	}
	name, f, err := statFields(string(raw))
	if err != nil {
		return p, fmt.Errorf("%s/stat: %w", dir, err)
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(f[i], 10, 64)
		return n
	}
	p.parent, p.terminal = int(number(1)), terminalName(uint64(number(4)))
	p.used = time.Duration(number(11)+number(12)) * time.Second / ticks
	p.start = time.Duration(number(19)) * time.Second / ticks
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return p, err
	}
	p.user = names.of(strconv.Itoa(int(st.Uid)))
	line, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return p, err
	}
	p.command = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
	if p.command == "" {
		p.command = "[" + name + "]"
	}
	return p, nil
}

// userNames are the names of users by their numbers.
type userNames map[string]string

// readUsers reads passwd(5). Package os/user would link the C library, whose start every container
// would pay for.
func readUsers() userNames {
	raw, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil // numbers do as well
	}
	names := userNames{}
	for line := range strings.Lines(string(raw)) {
		f := strings.Split(line, ":")
		if len(f) > 2 && names[f[2]] == "" {
			names[f[2]] = f[0]
		}
	}
	return names
}

func (n userNames) of(id string) string {
	if name := n[id]; name != "" {
		return name
	}
	return id
}

// statFields splits the text of /proc/PID/stat into the name and what follows it, the state first.
func statFields(text string) (name string, fields []string, err error) {
	// The name in parentheses may hold anything, so count from its end.
	first, last := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if first < 0 || last < first {
		return "", nil, errors.New("not the format of proc_pid_stat(5)")
	}
	fields = strings.Fields(text[last+1:])
	if len(fields) < 20 {
		return "", nil, fmt.Errorf("%d fields", len(fields))
	}
	return text[first+1 : last], fields, nil
}

// terminalName is the name of a terminal below /dev, or a question mark.
func terminalName(device uint64) string {
	major, minor := unix.Major(device), unix.Minor(device)
	switch {
	case major >= 136 && major <= 143: // Documentation/admin-guide/devices.txt
		return fmt.Sprintf("pts/%d", (major-136)<<8+minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	}
	return "?"
}

// share is the part of one processor, in percent, that the process has used since its start.
func (p *process) share(up time.Duration) int {
	if life := up - p.start; life > 0 {
		return int(100 * p.used / life)
	}
	return 0
}

// started is when the process began: the time of today, or the day.
func (p *process) started(up time.Duration, now time.Time) string {
	at := now.Add(p.start - up)
	switch {
	case at.YearDay() == now.YearDay() && at.Year() == now.Year():
		return at.Format("15:04")
	case at.Year() == now.Year():
		return at.Format("Jan02")
	}
	return at.Format("2006")
}

func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// uptime is how long the machine has run (proc_uptime(5)).
func uptime() (time.Duration, error) {
	raw, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(raw), " ")
	s, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/uptime: %w", err)
	}
	return time.Duration(s * float64(time.Second)), nil
}

func filterPS(w io.Writer, pids []int, args []string) error {
	defer early.Lock()()
	out, err := exec.Command("ps", args...).Output()
	if err != nil {
		return fmt.Errorf("ps %s: %w", strings.Join(args, " "), err)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return fmt.Errorf("ps %s: its output has no PID column", strings.Join(args, " "))
	}
	fmt.Fprintln(w, lines[0])
	for _, l := range lines[1:] {
		f := strings.Fields(l)
		if len(f) <= column {
			continue
		}
		if pid, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Fprintln(w, l)
		}
	}
	return nil
}
