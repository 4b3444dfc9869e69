package userland

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// entry is a file as ls and stat show it.
type entry struct {
	name   string
	path   string
	st     unix.Stat_t
	target string // of a symbolic link
}

func (e *entry) isDir() bool { return e.st.Mode&unix.S_IFMT == unix.S_IFDIR }

// ls lists files (ls(1p)): -a -A -l -n -g -o -h -i -s -1 -C -d -R -F -p -r -t -S -U -c -u -L -H -Q.
// Names are sorted by their bytes; columns are used on terminals.
func ls(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"aAlngohis1CdRFprtSUcuLHQ\x01::",
		"all=a almost-all=A human-readable=h inode=i size=s directory=d recursive=R classify=F "+
			"reverse=r no-group=o numeric-uid-gid=n dereference=L quote-name=Q color=\x01",
	)
	if !ok {
		return status
	}
	if v := o.value('\x01', "never"); v != "" && v != "never" && v != "auto" && v != "always" {
		return c.usagef("option --color: %q is none of never, auto, always", v)
	}
	l := &lister{
		c: c, o: o, w: c.buffered(),
		long: o.last("lngo1C") != '1' && o.last("lngo1C") != 'C' &&
			(o.has('l') || o.has('n') || o.has('g') || o.has('o')),
	}
	if !l.long && o.last("1C") != '1' {
		l.width = terminalWidth(c)
		if o.last("1C") == 'C' && l.width == 0 {
			l.width = 80
		}
	}
	if l.long {
		l.accounts = readAccounts()
		l.now = time.Now()
	}
	if len(names) == 0 {
		names = []string{"."}
	}
	var files, dirs []*entry
	for _, n := range names {
		// A link given as an operand is followed, unless its own details are asked for (POSIX).
		follow := !l.long && !o.has('F') && !o.has('d') || o.has('H') || o.has('L') ||
			strings.HasSuffix(n, "/")
		e, err := l.stat(n, c.path(n), follow)
		if err != nil {
			status = c.fault(n, err)
			continue
		}
		if e.isDir() && !o.has('d') {
			dirs = append(dirs, e)
		} else {
			files = append(files, e)
		}
	}
	l.sort(files)
	l.sort(dirs)
	l.print(files, false)
	for i, d := range dirs {
		if i > 0 || len(files) > 0 {
			l.w.WriteByte('\n')
		}
		if s := l.directory(ctx, d, len(names) > 1 || o.has('R')); s != exitOK {
			status = s
		}
	}
	return c.finish(l.w, status)
}

// terminalWidth is the number of columns of standard output, 0 when it is no terminal.
func terminalWidth(c *Call) int {
	f, ok := c.stdoutFile()
	if !ok {
		return 0
	}
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if ws.Col == 0 {
		return 80
	}
	return int(ws.Col)
}

type lister struct {
	c        *Call
	o        options
	w        *bufio.Writer
	long     bool
	width    int
	accounts accounts
	now      time.Time
}

func (l *lister) stat(name, path string, follow bool) (*entry, error) {
	e := &entry{name: name, path: path}
	err := unix.Lstat(path, &e.st)
	if err != nil {
		return nil, err
	}
	if e.st.Mode&unix.S_IFMT == unix.S_IFLNK {
		var to unix.Stat_t
		if follow && unix.Stat(path, &to) == nil {
			e.st = to
		} else if l.long {
			e.target, _ = os.Readlink(path)
		}
	}
	return e, nil
}

func (l *lister) directory(ctx context.Context, d *entry, titled bool) int {
	f, err := os.Open(d.path)
	var names []string
	if err == nil {
		names, err = f.Readdirnames(-1)
		f.Close()
	}
	if err != nil {
		return l.c.fault(d.name, err)
	}
	if titled {
		l.w.WriteString(d.name + ":\n")
	}
	if l.o.has('a') {
		names = append(names, ".", "..")
	}
	status := exitOK
	var list []*entry
	for _, n := range names {
		if n[0] == '.' && !l.o.has('a') && !l.o.has('A') {
			continue
		}
		e, err := l.stat(n, strings.TrimSuffix(d.path, "/")+"/"+n, l.o.has('L'))
		if err == unix.ENOENT {
			continue // went away since
		}
		if err != nil {
			status = l.c.fault(n, err)
			continue
		}
		list = append(list, e)
	}
	l.sort(list)
	l.print(list, true)
	if !l.o.has('R') {
		return status
	}
	for _, e := range list {
		if !e.isDir() || e.name == "." || e.name == ".." {
			continue
		}
		if ctx.Err() != nil {
			return exitFault
		}
		l.w.WriteByte('\n')
		sub := *e
		sub.name = strings.TrimSuffix(d.name, "/") + "/" + e.name
		if s := l.directory(ctx, &sub, true); s != exitOK {
			status = s
		}
	}
	return status
}

func (l *lister) time(e *entry) time.Time {
	ts := e.st.Mtim
	switch l.o.last("cu") {
	case 'c':
		ts = e.st.Ctim
	case 'u':
		ts = e.st.Atim
	}
	return time.Unix(ts.Unix())
}

func (l *lister) sort(list []*entry) {
	how := l.o.last("tSU")
	slices.SortStableFunc(list, func(a, b *entry) int {
		d := 0
		switch how {
		case 'U':
			return 0
		case 't':
			d = l.time(b).Compare(l.time(a))
		case 'S':
			d = cmp.Compare(b.st.Size, a.st.Size)
		}
		if d == 0 {
			d = strings.Compare(a.name, b.name)
		}
		return d
	})
	if l.o.has('r') && how != 'U' {
		slices.Reverse(list)
	}
}

// shown is a name as printed: control characters become ? on a terminal, so that a name cannot
// drive it.
func (l *lister) shown(e *entry) string {
	n := e.name
	switch {
	case l.o.has('Q'):
		n = strconv.Quote(n)
	case terminalWidth(l.c) > 0:
		n = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return '?'
			}
			return r
		}, n)
	}
	return n + l.mark(e.st.Mode)
}

func (l *lister) mark(mode uint32) string {
	if mode&unix.S_IFMT == unix.S_IFDIR && (l.o.has('p') || l.o.has('F')) {
		return "/"
	}
	if !l.o.has('F') {
		return ""
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFLNK:
		if l.long {
			return ""
		}
		return "@"
	case unix.S_IFSOCK:
		return "="
	case unix.S_IFIFO:
		return "|"
	case unix.S_IFREG:
		if mode&0o111 != 0 {
			return "*"
		}
	}
	return ""
}

// blocks are the 1024-byte blocks a file occupies.
func (e *entry) blocks() int64 { return (e.st.Blocks + 1) / 2 }

func (l *lister) print(list []*entry, inDir bool) {
	if inDir && (l.long || l.o.has('s')) {
		var sum int64
		for _, e := range list {
			sum += e.st.Blocks
		}
		if l.o.has('h') {
			fmt.Fprintf(l.w, "total %s\n", humanSize(uint64(sum)*512))
		} else {
			fmt.Fprintf(l.w, "total %d\n", (sum+1)/2)
		}
	}
	rows := make([][]string, len(list))
	for i, e := range list {
		rows[i] = l.columns(e)
	}
	widths := []int{}
	for _, r := range rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var cells []string
	for i, r := range rows {
		var b strings.Builder
		for j, cell := range r {
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell))
			if strings.HasPrefix(cell, "\x00") { // left-aligned
				b.WriteString(cell[1:] + pad + " ")
			} else {
				b.WriteString(pad + cell + " ")
			}
		}
		b.WriteString(l.shown(list[i]))
		if list[i].target != "" {
			b.WriteString(" -> " + list[i].target)
		}
		cells = append(cells, b.String())
	}
	if l.width == 0 || l.long {
		for _, s := range cells {
			l.w.WriteString(s + "\n")
		}
		return
	}
	writeColumns(l.w, cells, l.width)
}

// writeColumns fills columns from top to bottom, as many as fit.
func writeColumns(w *bufio.Writer, cells []string, width int) {
	widest := 0
	for _, s := range cells {
		widest = max(widest, utf8.RuneCountInString(s)+2)
	}
	if len(cells) == 0 {
		return
	}
	cols := max(width/widest, 1)
	rows := (len(cells) + cols - 1) / cols
	for r := range rows {
		for i := r; i < len(cells); i += rows {
			w.WriteString(cells[i])
			if i+rows < len(cells) {
				w.WriteString(strings.Repeat(" ", widest-utf8.RuneCountInString(cells[i])))
			}
		}
		w.WriteByte('\n')
	}
}

func (l *lister) columns(e *entry) []string {
	var out []string
	if l.o.has('i') {
		out = append(out, strconv.FormatUint(e.st.Ino, 10))
	}
	if l.o.has('s') {
		n := strconv.FormatInt(e.blocks(), 10)
		if l.o.has('h') {
			n = humanSize(uint64(e.st.Blocks) * 512)
		}
		out = append(out, n)
	}
	if !l.long {
		return out
	}
	out = append(out, "\x00"+modeString(e.st.Mode), strconv.FormatUint(uint64(e.st.Nlink), 10))
	user, grp := strconv.Itoa(int(e.st.Uid)), strconv.Itoa(int(e.st.Gid))
	if !l.o.has('n') {
		user, grp = l.accounts.userName(int(e.st.Uid)), l.accounts.groupName(int(e.st.Gid))
	}
	if !l.o.has('g') {
		out = append(out, "\x00"+user)
	}
	if !l.o.has('o') {
		out = append(out, "\x00"+grp)
	}
	size := strconv.FormatInt(e.st.Size, 10)
	switch m := e.st.Mode & unix.S_IFMT; {
	case m == unix.S_IFCHR || m == unix.S_IFBLK:
		size = fmt.Sprintf("%d, %d", unix.Major(uint64(e.st.Rdev)), unix.Minor(uint64(e.st.Rdev)))
	case l.o.has('h'):
		size = humanSize(uint64(e.st.Size))
	}
	t := l.time(e)
	when := t.Format("Jan _2 15:04")
	if age := l.now.Sub(t); age > 365*24*time.Hour/2 || age < -time.Minute {
		when = t.Format("Jan _2  2006")
	}
	return append(out, size, when)
}

// modeString is a mode as ls -l writes it (ls(1p)).
func modeString(mode uint32) string {
	kind := byte('?')
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		kind = '-'
	case unix.S_IFDIR:
		kind = 'd'
	case unix.S_IFLNK:
		kind = 'l'
	case unix.S_IFCHR:
		kind = 'c'
	case unix.S_IFBLK:
		kind = 'b'
	case unix.S_IFIFO:
		kind = 'p'
	case unix.S_IFSOCK:
		kind = 's'
	}
	b := []byte{kind}
	for i, c := range []byte("rwxrwxrwx") {
		if mode&(1<<(8-i)) == 0 {
			c = '-'
		}
		b = append(b, c)
	}
	special := func(bit uint32, at int, with, without byte) {
		if mode&bit == 0 {
			return
		}
		if b[at] == 'x' {
			b[at] = with
		} else {
			b[at] = without
		}
	}
	special(unix.S_ISUID, 3, 's', 'S')
	special(unix.S_ISGID, 6, 's', 'S')
	special(unix.S_ISVTX, 9, 't', 'T')
	return string(b)
}
