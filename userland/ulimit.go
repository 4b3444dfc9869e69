package userland

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/interp"
)

// resource is one that ulimit(1p) shows and sets; unit is in bytes, or 1 for what is counted.
type resource struct {
	letter byte
	name   string // as ulimit -a shows it
	number int
	unit   uint64
}

var resources = []resource{
	{'c', "core file size (blocks)", unix.RLIMIT_CORE, 512},
	{'d', "data seg size (kb)", unix.RLIMIT_DATA, 1 << 10},
	{'e', "scheduling priority", unix.RLIMIT_NICE, 1},
	{'f', "file size (blocks)", unix.RLIMIT_FSIZE, 512},
	{'i', "pending signals", unix.RLIMIT_SIGPENDING, 1},
	{'l', "max locked memory (kb)", unix.RLIMIT_MEMLOCK, 1 << 10},
	{'m', "max memory size (kb)", unix.RLIMIT_RSS, 1 << 10},
	{'n', "open files", unix.RLIMIT_NOFILE, 1},
	{'p', "processes", unix.RLIMIT_NPROC, 1},
	{'q', "POSIX message queues (bytes)", unix.RLIMIT_MSGQUEUE, 1},
	{'r', "real-time priority", unix.RLIMIT_RTPRIO, 1},
	{'s', "stack size (kb)", unix.RLIMIT_STACK, 1 << 10},
	{'t', "cpu time (seconds)", unix.RLIMIT_CPU, 1},
	{'v', "address space (kb)", unix.RLIMIT_AS, 1 << 10},
	{'w', "locks", unix.RLIMIT_LOCKS, 1},
}

const unlimited = "unlimited"

// ulimit shows or sets limits of the process (ulimit(1p), getrlimit(2)); subshells share them.
func (s *shell) ulimit(hc interp.HandlerContext, args []string) int {
	c := &Call{Name: "ulimit", Args: args, Stdout: hc.Stdout, Stderr: hc.Stderr}
	letters := "u"
	for _, r := range resources {
		letters += string(r.letter)
	}
	o, words, status, ok := c.options("HSa"+letters, "")
	switch {
	case !ok:
		return status
	case len(words) > 1:
		return c.usagef("extra operand %q", words[1])
	case o.has('a') && len(words) > 0:
		return c.usagef("option -a sets nothing: %q", words[0])
	}
	hard := o.has('H') && !o.has('S')
	if o.has('a') {
		for _, r := range resources {
			limit, err := r.limit()
			if err != nil {
				return c.fault(r.name, err)
			}
			fmt.Fprintf(hc.Stdout, "%-32s(-%c)  %s\n", r.name, r.letter, r.show(limit, hard))
		}
		return exitOK
	}
	chosen := 'f'
	if l := o.last(letters); l != 0 {
		chosen = rune(l)
	}
	if chosen == 'u' {
		chosen = 'p' // as bash has it
	}
	for _, r := range resources {
		if rune(r.letter) != chosen {
			continue
		}
		limit, err := r.limit()
		if err == nil && len(words) == 0 {
			fmt.Fprintln(hc.Stdout, r.show(limit, hard))
			return exitOK
		}
		if err == nil {
			var value uint64
			if value, err = r.parse(words[0], limit); err != nil {
				return c.usagef("%v", err)
			}
			if o.has('S') || !o.has('H') {
				limit.Cur = value
			}
			if o.has('H') || !o.has('S') {
				limit.Max = value
			}
			err = syscall.Setrlimit(r.number, &limit)
		}
		if err != nil {
			return c.fault(r.name, err)
		}
	}
	return exitOK
}

// limit reads the limit that programs get. The Go runtime has raised the number of open files for
// this process alone (package syscall), so a program is asked.
func (r resource) limit() (limit syscall.Rlimit, err error) {
	if err = syscall.Getrlimit(r.number, &limit); err != nil || r.number != unix.RLIMIT_NOFILE {
		return limit, err
	}
	cat := exec.Cmd{Path: "/proc/self/exe", Args: []string{"cat", "/proc/self/limits"}}
	out, err := cat.Output()
	if err != nil {
		return limit, err
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			_, err = fmt.Sscan(rest, &limit.Cur, &limit.Max)
			return limit, err
		}
	}
	return limit, os.ErrNotExist
}

func (r resource) show(limit syscall.Rlimit, hard bool) string {
	value := limit.Cur
	if hard {
		value = limit.Max
	}
	if value == math.MaxUint64 {
		return unlimited
	}
	return strconv.FormatUint(value/r.unit, 10)
}

func (r resource) parse(word string, now syscall.Rlimit) (uint64, error) {
	switch word {
	case unlimited:
		return math.MaxUint64, nil
	case "hard":
		return now.Max, nil
	case "soft":
		return now.Cur, nil
	}
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil || n > math.MaxUint64/r.unit {
		return 0, fmt.Errorf("limit %q: want a number, hard, soft or unlimited", word)
	}
	return n * r.unit, nil
}
