package userland

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stat shows what the kernel knows of files (stat(1) of coreutils: -c, -f, -L, -t is not known).
func stat(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("c:Lf", "format=c dereference=L file-system=f")
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no file given")
	}
	a := readAccounts()
	for _, n := range names {
		format := o.value('c', "")
		directive := fsDirectives
		var e *entry
		var fs unix.Statfs_t
		var err error
		if o.has('f') {
			if err = unix.Statfs(c.path(n), &fs); format == "" {
				format = "  File: \"%n\"\n    ID: %i Namelen: %l\nBlock size: %s\n" +
					"Blocks: Total: %b Free: %f Available: %a\n" +
					"Inodes: Total: %c Free: %d\n  Type: %t"
			}
		} else {
			e = &entry{name: n, path: c.path(n)}
			if err = unix.Lstat(e.path, &e.st); err == nil && o.has('L') {
				err = unix.Stat(e.path, &e.st)
			}
			if err == nil && e.st.Mode&unix.S_IFMT == unix.S_IFLNK {
				e.target, _ = os.Readlink(e.path)
			}
			if format == "" {
				file := "%n"
				if e.target != "" {
					file = strings.ReplaceAll(e.name+" -> "+e.target, "%", "%%")
				}
				format = "  File: " + file + "\n  Size: %s\tBlocks: %b\tIO Block: %o\t%F\n" +
					"Device: %Hd,%Ld\tInode: %i\tLinks: %h\n" +
					"Access: (%04a/%A)  Uid: (%u/%U)  Gid: (%g/%G)\n" +
					"Access: %x\nModify: %y\nChange: %z"
			}
			directive = func(d string, _ *unix.Statfs_t, _ string) (string, bool) {
				return e.directive(d, a)
			}
		}
		if err != nil {
			status = c.fault(n, err)
			continue
		}
		text, err := expandStat(format, func(d string) (string, bool) {
			return directive(d, &fs, n)
		})
		if err != nil {
			return c.usagef("option -c: %v", err)
		}
		fmt.Fprintln(c.Stdout, text)
	}
	return status
}

// expandStat replaces the directives of a format; widths and the 0 and - flags count.
func expandStat(format string, value func(d string) (string, bool)) (string, error) {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.WriteByte(format[i])
			continue
		}
		start := i
		i++
		for i < len(format) && strings.IndexByte("-0123456789", format[i]) >= 0 {
			i++
		}
		width := format[start+1 : i]
		d := ""
		if i < len(format) {
			d = format[i : i+1]
		}
		if (d == "H" || d == "L") && i+1 < len(format) {
			i++
			d += format[i : i+1]
		}
		if d == "%" {
			b.WriteByte('%')
			continue
		}
		v, ok := value(d)
		if !ok {
			return "", fmt.Errorf("directive %q is unknown", format[start:min(i+1, len(format))])
		}
		n, _ := strconv.Atoi(strings.Trim(width, "-"))
		pad := strings.Repeat(" ", max(n-len(v), 0))
		switch {
		case strings.HasPrefix(width, "-"):
			v += pad
		case strings.HasPrefix(width, "0"):
			v = strings.ReplaceAll(pad, " ", "0") + v
		default:
			v = pad + v
		}
		b.WriteString(v)
	}
	return b.String(), nil
}

func (e *entry) directive(d string, a accounts) (string, bool) {
	st := &e.st
	clock := func(ts unix.Timespec) string {
		return time.Unix(ts.Unix()).Format("2006-01-02 15:04:05.000000000 -0700")
	}
	seconds := func(ts unix.Timespec) string { return strconv.FormatInt(ts.Sec, 10) }
	switch d {
	case "a":
		return strconv.FormatUint(uint64(st.Mode&0o7777), 8), true
	case "A":
		return modeString(st.Mode), true
	case "b":
		return strconv.FormatInt(st.Blocks, 10), true
	case "B":
		return "512", true
	case "d":
		return strconv.FormatUint(uint64(st.Dev), 10), true
	case "Hd":
		return strconv.Itoa(int(unix.Major(uint64(st.Dev)))), true
	case "Ld":
		return strconv.Itoa(int(unix.Minor(uint64(st.Dev)))), true
	case "f":
		return strconv.FormatUint(uint64(st.Mode), 16), true
	case "F":
		return kindName(st), true
	case "g":
		return strconv.Itoa(int(st.Gid)), true
	case "G":
		return a.groupName(int(st.Gid)), true
	case "h":
		return strconv.FormatUint(uint64(st.Nlink), 10), true
	case "i":
		return strconv.FormatUint(st.Ino, 10), true
	case "n":
		return e.name, true
	case "N":
		if e.target != "" {
			return "'" + e.name + "' -> '" + e.target + "'", true
		}
		return "'" + e.name + "'", true
	case "o":
		return strconv.FormatInt(int64(st.Blksize), 10), true
	case "s":
		return strconv.FormatInt(st.Size, 10), true
	case "t":
		return strconv.FormatUint(uint64(unix.Major(uint64(st.Rdev))), 16), true
	case "T":
		return strconv.FormatUint(uint64(unix.Minor(uint64(st.Rdev))), 16), true
	case "u":
		return strconv.Itoa(int(st.Uid)), true
	case "U":
		return a.userName(int(st.Uid)), true
	case "x":
		return clock(st.Atim), true
	case "X":
		return seconds(st.Atim), true
	case "y":
		return clock(st.Mtim), true
	case "Y":
		return seconds(st.Mtim), true
	case "z":
		return clock(st.Ctim), true
	case "Z":
		return seconds(st.Ctim), true
	}
	return "", false
}

func kindName(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if st.Size == 0 {
			return "regular empty file"
		}
		return "regular file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFCHR:
		return "character special file"
	case unix.S_IFBLK:
		return "block special file"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "unknown"
}

func fsDirectives(d string, fs *unix.Statfs_t, name string) (string, bool) {
	switch d {
	case "n":
		return name, true
	case "i":
		return fmt.Sprintf("%x%08x", uint32(fs.Fsid.Val[0]), uint32(fs.Fsid.Val[1])), true
	case "l":
		return strconv.FormatInt(int64(fs.Namelen), 10), true
	case "s", "S":
		return strconv.FormatInt(int64(fs.Bsize), 10), true
	case "b":
		return strconv.FormatUint(fs.Blocks, 10), true
	case "f":
		return strconv.FormatUint(fs.Bfree, 10), true
	case "a":
		return strconv.FormatUint(fs.Bavail, 10), true
	case "c":
		return strconv.FormatUint(fs.Files, 10), true
	case "d":
		return strconv.FormatUint(fs.Ffree, 10), true
	case "t":
		return strconv.FormatUint(uint64(fs.Type), 16), true
	}
	return "", false
}

// readlink shows where links lead (readlink(1) of coreutils): -f, -e and -m give the canonical
// path.
func readlink(_ context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"femnzqsv",
		"canonicalize=f canonicalize-existing=e canonicalize-missing=m no-newline=n zero=z "+
			"quiet=q silent=s verbose=v",
	)
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no file given")
	}
	mode := o.last("fem")
	for i, n := range names {
		var to string
		var err error
		if mode == 0 {
			to, err = os.Readlink(c.path(n))
		} else {
			to, err = c.canonical(n, mode)
		}
		if err != nil {
			status = exitFault
			if o.has('v') {
				c.fault(n, err)
			}
			continue
		}
		end := "\n"
		if o.has('z') {
			end = "\x00"
		} else if o.has('n') && i == len(names)-1 {
			end = ""
		}
		fmt.Fprint(c.Stdout, to, end)
	}
	return status
}

// realpath shows canonical paths (realpath(1) of coreutils): -e all must exist, -m none need to.
func realpath(_ context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"emsqz",
		"canonicalize-existing=e canonicalize-missing=m no-symlinks=s strip=s quiet=q zero=z",
	)
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no file given")
	}
	mode := o.last("em")
	if mode == 0 {
		mode = 'f'
	}
	end := "\n"
	if o.has('z') {
		end = "\x00"
	}
	for _, n := range names {
		var to string
		var err error
		if o.has('s') {
			var wd string
			wd, err = c.workDir()
			to = filepath.Clean(n)
			if !filepath.IsAbs(n) {
				to = filepath.Join(wd, n)
			}
		} else {
			to, err = c.canonical(n, mode)
		}
		if err != nil {
			status = exitFault
			if !o.has('q') {
				c.fault(n, err)
			}
			continue
		}
		fmt.Fprint(c.Stdout, to, end)
	}
	return status
}

// canonical resolves every link of a path. Mode f: the last component may be missing; e: none; m:
// any.
func (c *Call) canonical(name string, mode byte) (string, error) {
	if name == "" {
		return "", unix.ENOENT
	}
	wd, err := c.workDir()
	if err != nil {
		return "", err
	}
	rest := name
	if !filepath.IsAbs(name) {
		rest = wd + "/" + name
	}
	done := "/"
	for hops := 0; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		more := strings.Trim(rest, "/") != ""
		switch part {
		case "", ".":
			continue
		case "..":
			done = filepath.Dir(done)
			continue
		}
		next := filepath.Join(done, part)
		target, err := os.Readlink(next)
		switch {
		case err == nil:
			if hops++; hops > 40 {
				return "", unix.ELOOP
			}
			if filepath.IsAbs(target) {
				done = "/"
			}
			rest = target + "/" + rest
			continue
		case errors.Is(err, unix.EINVAL):
			if st, err := os.Lstat(next); err == nil && !st.IsDir() && more && mode != 'm' {
				return "", unix.ENOTDIR
			}
		case mode == 'm' && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)):
		case mode == 'f' && errors.Is(err, unix.ENOENT) && !more:
		default:
			return "", err
		}
		done = next
	}
	return done, nil
}

// basename and dirname cut paths as text (basename(1p), dirname(1p)).
func basename(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("+as:z", "multiple=a suffix=s zero=z")
	if !ok {
		return status
	}
	suffix := o.value('s', "")
	if !o.has('a') && !o.has('s') {
		switch len(names) {
		case 0:
			return c.usagef("no name given")
		case 1:
		case 2:
			suffix, names = names[1], names[:1]
		default:
			return c.usagef("extra operand %q", names[2])
		}
	}
	end := "\n"
	if o.has('z') {
		end = "\x00"
	}
	for _, n := range names {
		b := n
		if n != "" {
			b = filepath.Base(n)
		}
		if b != suffix {
			b = strings.TrimSuffix(b, suffix)
		}
		fmt.Fprint(c.Stdout, b, end)
	}
	return exitOK
}

func dirname(_ context.Context, c *Call) int {
	_, names, status, ok := c.options("+", "")
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no name given")
	}
	for _, n := range names {
		d := strings.TrimRight(n, "/")
		switch i := strings.LastIndexByte(d, '/'); {
		case d == "" && n != "":
			d = "/"
		case i < 0:
			d = "."
		default:
			if d = strings.TrimRight(d[:i], "/"); d == "" {
				d = "/"
			}
		}
		fmt.Fprintln(c.Stdout, d)
	}
	return exitOK
}
