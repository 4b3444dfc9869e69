package userland

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// randomLetters are n letters and digits that cannot be guessed.
func randomLetters(n int) string {
	s := ""
	for len(s) < n {
		s += rand.Text()
	}
	return s[:n]
}

// touch sets times and makes files (touch(1p); -d and -h as GNU).
func touch(_ context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"acmr:d:t:h", "no-create=c reference=r date=d no-dereference=h",
	)
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no file given")
	}
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	atime, mtime := now, now
	switch k := o.last("rdt"); k {
	case 'r':
		var st unix.Stat_t
		if err := unix.Stat(c.path(o.value('r', "")), &st); err != nil {
			return c.fault(o.value('r', ""), err)
		}
		atime, mtime = st.Atim, st.Mtim
	case 'd', 't':
		parse := parseTime
		if k == 't' {
			parse = parseStamp
		}
		t, err := parse(o.value(k, ""), time.Now(), c.location())
		if err != nil {
			return c.usagef("option -%c: %v", k, err)
		}
		atime = unix.NsecToTimespec(t.UnixNano())
		mtime = atime
	}
	if o.has('a') && !o.has('m') {
		mtime = omit
	}
	if o.has('m') && !o.has('a') {
		atime = omit
	}
	flags := 0
	if o.has('h') {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	for _, n := range names {
		path := c.path(n)
		err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{atime, mtime}, flags)
		if errors.Is(err, unix.ENOENT) {
			if o.has('c') || o.has('h') {
				continue
			}
			var f *os.File
			if f, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o666); err == nil {
				f.Close()
				err = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{atime, mtime}, flags)
			}
		}
		if err != nil {
			status = c.fault(n, err)
		}
	}
	return status
}

// location is the time zone of the call's environment (TZ, as an IANA name or UTC), else the
// process's.
func (c *Call) location() *time.Location {
	if tz := c.env("TZ"); tz != "" {
		if l, err := time.LoadLocation(strings.TrimPrefix(tz, ":")); err == nil {
			return l
		}
		return time.UTC
	}
	return time.Local
}

// parseStamp reads the time of touch -t: [[CC]YY]MMDDhhmm[.ss].
func parseStamp(s string, now time.Time, loc *time.Location) (time.Time, error) {
	main, sec, hasSec := strings.Cut(s, ".")
	if !hasSec {
		sec = "00"
	}
	layout := ""
	switch len(main) {
	case 8:
		main = fmt.Sprintf("%04d", now.In(loc).Year()) + main
		layout = "200601021504.05"
	case 10:
		// POSIX: 69 to 99 are of the 20th century.
		century := "20"
		if main[:2] >= "69" {
			century = "19"
		}
		main, layout = century+main, "200601021504.05"
	case 12:
		layout = "200601021504.05"
	default:
		return time.Time{}, fmt.Errorf("%q is no time (want [[CC]YY]MMDDhhmm[.ss])", s)
	}
	t, err := time.ParseInLocation(layout, main+"."+sec, loc)
	if err != nil {
		return t, fmt.Errorf("%q is no time (want [[CC]YY]MMDDhhmm[.ss])", s)
	}
	return t, nil
}

// parseTime reads a time of date -d and touch -d: now, @SECONDS, or a date, a time of day or both
// in the forms people and programs write.
func parseTime(s string, now time.Time, loc *time.Location) (time.Time, error) {
	text := strings.TrimSpace(s)
	switch text {
	case "now", "":
		return now, nil
	case "today":
		return now, nil
	case "yesterday":
		return now.AddDate(0, 0, -1), nil
	case "tomorrow":
		return now.AddDate(0, 0, 1), nil
	}
	if num, ok := strings.CutPrefix(text, "@"); ok {
		whole, frac, _ := strings.Cut(num, ".")
		var sec, nsec int64
		if _, err := fmt.Sscanf(whole+"\n", "%d\n", &sec); err == nil &&
			strings.Trim(frac, "0123456789") == "" && len(frac) <= 9 {
			if frac != "" {
				fmt.Sscanf((frac + "000000000")[:9], "%d", &nsec)
			}
			return time.Unix(sec, nsec), nil
		}
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999 -0700",
		"2006-01-02 15:04:05 MST", "2006-01-02 15:04:05.999999999",
		"2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02", "20060102", "2006/01/02",
		time.RFC1123Z, time.RFC1123, time.RFC850, time.UnixDate, time.ANSIC,
		"2 Jan 2006", "2 Jan 2006 15:04:05", "Jan 2 2006", "Jan 2, 2006",
	} {
		if t, err := time.ParseInLocation(layout, text, loc); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.ParseInLocation(layout, text, loc); err == nil {
			n := now.In(loc)
			return time.Date(
				n.Year(), n.Month(), n.Day(), t.Hour(), t.Minute(), t.Second(), 0, loc,
			), nil
		}
	}
	return time.Time{}, fmt.Errorf(
		"%q is no time (want now, @SECONDS, or such as 2006-01-02, 15:04, 2006-01-02 15:04:05, "+
			"2006-01-02T15:04:05Z)",
		s,
	)
}
