package userland

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// uname shows the system's names (uname(1p); -o as GNU).
func uname(_ context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"asnrvmo",
		"all=a kernel-name=s nodename=n kernel-release=r kernel-version=v machine=m "+
			"operating-system=o",
	)
	if !ok {
		return status
	}
	if len(names) > 0 {
		return c.usagef("extra operand %q", names[0])
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return c.fault("uname", err)
	}
	var out []string
	for _, f := range []struct {
		k byte
		v string
	}{
		{'s', unix.ByteSliceToString(u.Sysname[:])}, {'n', unix.ByteSliceToString(u.Nodename[:])},
		{'r', unix.ByteSliceToString(u.Release[:])},
		{'v', unix.ByteSliceToString(u.Version[:])}, {'m', unix.ByteSliceToString(u.Machine[:])},
		{'o', "Linux"},
	} {
		if o.has('a') || o.has(f.k) || len(o.seen) == 0 && f.k == 's' {
			out = append(out, f.v)
		}
	}
	fmt.Fprintln(c.Stdout, strings.Join(out, " "))
	return exitOK
}

// hostname shows or sets the host's name (hostname(1): -s is the part before the first dot, -f and
// -i are not known).
func hostname(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("s", "short=s")
	if !ok {
		return status
	}
	switch {
	case len(names) > 1:
		return c.usagef("extra operand %q", names[1])
	case len(names) == 1:
		if err := unix.Sethostname([]byte(names[0])); err != nil {
			return c.fault(names[0], err)
		}
		return exitOK
	}
	h, err := os.Hostname()
	if err != nil {
		return c.fault("hostname", err)
	}
	if o.has('s') {
		h, _, _ = strings.Cut(h, ".")
	}
	fmt.Fprintln(c.Stdout, h)
	return exitOK
}

// nproc shows how many processors may be used (nproc(1) of coreutils); cgroup limits are not
// counted in, as there.
func nproc(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("\x01\x02:", "all=\x01 ignore=\x02")
	if !ok {
		return status
	}
	if len(names) > 0 {
		return c.usagef("extra operand %q", names[0])
	}
	n := int64(runtime.NumCPU())
	if o.has('\x01') {
		b, err := os.ReadFile("/sys/devices/system/cpu/present")
		if err != nil {
			return c.fault("/sys/devices/system/cpu/present", err)
		}
		spans := strings.TrimSpace(string(b))
		n = 0
		for s := range strings.SplitSeq(spans, ",") {
			from, to, ranged := strings.Cut(s, "-")
			a, _ := strconv.ParseInt(from, 10, 64)
			z := a
			if ranged {
				z, _ = strconv.ParseInt(to, 10, 64)
			}
			n += z - a + 1
		}
	}
	if o.has('\x02') {
		less, err := parseCount(o.value('\x02', ""))
		if err != nil {
			return c.usagef("option --ignore: %v", err)
		}
		n = max(n-less, 1)
	}
	fmt.Fprintln(c.Stdout, n)
	return exitOK
}

// readMeminfo reads /proc/meminfo (proc_meminfo(5)), in bytes.
func readMeminfo() (map[string]uint64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	mem := map[string]uint64{}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) >= 2 {
			n, _ := strconv.ParseUint(f[1], 10, 64)
			mem[strings.TrimSuffix(f[0], ":")] = n << 10
		}
	}
	return mem, nil
}

// free shows memory (/proc/meminfo; proc(5)).
func free(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("bkmgh", "bytes=b kibi=k mebi=m gibi=g human=h")
	if !ok {
		return status
	}
	if len(names) > 0 {
		return c.usagef("extra operand %q", names[0])
	}
	mem, err := readMeminfo()
	if err != nil {
		return c.fault("/proc/meminfo", err)
	}
	unit := o.last("bkmgh")
	show := func(n uint64) string {
		switch unit {
		case 'h':
			return humanSize(n)
		case 'b':
			return strconv.FormatUint(n, 10)
		case 'm':
			return strconv.FormatUint(n>>20, 10)
		case 'g':
			return strconv.FormatUint(n>>30, 10)
		}
		return strconv.FormatUint(n>>10, 10)
	}
	cache := mem["Buffers"] + mem["Cached"] + mem["SReclaimable"]
	used := mem["MemTotal"] - min(mem["MemAvailable"], mem["MemTotal"])
	const row = "%-7s%12s%12s%12s"
	fmt.Fprintf(
		c.Stdout, row+"%12s%12s%12s\n", "", "total", "used", "free", "shared", "buff/cache",
		"available",
	)
	fmt.Fprintf(
		c.Stdout, row+"%12s%12s%12s\n", "Mem:", show(mem["MemTotal"]), show(used),
		show(mem["MemFree"]), show(mem["Shmem"]), show(cache), show(mem["MemAvailable"]),
	)
	fmt.Fprintf(
		c.Stdout, row+"\n", "Swap:", show(mem["SwapTotal"]), show(mem["SwapTotal"]-mem["SwapFree"]),
		show(mem["SwapFree"]),
	)
	return exitOK
}

// pwd shows the working directory (pwd(1p)): -L as the environment has it when that is true, -P
// without links.
func pwd(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("LP", "logical=L physical=P")
	if !ok {
		return status
	}
	if len(names) > 0 {
		return c.usagef("extra operand %q", names[0])
	}
	wd, err := unix.Getwd()
	if c.Dir != "" {
		wd, err = c.canonical(c.Dir, 'e')
	}
	if err != nil {
		return c.fault(".", err)
	}
	if p := c.env("PWD"); o.last("LP") != 'P' && strings.HasPrefix(p, "/") {
		a, errA := os.Stat(p)
		b, errB := os.Stat(wd)
		if errA == nil && errB == nil && os.SameFile(a, b) {
			wd = p
		}
	}
	fmt.Fprintln(c.Stdout, wd)
	return exitOK
}

// yes repeats a line until its output is closed (yes(1)).
func yes(ctx context.Context, c *Call) int {
	line := "y\n"
	if len(c.Args) > 0 {
		line = strings.Join(c.Args, " ") + "\n"
	}
	block := []byte(strings.Repeat(line, 8192/len(line)+1))
	for ctx.Err() == nil {
		if _, err := c.Stdout.Write(block); err != nil {
			return c.fault("write", err)
		}
	}
	return exitFault
}

// seq counts (seq(1) of coreutils: -s, -w; fractions as far as float64 carries them).
func seq(ctx context.Context, c *Call) int {
	// A negative first number is no option.
	args := c.Args
	var opts []string
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' &&
		strings.IndexByte("0123456789.", args[0][1]) < 0 {
		a := args[0]
		opts, args = append(opts, a), args[1:]
		if a == "--" {
			break
		}
		if (a == "-s" || a == "--separator") && len(args) > 0 {
			opts, args = append(opts, args[0]), args[1:]
		}
	}
	c.Args = opts
	o, _, status, ok := c.options("s:w", "separator=s equal-width=w")
	if !ok {
		return status
	}
	if len(args) < 1 || len(args) > 3 {
		return c.usagef("%d numbers given, want 1 to 3", len(args))
	}
	num := []float64{1, 1, 1}
	decimals := 0
	for i, a := range args {
		v, err := strconv.ParseFloat(a, 64)
		if err != nil || strings.ContainsAny(a, "xXnN_") {
			return c.usagef("%q is no number", a)
		}
		if _, frac, dotted := strings.Cut(a, "."); dotted && !(len(args) > 1 && i == len(args)-1) ||
			dotted && len(args) == 1 {
			decimals = max(decimals, len(frac))
		}
		switch {
		case i == len(args)-1:
			num[2] = v
		case i == 0:
			num[0] = v
		default:
			num[1] = v
		}
	}
	first, step, last := num[0], num[1], num[2]
	if step == 0 {
		return c.usagef("a step of 0 never ends")
	}
	if len(args) == 1 {
		decimals = 0
	}
	width := 0
	if o.has('w') {
		width = max(
			len(strconv.FormatFloat(first, 'f', decimals, 64)),
			len(strconv.FormatFloat(last, 'f', decimals, 64)),
		)
	}
	w := c.buffered()
	sep := o.value('s', "\n")
	slack := step * 1e-9 // so that 0 0.1 1 ends with 1
	for i := 0; ; i++ {
		v := first + float64(i)*step
		if step > 0 && v > last+slack || step < 0 && v < last+slack || ctx.Err() != nil {
			if i > 0 {
				w.WriteByte('\n')
			}
			return c.finish(w, exitOK)
		}
		if i > 0 {
			w.WriteString(sep)
		}
		if _, err := fmt.Fprintf(w, "%0*.*f", width, decimals, v); err != nil {
			return c.finish(w, exitFault)
		}
	}
}

// clearScreen empties the terminal (the ANSI sequences for home and erase, which every terminal
// emulator since the VT100 knows).
func clearScreen(_ context.Context, c *Call) int {
	_, names, status, ok := c.options("", "")
	if !ok {
		return status
	}
	if len(names) > 0 {
		return c.usagef("extra operand %q", names[0])
	}
	fmt.Fprint(c.Stdout, "\x1b[H\x1b[2J\x1b[3J")
	return exitOK
}

// tty names the terminal on standard input (tty(1p)).
func tty(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("s", "silent=s quiet=s")
	if !ok {
		return status
	}
	if len(names) > 0 {
		return c.usagef("extra operand %q", names[0])
	}
	name := "not a tty"
	status = exitFault
	if f, isFile := c.Stdin.(*os.File); isFile {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			status = exitOK
			name, _ = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
		}
	}
	if !o.has('s') {
		fmt.Fprintln(c.Stdout, name)
	}
	return status
}

func trueApplet(context.Context, *Call) int  { return exitOK }
func falseApplet(context.Context, *Call) int { return exitFault }
