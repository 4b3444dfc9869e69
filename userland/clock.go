package userland

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// date shows a time (date(1p) with the conversions of strftime(3); -d, -r, -I, -R as GNU). The
// clock is not set: a container has no right to.
func date(_ context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"ud:r:RI\x01::", "utc=u universal=u date=d reference=r rfc-email=R iso-8601=\x01",
	)
	if !ok {
		return status
	}
	loc := c.location()
	if o.has('u') {
		loc = time.UTC
	}
	t := time.Now()
	switch o.last("dr") {
	case 'd':
		var err error
		if t, err = parseTime(o.value('d', ""), t, loc); err != nil {
			return c.errorf("option -d: %v", err)
		}
	case 'r':
		st, err := os.Stat(c.path(o.value('r', "")))
		if err != nil {
			return c.fault(o.value('r', ""), err)
		}
		t = st.ModTime()
	}
	format := "%a %b %e %H:%M:%S %Z %Y"
	switch {
	case len(names) > 1:
		return c.usagef("extra operand %q", names[1])
	case len(names) == 1 && names[0][:min(1, len(names[0]))] == "+":
		format = names[0][1:]
	case len(names) == 1:
		return c.usagef("operand %q: the clock cannot be set (a format starts with +)", names[0])
	case o.has('R'):
		format = "%a, %d %b %Y %H:%M:%S %z"
	case o.has('I') || o.has('\x01'):
		switch v := o.value('\x01', "date"); v {
		case "", "date":
			format = "%F"
		case "hours":
			format = "%FT%H%:z"
		case "minutes":
			format = "%FT%H:%M%:z"
		case "seconds":
			format = "%FT%T%:z"
		case "ns":
			format = "%FT%T,%N%:z"
		default:
			return c.usagef("option --iso-8601: %q is none of date, hours, minutes, seconds, ns", v)
		}
	}
	text, err := strftime(format, t.In(loc))
	if err != nil {
		return c.usagef("%v", err)
	}
	fmt.Fprintln(c.Stdout, text)
	return exitOK
}

// strftime formats a time (strftime(3), in the C locale; %N, %:z and the - and _ flags as GNU
// date).
func strftime(format string, t time.Time) (string, error) {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.WriteByte(format[i])
			continue
		}
		start := i
		i++
		flag := byte(0)
		if i < len(format) && strings.IndexByte("-_0", format[i]) >= 0 {
			flag = format[i]
			i++
		}
		colon := i < len(format) && format[i] == ':'
		if colon {
			i++
		}
		digits := i
		for i < len(format) && format[i] >= '0' && format[i] <= '9' {
			i++
		}
		precision, _ := strconv.Atoi(format[digits:i])
		verb := byte(0)
		if i < len(format) {
			verb = format[i]
		}
		s, ok := timePart(verb, t, colon)
		if !ok || precision > 9 {
			return "", fmt.Errorf("conversion %q is unknown", format[start:min(i+1, len(format))])
		}
		switch {
		case verb == 'N' && precision > 0:
			s = s[:precision]
		case flag == '-':
			if short := strings.TrimLeft(s, "0 "); short != "" || s == "" {
				s = short
			} else {
				s = "0"
			}
		case flag == '_':
			n := 0
			for n < len(s)-1 && s[n] == '0' {
				n++
			}
			s = strings.Repeat(" ", n) + s[n:]
		case flag == '0':
			s = strings.ReplaceAll(s, " ", "0")
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func timePart(verb byte, t time.Time, colon bool) (string, bool) {
	num := func(n, width int) (string, bool) { return fmt.Sprintf("%0*d", width, n), true }
	if colon && verb != 'z' {
		return "", false
	}
	if layout := timeLayout(verb); layout != "" {
		return t.Format(layout), true
	}
	switch verb {
	case '%':
		return "%", true
	case 'n':
		return "\n", true
	case 't':
		return "\t", true
	case 'C':
		return num(t.Year()/100, 2)
	case 'j':
		return num(t.YearDay(), 3)
	case 'k':
		return fmt.Sprintf("%2d", t.Hour()), true
	case 'l':
		return fmt.Sprintf("%2d", (t.Hour()+11)%12+1), true
	case 'N':
		return num(t.Nanosecond(), 9)
	case 's':
		return strconv.FormatInt(t.Unix(), 10), true
	case 'u':
		return num((int(t.Weekday())+6)%7+1, 1)
	case 'w':
		return num(int(t.Weekday()), 1)
	case 'U':
		return num((t.YearDay()+6-int(t.Weekday()))/7, 2)
	case 'W':
		return num((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2)
	case 'V':
		_, w := t.ISOWeek()
		return num(w, 2)
	case 'G':
		y, _ := t.ISOWeek()
		return num(y, 4)
	case 'g':
		y, _ := t.ISOWeek()
		return num(y%100, 2)
	case 'z':
		if colon {
			return t.Format("-07:00"), true
		}
		return t.Format("-0700"), true
	}
	return "", false
}

// timeLayout returns the layout of package time for a conversion, "" if there is none.
func timeLayout(verb byte) string {
	switch verb {
	case 'a':
		return "Mon"
	case 'A':
		return "Monday"
	case 'b', 'h':
		return "Jan"
	case 'B':
		return "January"
	case 'c':
		return "Mon Jan _2 15:04:05 2006"
	case 'd':
		return "02"
	case 'D', 'x':
		return "01/02/06"
	case 'e':
		return "_2"
	case 'F':
		return "2006-01-02"
	case 'H':
		return "15"
	case 'I':
		return "03"
	case 'm':
		return "01"
	case 'M':
		return "04"
	case 'p':
		return "PM"
	case 'P':
		return "pm"
	case 'r':
		return "03:04:05 PM"
	case 'R':
		return "15:04"
	case 'S':
		return "05"
	case 'T', 'X':
		return "15:04:05"
	case 'y':
		return "06"
	case 'Y':
		return "2006"
	case 'Z':
		return "MST"
	}
	return ""
}

// sleep waits for the sum of its times (sleep(1p); fractions and units as GNU).
func sleep(ctx context.Context, c *Call) int {
	_, names, status, ok := c.options("+", "")
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no time given")
	}
	var sum time.Duration
	for _, n := range names {
		d, err := time.Duration(0), error(nil)
		if n == "infinity" || n == "inf" {
			d = 1<<62 - 1
		} else if d, err = parseSeconds(n); err != nil {
			return c.errorf("%v", err)
		}
		if sum += d; sum < 0 {
			sum = 1<<62 - 1
		}
	}
	timer := time.NewTimer(sum)
	defer timer.Stop()
	select {
	case <-timer.C:
		return exitOK
	case <-ctx.Done():
		return exitFault
	}
}

// uptime shows how long the machine runs and its load (/proc/uptime, /proc/loadavg; proc(5)).
func uptime(_ context.Context, c *Call) int {
	_, names, status, ok := c.options("", "")
	if !ok {
		return status
	}
	if len(names) > 0 {
		return c.usagef("extra operand %q", names[0])
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return c.fault("sysinfo", err)
	}
	up := time.Duration(si.Uptime) * time.Second
	text := ""
	if days := int(up.Hours()) / 24; days == 1 {
		text = "1 day, "
	} else if days > 1 {
		text = fmt.Sprintf("%d days, ", days)
	}
	text += fmt.Sprintf("%2d:%02d", int(up.Hours())%24, int(up.Minutes())%60)
	load := func(i int) float64 { return float64(si.Loads[i]) / (1 << 16) }
	fmt.Fprintf(
		c.Stdout, " %s up %s,  load average: %.2f, %.2f, %.2f\n",
		time.Now().In(c.location()).Format("15:04:05"), text, load(0), load(1), load(2),
	)
	return exitOK
}
