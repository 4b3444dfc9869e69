package docker

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"strake/engine"
)

// psColumn is a column that ps(1) has: its title and the text for a process.
type psColumn struct {
	title string
	text  func(p *engine.Process, on *psHost) string
}

// psHost is what columns depend on beside the process.
type psHost struct {
	now         time.Time
	memoryBytes uint64
	userName    func(uid int) string // "" for a number without a name
	groupName   func(gid int) string
}

// psFormats are the columns of ps(1)'s own formats.
var psFormats = map[string]string{
	"-e": "pid,tname,time,ucmd",
	"-f": psUID + ",pid,ppid,c,stime,tname,time,cmd",
	"-F": psUID + ",pid,ppid,c,sz,rss,psr,stime,tname,time,cmd",
	"-j": "pid,pgid,sid,tname,time,ucmd",
	"a":  "pid,tname,stat,bsdtime,args",
	"u":  "user,pid,pcpu,pmem,vsz,rss,tname,stat,bsdstart,bsdtime,args",
	"j":  "ppid,pid,pgid,sid,tname,tpgid,stat,uid,bsdtime,args",
}

// psArguments reads the arguments of ps(1) as docker top sends them and returns the columns. The
// processes are those of the container whatever is selected, so the options that select by
// terminal or session (-e, -A, -a, -d, a, x) have no effect. dockerd hands the arguments to the
// host's ps; what is not in psColumns and psFormats is refused here.
func psArguments(text string) ([]psColumn, error) {
	args := strings.Fields(text)
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	bad := func(why string) ([]psColumn, error) {
		return nil, invalid("ps_args %q: %s", text, why)
	}
	var format string // the last of -e, a and the like that was given
	var own []string  // of -o
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--format" {
			arg = "-o"
		} else if list, ok := strings.CutPrefix(arg, "--format="); ok {
			arg = "-o" + list
		}
		if arg == "-aux" {
			arg = "aux" // as ps(1) reads it, unless there is a user x
		}
		letters, dash := strings.CutPrefix(arg, "-")
		for i := 0; i < len(letters); i++ {
			option := letters[i : i+1]
			if dash {
				option = "-" + option
			}
			switch option {
			case "-o", "o":
				list := letters[i+1:]
				if list == "" && len(args) > 0 {
					list, args = args[0], args[1:]
				}
				if list == "" {
					return bad("columns are missing after " + option)
				}
				own, i = append(own, list), len(letters)
			case "-e", "-A", "-a", "-d", "a", "x":
				if format == "" {
					format = map[bool]string{true: "-e", false: "a"}[dash]
				}
			case "-f", "-F", "-j", "u", "j":
				format = option
			case "-w", "w": // lines are not shortened
			default:
				return bad(fmt.Sprintf(
					"option %q of %q is not known: want -e, -A, -a, -d, -f, -F, -j, -w, "+
						"-o COLUMNS, a, j, u, w or x", option, arg,
				))
			}
		}
		if letters == "" {
			return bad("an option is missing after -")
		}
	}
	if len(own) == 0 {
		own = []string{psFormats[format]}
		if format == "" {
			own[0] = psFormats["-e"]
		}
	}
	var columns []psColumn
	for _, list := range own {
		more, unknown := psList(list)
		if unknown != "" {
			return bad(fmt.Sprintf("unknown user-defined format specifier %q", unknown))
		}
		columns = append(columns, more...)
	}
	if !slices.ContainsFunc(columns, func(c psColumn) bool { return c.title == "PID" }) {
		return nil, invalid("Couldn't find PID field in ps output")
	}
	return columns, nil
}

// psList reads a list of columns, "pid,cmd" or "pid,user=OWNER": a title of the user's own is the
// rest of the list. unknown is the first name that is no column's.
func psList(list string) (columns []psColumn, unknown string) {
	for list != "" {
		name, rest, _ := strings.Cut(list, ",")
		name, _, renamed := strings.Cut(name, "=")
		c, ok := psColumns[name]
		if !ok {
			return nil, name
		}
		if renamed {
			_, c.title, _ = strings.Cut(list, "=")
			rest = ""
		}
		columns, list = append(columns, c), rest
	}
	return columns, ""
}

// psColumns are the columns by the names that -o takes (ps(1), STANDARD FORMAT SPECIFIERS), and
// psUID.
var psColumns = func() map[string]psColumn {
	type process = engine.Process
	num := func(n func(p *process) int) func(*process, *psHost) string {
		return func(p *process, _ *psHost) string { return strconv.Itoa(n(p)) }
	}
	of := func(f func(p *process) string) func(*process, *psHost) string {
		return func(p *process, _ *psHost) string { return f(p) }
	}
	user := func(p *process, on *psHost) string { return psName(on.userName(p.UID), p.UID) }
	group := func(p *process, on *psHost) string { return psName(on.groupName(p.GID), p.GID) }
	out := map[string]psColumn{}
	for _, c := range append(psTimes(), []psNamed{
		{"pid", "PID", num(func(p *process) int { return p.PID })},
		{"ppid", "PPID", num(func(p *process) int { return p.PPID })},
		{"pgid", "PGID", num(func(p *process) int { return p.PGID })},
		{"pgrp", "PGRP", num(func(p *process) int { return p.PGID })},
		{"sid", "SID", num(func(p *process) int { return p.SID })},
		{"sess session", "SESS", num(func(p *process) int { return p.SID })},
		{"tpgid", "TPGID", num(func(p *process) int { return p.TPGID })},
		{"user uname", "USER", user},
		{"euser", "EUSER", user},
		{psUID, "UID", user},
		{"ruser", "RUSER", func(p *process, on *psHost) string {
			return psName(on.userName(p.RUID), p.RUID)
		}},
		{"group", "GROUP", group},
		{"egroup", "EGROUP", group},
		{"rgroup", "RGROUP", func(p *process, on *psHost) string {
			return psName(on.groupName(p.RGID), p.RGID)
		}},
		{"uid", "UID", num(func(p *process) int { return p.UID })},
		{"euid", "EUID", num(func(p *process) int { return p.UID })},
		{"ruid", "RUID", num(func(p *process) int { return p.RUID })},
		{"gid", "GID", num(func(p *process) int { return p.GID })},
		{"egid", "EGID", num(func(p *process) int { return p.GID })},
		{"rgid", "RGID", num(func(p *process) int { return p.RGID })},
		{"c", "C", num(func(p *process) int { return min(p.CPUPercent, 99) })},
		{"pcpu %cpu", "%CPU", func(p *process, on *psHost) string {
			return psTenths(uint64(1000*p.CPUTime), uint64(on.age(p)))
		}},
		{"pmem %mem", "%MEM", func(p *process, on *psHost) string {
			return psTenths(1000*uint64(p.ResidentBytes), on.memoryBytes)
		}},
		{"vsz vsize", "VSZ", num(func(p *process) int { return int(p.VirtualBytes >> 10) })},
		{"rss rssize rsz", "RSS", num(func(p *process) int { return int(p.ResidentBytes >> 10) })},
		{"sz", "SZ", num(func(p *process) int { return int(p.VirtualBytes) / os.Getpagesize() })},
		{"tname", "TTY", of(psTTY)},
		{"tty tt", "TT", of(psTTY)},
		{"stat", "STAT", of(func(p *process) string { return p.State })},
		{"s state", "S", of(func(p *process) string { return p.State[:min(1, len(p.State))] })},
		{"ni nice", "NI", num(func(p *process) int { return p.Nice })},
		{"pri", "PRI", num(func(p *process) int { return 39 - p.Priority })},
		{"nlwp thcount", "NLWP", num(func(p *process) int { return p.Threads })},
		{"psr", "PSR", num(func(p *process) int { return p.Processor })},
		{"cmd", "CMD", of(psCommand)},
		{"args command", "COMMAND", of(psCommand)},
		{"ucmd", "CMD", of(psComm)},
		{"comm ucomm", "COMMAND", of(psComm)},
	}...) {
		for _, name := range strings.Split(c.names, " ") {
			out[name] = psColumn{c.title, c.text}
		}
	}
	return out
}()

// psNamed is a column with its names.
type psNamed struct {
	names, title string
	text         func(p *engine.Process, on *psHost) string
}

// psTimes are the columns about when a process was started and for how long it has run.
func psTimes() []psNamed {
	type process = engine.Process
	cpu := func(f func(d time.Duration) string) func(*process, *psHost) string {
		return func(p *process, _ *psHost) string { return f(p.CPUTime) }
	}
	seconds := func(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
	start := func(today, before string) func(*process, *psHost) string {
		return func(p *process, on *psHost) string {
			if on.now.Sub(p.StartedAt) > 24*time.Hour {
				return p.StartedAt.Local().Format(before)
			}
			return p.StartedAt.Local().Format(today)
		}
	}
	return []psNamed{
		{"lstart", "STARTED", start(time.ANSIC, time.ANSIC)},
		{"start", "STARTED", start(time.TimeOnly, "Jan 02")},
		{"bsdstart", "START", start("15:04", "Jan _2")},
		{"stime", "STIME", psSTime},
		{"start_time", "START", psSTime},
		{"etime", "ELAPSED", func(p *process, on *psHost) string { return psElapsed(on.age(p)) }},
		{"etimes", "ELAPSED", func(p *process, on *psHost) string { return seconds(on.age(p)) }},
		{"time cputime", "TIME", cpu(psTime)},
		{"times cputimes", "TIME", cpu(seconds)},
		{"bsdtime", "TIME", cpu(func(d time.Duration) string {
			s := int(d / time.Second)
			return fmt.Sprintf("%d:%02d", s/60, s%60)
		})},
	}
}

// psUID is the column UID of -f: a user's name with the title of a number.
const psUID = "-f:uid"

// age is how long a process has run.
func (on *psHost) age(p *engine.Process) time.Duration {
	return max(on.now.Sub(p.StartedAt), 0)
}

func psTTY(p *engine.Process) string { return cmp.Or(p.TTY, "?") }

// psSTime is when a process was started: the time today, the day in this year, or the year.
func psSTime(p *engine.Process, on *psHost) string {
	now, start := on.now.Local(), p.StartedAt.Local()
	switch {
	case now.Year() != start.Year():
		return start.Format("2006")
	case now.YearDay() != start.YearDay():
		return start.Format("Jan02")
	}
	return start.Format("15:04")
}

// psTenths is a share, given in thousandths of the whole, as a percentage.
func psTenths(part, whole uint64) string {
	if whole == 0 {
		return "0.0"
	}
	n := part / whole
	return fmt.Sprintf("%d.%d", n/10, n%10)
}

// psComm is the name of a process; one that has ended is marked.
func psComm(p *engine.Process) string {
	if strings.HasPrefix(p.State, "Z") {
		return p.Name + " <defunct>"
	}
	return p.Name
}

// psTime is [DD-]hh:mm:ss.
func psTime(d time.Duration) string {
	s := int64(d / time.Second)
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		text = fmt.Sprintf("%d-%s", days, text)
	}
	return text
}

// psElapsed is [[DD-]hh:]mm:ss.
func psElapsed(d time.Duration) string {
	if d >= time.Hour {
		return psTime(d)
	}
	s := int64(max(d, 0) / time.Second)
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}

// psName is a name as ps(1) fits it into eight columns, or the number.
func psName(name string, id int) string {
	switch {
	case name == "":
		return strconv.Itoa(id)
	case len(name) > 8:
		return name[:7] + "+"
	}
	return name
}

// psCommand is the command line of a process; one that has ended has none.
func psCommand(p *engine.Process) string {
	if strings.HasPrefix(p.State, "Z") {
		return "[" + p.Name + "] <defunct>"
	}
	return p.Command
}
