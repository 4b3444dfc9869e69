package userland

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// find walks trees (find(1p); -maxdepth, -mindepth, -iname, -path, -regex, -empty, -delete,
// -print0, -quit, -readable, -writable, -executable, -L as GNU).
func find(ctx context.Context, c *Call) int {
	f := &finder{c: c, ctx: ctx, w: c.buffered(), maxDepth: 1 << 30, now: time.Now()}
	args := c.Args
	for len(args) > 0 && (args[0] == "-L" || args[0] == "-H" || args[0] == "-P") {
		f.follow = args[0] == "-L"
		args = args[1:]
	}
	var roots []string
	for len(args) > 0 && args[0] != "(" && args[0] != "!" &&
		(args[0] == "" || args[0][0] != '-' || args[0] == "-") {
		roots, args = append(roots, args[0]), args[1:]
	}
	if len(args) > 0 && args[0] == "--help" {
		a, _ := Lookup("find")
		fmt.Fprintf(c.Stdout, "usage: find %s\n", a.Usage)
		return exitOK
	}
	if len(roots) == 0 {
		roots = []string{"."}
	}
	p := &findParser{f: f, args: args}
	test, err := p.alternatives()
	if err == nil && len(p.args) > 0 {
		err = fmt.Errorf("unexpected %q", p.args[0])
	}
	if err != nil {
		return c.usagef("%v", err)
	}
	if !p.acts {
		print := f.print("\n")
		inner := test
		test = func(e *found) bool { return inner(e) && print(e) }
	}
	for _, r := range roots {
		f.walk(r, 0, test)
	}
	for _, flush := range p.batches {
		flush()
	}
	return c.finish(f.w, f.status)
}

type finder struct {
	c                  *Call
	ctx                context.Context
	w                  *bufio.Writer
	follow, depthFirst bool
	oneDevice          bool
	device             uint64
	minDepth, maxDepth int64
	now                time.Time
	quit               bool
	status             int
}

// found is a file under test.
type found struct {
	name  string // as given and printed
	st    unix.Stat_t
	prune bool
}

type findTest func(e *found) bool

func (f *finder) walk(name string, depth int64, test findTest) {
	if f.quit || f.ctx.Err() != nil {
		return
	}
	e := &found{name: name}
	path := f.c.path(name)
	err := unix.Lstat(path, &e.st)
	if err == nil && f.follow {
		var to unix.Stat_t
		if unix.Stat(path, &to) == nil {
			e.st = to
		}
	}
	if err != nil {
		f.status = f.c.fault(name, err)
		return
	}
	if depth == 0 {
		f.device = uint64(e.st.Dev)
	}
	if depth >= f.minDepth && !f.depthFirst {
		test(e)
	}
	dir := e.st.Mode&unix.S_IFMT == unix.S_IFDIR
	// Following links may lead in circles; the kernel's own bound on path length ends those.
	if dir && !e.prune && depth < f.maxDepth && !f.quit &&
		!(f.oneDevice && uint64(e.st.Dev) != f.device) {
		list, err := os.ReadDir(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			f.status = f.c.fault(name, err)
		}
		for _, d := range list {
			f.walk(strings.TrimSuffix(name, "/")+"/"+d.Name(), depth+1, test)
		}
	}
	if depth >= f.minDepth && f.depthFirst && !f.quit {
		test(e)
	}
}

func (f *finder) print(end string) findTest {
	return func(e *found) bool {
		f.w.WriteString(e.name)
		f.w.WriteString(end)
		return true
	}
}

type findParser struct {
	f       *finder
	args    []string
	acts    bool // an action was given, so that -print is not implied
	batches []func()
}

func (p *findParser) alternatives() (findTest, error) {
	a, err := p.conjunction()
	for err == nil && len(p.args) > 0 && (p.args[0] == "-o" || p.args[0] == "-or") {
		p.args = p.args[1:]
		var b findTest
		if b, err = p.conjunction(); err == nil {
			left := a
			a = func(e *found) bool { return left(e) || b(e) }
		}
	}
	return a, err
}

func (p *findParser) conjunction() (findTest, error) {
	all := findTest(nil)
	for len(p.args) > 0 && p.args[0] != "-o" && p.args[0] != "-or" && p.args[0] != ")" {
		if p.args[0] == "-a" || p.args[0] == "-and" {
			p.args = p.args[1:]
		}
		t, err := p.primary()
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = t
			continue
		}
		left := all
		all = func(e *found) bool { return left(e) && t(e) }
	}
	if all == nil {
		all = func(*found) bool { return true }
	}
	return all, nil
}

func (p *findParser) next() (string, bool) {
	if len(p.args) == 0 {
		return "", false
	}
	a := p.args[0]
	p.args = p.args[1:]
	return a, true
}

func (p *findParser) primary() (findTest, error) {
	a, ok := p.next()
	switch {
	case !ok:
		return nil, errors.New("the expression ends too early")
	case a == "!" || a == "-not":
		t, err := p.primary()
		return func(e *found) bool { return !t(e) }, err
	case a == "(":
		t, err := p.alternatives()
		if err != nil {
			return nil, err
		}
		if end, _ := p.next(); end != ")" {
			return nil, errors.New("a ( is not closed")
		}
		return t, nil
	}
	if t, ok := p.plain(a); ok {
		return t, nil
	}
	if a == "-exec" || a == "-ok" {
		if a == "-ok" {
			return nil, errors.New(`"-ok" is not supported: nothing is asked`)
		}
		return p.exec()
	}
	if !strings.Contains(
		" -name -iname -path -wholename -ipath -regex -type -maxdepth -mindepth -size -mtime "+
			"-mmin -atime -ctime -newer -perm -user -group -links -inum ",
		" "+a+" ",
	) {
		return nil, fmt.Errorf("unknown predicate %q", a)
	}
	v, ok := p.next()
	if !ok {
		return nil, fmt.Errorf("predicate %q needs a value", a)
	}
	t, err := p.valued(a, v)
	if err != nil {
		return nil, fmt.Errorf("predicate %q: %w", a, err)
	}
	return t, nil
}

// plain are the predicates without a value.
func (p *findParser) plain(a string) (findTest, bool) {
	yes := func(*found) bool { return true }
	access := func(mode uint32) findTest {
		return func(e *found) bool { return unix.Access(p.f.c.path(e.name), mode) == nil }
	}
	switch a {
	case "-print":
		p.acts = true
		return p.f.print("\n"), true
	case "-print0":
		p.acts = true
		return p.f.print("\x00"), true
	case "-prune":
		return func(e *found) bool { e.prune = true; return true }, true
	case "-quit":
		p.acts = true
		return func(*found) bool { p.f.quit = true; return true }, true
	case "-depth":
		p.f.depthFirst = true
		return yes, true
	case "-xdev", "-mount":
		p.f.oneDevice = true
		return yes, true
	case "-true":
		return yes, true
	case "-false":
		return func(*found) bool { return false }, true
	case "-empty":
		return p.empty, true
	case "-delete":
		p.acts, p.f.depthFirst = true, true
		return p.delete, true
	case "-readable":
		return access(unix.R_OK), true
	case "-writable":
		return access(unix.W_OK), true
	case "-executable":
		return access(unix.X_OK), true
	}
	return nil, false
}

func (p *findParser) empty(e *found) bool {
	switch e.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return e.st.Size == 0
	case unix.S_IFDIR:
		list, err := os.ReadDir(p.f.c.path(e.name))
		return err == nil && len(list) == 0
	}
	return false
}

func (p *findParser) delete(e *found) bool {
	if e.name == "." || e.name == ".." || e.name == "/" {
		return true
	}
	if err := os.Remove(p.f.c.path(e.name)); err != nil {
		p.f.status = p.f.c.fault(e.name, err)
		return false
	}
	return true
}

// compared reads N, +N or -N and returns the comparison.
func compared(v string) (func(n int64) bool, error) {
	n, err := parseCount(strings.TrimLeft(v[:min(len(v), 1)], "+-") + v[min(len(v), 1):])
	if err != nil {
		return nil, fmt.Errorf("%q is no number (want N, +N or -N)", v)
	}
	switch v[0] {
	case '+':
		return func(m int64) bool { return m > n }, nil
	case '-':
		return func(m int64) bool { return m < n }, nil
	}
	return func(m int64) bool { return m == n }, nil
}

func (p *findParser) valued(a, v string) (findTest, error) {
	f := p.f
	switch a {
	case "-name", "-iname", "-path", "-wholename", "-ipath":
		re, err := globPattern(v, strings.HasPrefix(a, "-i"))
		if err != nil {
			return nil, err
		}
		base := strings.HasSuffix(a, "name") && a != "-wholename"
		return func(e *found) bool {
			if base {
				return re.MatchString(path.Base(e.name))
			}
			return re.MatchString(e.name)
		}, nil
	case "-regex":
		re, err := posixPattern(`^\(`+v+`\)$`, false, false)
		if err != nil {
			return nil, err
		}
		return func(e *found) bool { return re.MatchString(e.name) }, nil
	case "-type":
		kinds := map[string]uint32{
			"f": unix.S_IFREG, "d": unix.S_IFDIR, "l": unix.S_IFLNK, "c": unix.S_IFCHR,
			"b": unix.S_IFBLK, "p": unix.S_IFIFO, "s": unix.S_IFSOCK,
		}
		want := map[uint32]bool{}
		for k := range strings.SplitSeq(v, ",") {
			m, ok := kinds[k]
			if !ok {
				return nil, fmt.Errorf("%q is none of f d l c b p s", k)
			}
			want[m] = true
		}
		return func(e *found) bool { return want[e.st.Mode&unix.S_IFMT] }, nil
	case "-maxdepth", "-mindepth":
		n, err := parseCount(v)
		if err != nil {
			return nil, err
		}
		if a == "-maxdepth" {
			f.maxDepth = n
		} else {
			f.minDepth = n
		}
		return func(*found) bool { return true }, nil
	case "-newer":
		var st unix.Stat_t
		if err := unix.Stat(f.c.path(v), &st); err != nil {
			return nil, fmt.Errorf("%s: %s", v, reason(err))
		}
		return func(e *found) bool { return newer(e.st.Mtim, st.Mtim) }, nil
	case "-perm":
		return findPerm(v)
	case "-user":
		u, err := readAccounts().user(v)
		return func(e *found) bool { return int(e.st.Uid) == u.uid }, err
	case "-group":
		g, err := readAccounts().gid(v)
		return func(e *found) bool { return int(e.st.Gid) == g }, err
	case "-size":
		return findSize(v)
	}
	return p.number(a, v)
}

// findSize is -size: a number of blocks of 512 bytes, or of the unit that the last letter names.
func findSize(v string) (findTest, error) {
	unit := int64(512)
	if v != "" {
		if i := strings.IndexByte("bcwkMG", v[len(v)-1]); i >= 0 {
			unit = []int64{512, 1, 2, 1 << 10, 1 << 20, 1 << 30}[i]
			v = v[:len(v)-1]
		}
	}
	cmp, err := compared(v)
	return func(e *found) bool { return cmp((e.st.Size + unit - 1) / unit) }, err
}

// number is a test of an age, or of a number of links or of an inode.
func (p *findParser) number(a, v string) (findTest, error) {
	f := p.f
	cmp, err := compared(v)
	return func(e *found) bool {
		age := func(ts unix.Timespec, unit time.Duration) int64 {
			return int64(f.now.Sub(time.Unix(ts.Unix())) / unit)
		}
		switch a {
		case "-mtime":
			return cmp(age(e.st.Mtim, 24*time.Hour))
		case "-mmin":
			return cmp(age(e.st.Mtim, time.Minute))
		case "-atime":
			return cmp(age(e.st.Atim, 24*time.Hour))
		case "-ctime":
			return cmp(age(e.st.Ctim, 24*time.Hour))
		case "-links":
			return cmp(int64(e.st.Nlink))
		}
		return cmp(int64(e.st.Ino))
	}, err
}

func findPerm(v string) (findTest, error) {
	how := byte('=')
	if v != "" && (v[0] == '-' || v[0] == '/') {
		how, v = v[0], v[1:]
	}
	var want uint32
	if n, err := strconv.ParseUint(v, 8, 12); err == nil {
		want = uint32(n)
	} else {
		change, err := parseMode(v, 0)
		if err != nil {
			return nil, err
		}
		want = change(0, false)
	}
	return func(e *found) bool {
		m := e.st.Mode & 0o7777
		switch how {
		case '-':
			return m&want == want
		case '/':
			return want == 0 || m&want != 0
		}
		return m == want
	}, nil
}

// globPattern compiles a shell pattern (glob(7)) that has to match all of a text; * matches slashes
// and leading dots too, as find's do.
func globPattern(s string, fold bool) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString("(?s")
	if fold {
		b.WriteByte('i')
	}
	b.WriteString(")^")
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteByte('.')
		case '[':
			n, class, err := bracket(strings.Replace(s[i:], "[!", "[^", 1))
			if err != nil {
				b.WriteString(`\[`) // an unclosed bracket stands for itself
				continue
			}
			b.WriteString(class)
			i += n - 1
		case '\\':
			if i+1 < len(s) {
				i++
			}
			b.WriteString(regexp.QuoteMeta(s[i : i+1]))
		default:
			b.WriteString(regexp.QuoteMeta(s[i : i+1]))
		}
	}
	re, err := regexp.Compile(b.String() + "$")
	if err != nil {
		return nil, fmt.Errorf("pattern %q is not understood", s)
	}
	return re, nil
}
