package userland

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// mountEntry is a line of /proc/self/mountinfo (proc(5)).
type mountEntry struct {
	device, kind, point, options string
	number                       string // of the device, as MAJOR:MINOR
}

func readMounts() ([]mountEntry, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(b)), nil
}

func parseMounts(text string) []mountEntry {
	var out []mountEntry
	for l := range strings.Lines(text) {
		left, right, ok := strings.Cut(strings.TrimSuffix(l, "\n"), " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 6 || len(g) < 2 {
			continue
		}
		opts := f[5]
		if len(g) > 2 {
			// The file system's own options follow the mount's; ro and rw are said once.
			for o := range strings.SplitSeq(g[2], ",") {
				if o != "rw" && o != "ro" {
					opts += "," + o
				}
			}
		}
		out = append(out, mountEntry{unoctal(g[1]), g[0], unoctal(f[4]), opts, f[2]})
	}
	return out
}

// unoctal undoes the kernel's \040 for blanks.
func unoctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	out, _ := unescape(s, false)
	return string(out)
}

// visible returns the mounts that are the last ones at their places: each hides those before it.
func visible(mounts []mountEntry) (list []mountEntry) {
	seen := map[string]bool{}
	for i := len(mounts) - 1; i >= 0; i-- {
		if !seen[mounts[i].point] {
			list = append([]mountEntry{mounts[i]}, list...)
		}
		seen[mounts[i].point] = true
	}
	return list
}

// df shows the space of file systems (df(1p); -h, -T, -i, -a as GNU). Without operands, those that
// have any blocks.
func df(_ context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"hkmPTia", "human-readable=h portability=P print-type=T inodes=i all=a",
	)
	if !ok {
		return status
	}
	mounts, err := readMounts()
	if err != nil {
		return c.fault("/proc/self/mountinfo", err)
	}
	var list []mountEntry
	if len(names) == 0 {
		list = visible(mounts)
	}
	for _, n := range names {
		p, err := c.canonical(n, 'e')
		if err != nil {
			status = c.fault(n, err)
			continue
		}
		list = append(list, mountOf(mounts, p))
	}
	unit, unitName := uint64(1024), "1K-blocks"
	if o.has('P') {
		unitName = "1024-blocks"
	}
	if o.has('m') {
		unit, unitName = 1<<20, "1M-blocks"
	}
	w := &table{left: 1}
	if o.has('T') {
		w.left = 2
	}
	row := func(device, kind string, rest ...string) {
		if o.has('T') {
			rest = append([]string{kind}, rest...)
		}
		w.rows = append(w.rows, append([]string{device}, rest...))
	}
	switch {
	case o.has('i'):
		row("Filesystem", "Type", "Inodes", "IUsed", "IFree", "IUse%", "Mounted on")
	case o.has('h'):
		row("Filesystem", "Type", "Size", "Used", "Avail", "Use%", "Mounted on")
	default:
		row("Filesystem", "Type", unitName, "Used", "Available", "Use%", "Mounted on")
	}
	for i, m := range list {
		var st unix.Statfs_t
		if err := unix.Statfs(m.point, &st); err != nil {
			if len(names) > 0 || !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENOENT) {
				status = c.fault(m.point, err)
			}
			continue
		}
		if len(names) == 0 && !o.has('a') && (st.Blocks == 0 || covered(list, i)) {
			continue
		}
		size := func(blocks uint64) string {
			if o.has('h') {
				return humanSize(blocks * uint64(st.Frsize))
			}
			return strconv.FormatUint((blocks*uint64(st.Frsize)+unit-1)/unit, 10)
		}
		total, used, free := size(st.Blocks), size(st.Blocks-st.Bfree), size(st.Bavail)
		percent := share(st.Blocks-st.Bfree, st.Bavail)
		if o.has('i') {
			total, used, free = strconv.FormatUint(st.Files, 10), strconv.FormatUint(
				st.Files-st.Ffree, 10,
			), strconv.FormatUint(st.Ffree, 10)
			percent = share(st.Files-st.Ffree, st.Ffree)
		}
		row(m.device, m.kind, total, used, free, percent, m.point)
	}
	out := c.buffered()
	w.write(out)
	return c.finish(out, status)
}

// table is text in columns: the first left of them and the last are words and start at the left,
// the others are numbers.
type table struct {
	left int
	rows [][]string
}

func (t *table) write(w *bufio.Writer) {
	var width []int
	for _, r := range t.rows {
		for i, cell := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, r := range t.rows {
		for i, cell := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			switch {
			case i == len(r)-1:
				w.WriteString(cell + "\n")
			case i < t.left:
				w.WriteString(cell + pad + " ")
			default:
				w.WriteString(pad + cell + " ")
			}
		}
	}
}

// covered tells whether another mount of the list shows the same file system at a shorter path, or
// before at one as long: that one stands for all (as GNU's df).
func covered(list []mountEntry, i int) bool {
	for j, o := range list {
		if o.number == list[i].number &&
			(len(o.point) < len(list[i].point) || len(o.point) == len(list[i].point) && j < i) {
			return true
		}
	}
	return false
}

// share is used of used+free in percent, rounded up.
func share(used, free uint64) string {
	if used+free == 0 {
		return "-"
	}
	return strconv.FormatUint((used*100+used+free-1)/(used+free), 10) + "%"
}

// mountOf is the mount that a canonical path lies on.
func mountOf(mounts []mountEntry, path string) mountEntry {
	best := mountEntry{device: "-", kind: "-", point: "/"}
	for _, m := range mounts {
		if (m.point == "/" || path == m.point || strings.HasPrefix(path, m.point+"/")) &&
			len(m.point) >= len(best.point) {
			best = m
		}
	}
	return best
}

// du adds up the space that files take (du(1p); -h, -c, -m, -b, -d as GNU). A file with several
// names counts once.
func du(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"ahkmsxcbd:L",
		"all=a human-readable=h summarize=s one-file-system=x total=c bytes=b max-depth=d "+
			"dereference=L",
	)
	if !ok {
		return status
	}
	if o.has('L') {
		return c.usagef("option %q is not supported: links are counted themselves", "-L")
	}
	depth := int64(1 << 30)
	if o.has('d') {
		var err error
		if depth, err = parseCount(o.value('d', "")); err != nil {
			return c.usagef("option -d: %v", err)
		}
	}
	if o.has('s') {
		if o.has('a') {
			return c.usagef("options -a and -s exclude each other")
		}
		depth = 0
	}
	if len(names) == 0 {
		names = []string{"."}
	}
	d := &duRun{
		ctx: ctx, c: c, o: o, depth: depth, w: c.buffered(), seen: map[[2]uint64]bool{},
		status: status,
	}
	var total int64
	for _, n := range names {
		total += d.walk(n, c.path(n), 0)
	}
	if o.has('c') {
		fmt.Fprintf(d.w, "%s\ttotal\n", d.show(total))
	}
	return c.finish(d.w, d.status)
}

// duRun is one call of du.
type duRun struct {
	ctx    context.Context
	c      *Call
	o      options
	depth  int64
	w      *bufio.Writer
	seen   map[[2]uint64]bool // devices and inodes
	dev    uint64             // of the operand
	status int
}

func (d *duRun) show(n int64) string {
	switch {
	case d.o.has('h'):
		return humanSize(uint64(n))
	case d.o.has('b'):
		return strconv.FormatInt(n, 10)
	case d.o.has('m'):
		return strconv.FormatInt((n+1<<20-1)>>20, 10)
	}
	return strconv.FormatInt((n+1023)>>10, 10)
}

// walk returns the size of a file, or of a directory with everything in it, and prints what is to
// be shown. A file is counted once.
func (d *duRun) walk(name, path string, level int64) int64 {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		d.status = d.c.fault(name, err)
		return 0
	}
	if level == 0 {
		d.dev = uint64(st.Dev)
	}
	key := [2]uint64{uint64(st.Dev), st.Ino}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if d.ctx.Err() != nil || d.o.has('x') && uint64(st.Dev) != d.dev ||
		(st.Nlink > 1 && !dir || level == 0) && d.seen[key] {
		return 0
	}
	d.seen[key] = true
	sum := st.Blocks * 512
	if d.o.has('b') {
		sum = st.Size
	}
	if dir {
		list, err := os.ReadDir(path)
		if err != nil {
			d.status = d.c.fault(name, err)
		}
		for _, e := range list {
			sum += d.walk(
				strings.TrimSuffix(name, "/")+"/"+e.Name(), filepath.Join(path, e.Name()), level+1,
			)
		}
	}
	if level == 0 || (dir || d.o.has('a')) && level <= d.depth {
		fmt.Fprintf(d.w, "%s\t%s\n", d.show(sum), name)
	}
	return sum
}

// mount shows the mounts, or makes one with mount(2) (mount(8): -t, -o, -r, and the flags that -o
// knows).
func mount(_ context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"t:o:rw", "types=t options=o read-only=r bind=\x01 rbind=\x02",
	)
	if !ok {
		return status
	}
	if len(names) == 0 {
		list, err := readMounts()
		if err != nil {
			return c.fault("/proc/self/mountinfo", err)
		}
		w := c.buffered()
		for _, m := range list {
			if t := o.value('t', m.kind); t == m.kind {
				fmt.Fprintf(w, "%s on %s type %s (%s)\n", m.device, m.point, m.kind, m.options)
			}
		}
		return c.finish(w, exitOK)
	}
	flags, data, remount := mountFlags(strings.Join(o.values('o'), ","))
	if o.has('r') {
		flags |= unix.MS_RDONLY
	}
	if o.has('\x01') {
		flags |= unix.MS_BIND
	}
	if o.has('\x02') {
		flags |= unix.MS_BIND | unix.MS_REC
	}
	propagation := flags & (unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE)
	if len(names) == 1 && (remount || propagation != 0) {
		names = []string{"none", names[0]}
	}
	if len(names) != 2 {
		return c.usagef("a device and a directory are needed")
	}
	kind := o.value('t', "")
	if kind == "" && flags&unix.MS_BIND == 0 && !remount && propagation == 0 {
		return c.usagef("option -t is needed: file system types are not guessed")
	}
	device := names[0]
	if flags&unix.MS_BIND != 0 {
		device = c.path(device)
	}
	if err := unix.Mount(device, c.path(names[1]), kind, flags, data); err != nil {
		return c.fault(names[1], err)
	}
	if flags&unix.MS_BIND != 0 && flags&unix.MS_RDONLY != 0 && !remount {
		// The kernel ignores other flags while binding; they need a second call (mount(2)).
		if err := unix.Mount(
			"none", c.path(names[1]), "", flags|unix.MS_REMOUNT, data,
		); err != nil {
			return c.errorf(
				"%s: %s", names[1],
				reason(errors.Join(err, unix.Unmount(c.path(names[1]), unix.MNT_DETACH))),
			)
		}
	}
	return exitOK
}

// mountFlags splits options into the flags of mount(2) and what is for the file system.
func mountFlags(opts string) (flags uintptr, data string, remount bool) {
	var rest []string
	for s := range strings.SplitSeq(opts, ",") {
		set, clear := uintptr(0), uintptr(0)
		switch s {
		case "", "defaults":
		case "ro":
			set = unix.MS_RDONLY
		case "rw":
			clear = unix.MS_RDONLY
		case "nosuid":
			set = unix.MS_NOSUID
		case "suid":
			clear = unix.MS_NOSUID
		case "nodev":
			set = unix.MS_NODEV
		case "dev":
			clear = unix.MS_NODEV
		case "noexec":
			set = unix.MS_NOEXEC
		case "exec":
			clear = unix.MS_NOEXEC
		case "sync":
			set = unix.MS_SYNCHRONOUS
		case "async":
			clear = unix.MS_SYNCHRONOUS
		case "noatime":
			set = unix.MS_NOATIME
		case "nodiratime":
			set = unix.MS_NODIRATIME
		case "relatime":
			set = unix.MS_RELATIME
		case "strictatime":
			set = unix.MS_STRICTATIME
		case "remount":
			set, remount = unix.MS_REMOUNT, true
		case "bind":
			set = unix.MS_BIND
		case "rbind":
			set = unix.MS_BIND | unix.MS_REC
		case "private", "rprivate":
			set = unix.MS_PRIVATE
		case "shared", "rshared":
			set = unix.MS_SHARED
		case "slave", "rslave":
			set = unix.MS_SLAVE
		case "unbindable", "runbindable":
			set = unix.MS_UNBINDABLE
		default:
			rest = append(rest, s)
		}
		if strings.HasPrefix(s, "r") &&
			set&(unix.MS_PRIVATE|unix.MS_SHARED|unix.MS_SLAVE|unix.MS_UNBINDABLE) != 0 {
			set |= unix.MS_REC
		}
		flags = flags&^clear | set
	}
	return flags, strings.Join(rest, ","), remount
}

// umount takes mounts away (umount(8): -f, -l).
func umount(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("fl", "force=f lazy=l")
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no directory given")
	}
	flags := 0
	if o.has('f') {
		flags |= unix.MNT_FORCE
	}
	if o.has('l') {
		flags |= unix.MNT_DETACH
	}
	for _, n := range names {
		if err := unix.Unmount(c.path(n), flags); err != nil {
			status = c.fault(n, err)
		}
	}
	return status
}

// sync flushes file systems, or files (sync(1) of coreutils).
func sync(_ context.Context, c *Call) int {
	_, names, status, ok := c.options("", "")
	if !ok {
		return status
	}
	if len(names) == 0 {
		unix.Sync()
	}
	for _, n := range names {
		f, err := os.Open(c.path(n))
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		if err != nil {
			status = c.fault(n, err)
		}
	}
	return status
}
