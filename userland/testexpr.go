package userland

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// test evaluates a condition (test(1p)); as "[" the last argument has to be "]".
func test(_ context.Context, c *Call) int {
	args := c.Args
	if c.Name == "[" {
		if len(args) == 0 || args[len(args)-1] != "]" {
			return c.usagef("the last argument is not %q", "]")
		}
		args = args[:len(args)-1]
	}
	t := &tester{c: c, args: args}
	ok, err := t.evaluate()
	switch {
	case err != nil:
		return c.usagef("%v", err)
	case ok:
		return exitOK
	}
	return exitFault
}

type tester struct {
	c    *Call
	args []string
}

const testBinary = " = == != < > -eq -ne -gt -ge -lt -le -nt -ot -ef "

func isTestBinary(s string) bool { return s != "" && strings.Contains(testBinary, " "+s+" ") }

func isTestUnary(s string) bool {
	return len(s) == 2 && s[0] == '-' && strings.IndexByte("bcdefghknprsStuwxzLOGN", s[1]) >= 0
}

// evaluate decides by the number of arguments where POSIX does, so that operands may look like
// operators.
func (t *tester) evaluate() (bool, error) {
	a := t.args
	switch {
	case len(a) == 0:
		return false, nil
	case len(a) == 1:
		return a[0] != "", nil
	case len(a) == 2 && a[0] == "!":
		return a[1] == "", nil
	case len(a) == 3 && isTestBinary(a[1]):
		return t.binary(a[0], a[1], a[2])
	case len(a) == 4 && a[0] == "!" && isTestBinary(a[2]):
		ok, err := t.binary(a[1], a[2], a[3])
		return !ok, err
	}
	ok, err := t.or()
	if err == nil && len(t.args) > 0 {
		err = fmt.Errorf("unexpected %q", t.args[0])
	}
	return ok, err
}

func (t *tester) or() (bool, error) {
	a, err := t.and()
	for err == nil && len(t.args) > 0 && t.args[0] == "-o" {
		t.args = t.args[1:]
		var b bool
		b, err = t.and()
		a = a || b
	}
	return a, err
}

func (t *tester) and() (bool, error) {
	a, err := t.primary()
	for err == nil && len(t.args) > 0 && t.args[0] == "-a" {
		t.args = t.args[1:]
		var b bool
		b, err = t.primary()
		a = a && b
	}
	return a, err
}

func (t *tester) primary() (bool, error) {
	a := t.args
	if len(a) == 0 {
		return false, errors.New("an operand is missing")
	}
	switch {
	case len(a) >= 3 && isTestBinary(a[1]):
		t.args = a[3:]
		return t.binary(a[0], a[1], a[2])
	case a[0] == "!":
		t.args = a[1:]
		ok, err := t.primary()
		return !ok, err
	case a[0] == "(":
		t.args = a[1:]
		ok, err := t.or()
		if err == nil && (len(t.args) == 0 || t.args[0] != ")") {
			err = errors.New(`")" is missing`)
		}
		if err == nil {
			t.args = t.args[1:]
		}
		return ok, err
	case len(a) >= 2 && isTestUnary(a[0]):
		t.args = a[2:]
		return t.unary(a[0][1], a[1])
	case len(a) >= 2 && len(a[0]) == 2 && a[0][0] == '-' && a[1] != "-a" && a[1] != "-o" &&
		a[1] != ")":
		return false, fmt.Errorf("operator %q is unknown", a[0])
	}
	t.args = a[1:]
	return a[0] != "", nil
}

func (t *tester) unary(op byte, v string) (bool, error) {
	path := t.c.path(v)
	var st unix.Stat_t
	kind := func(want uint32) bool {
		return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == want
	}
	bit := func(want uint32) bool { return unix.Stat(path, &st) == nil && st.Mode&want != 0 }
	switch op {
	case 'z':
		return v == "", nil
	case 'n':
		return v != "", nil
	case 'e':
		return unix.Stat(path, &st) == nil, nil
	case 'f':
		return kind(unix.S_IFREG), nil
	case 'd':
		return kind(unix.S_IFDIR), nil
	case 'b':
		return kind(unix.S_IFBLK), nil
	case 'c':
		return kind(unix.S_IFCHR), nil
	case 'p':
		return kind(unix.S_IFIFO), nil
	case 'S':
		return kind(unix.S_IFSOCK), nil
	case 'L', 'h':
		return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK, nil
	case 's':
		return unix.Stat(path, &st) == nil && st.Size > 0, nil
	case 'r':
		return unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK, unix.AT_EACCESS) == nil, nil
	case 'w':
		return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS) == nil, nil
	case 'x':
		return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) == nil, nil
	case 'u':
		return bit(unix.S_ISUID), nil
	case 'g':
		return bit(unix.S_ISGID), nil
	case 'k':
		return bit(unix.S_ISVTX), nil
	case 'O':
		return unix.Stat(path, &st) == nil && int(st.Uid) == os.Geteuid(), nil
	case 'G':
		return unix.Stat(path, &st) == nil && int(st.Gid) == os.Getegid(), nil
	case 'N':
		return unix.Stat(path, &st) == nil && newer(st.Mtim, st.Atim), nil
	}
	fd, err := strconv.Atoi(v)
	if err != nil {
		return false, fmt.Errorf("%q is no descriptor number", v)
	}
	return term.IsTerminal(fd), nil
}

func (t *tester) binary(a, op, b string) (bool, error) {
	switch op {
	case "=", "==":
		return a == b, nil
	case "!=":
		return a != b, nil
	case "<":
		return a < b, nil
	case ">":
		return a > b, nil
	case "-nt", "-ot", "-ef":
		var x, y unix.Stat_t
		okX, okY := unix.Stat(t.c.path(a), &x) == nil, unix.Stat(t.c.path(b), &y) == nil
		switch op {
		case "-nt":
			return okX && (!okY || newer(x.Mtim, y.Mtim)), nil
		case "-ot":
			return okY && (!okX || newer(y.Mtim, x.Mtim)), nil
		}
		return okX && okY && x.Dev == y.Dev && x.Ino == y.Ino, nil
	}
	x, err := strconv.ParseInt(strings.TrimSpace(a), 10, 64)
	if err != nil {
		return false, fmt.Errorf("%q is no integer", a)
	}
	y, err := strconv.ParseInt(strings.TrimSpace(b), 10, 64)
	if err != nil {
		return false, fmt.Errorf("%q is no integer", b)
	}
	switch op {
	case "-eq":
		return x == y, nil
	case "-ne":
		return x != y, nil
	case "-gt":
		return x > y, nil
	case "-ge":
		return x >= y, nil
	case "-lt":
		return x < y, nil
	}
	return x <= y, nil
}

// expr evaluates an expression (expr(1p); match, substr, index and length as GNU). Status 1 when
// the result is empty or 0, 2 when it is malformed.
func expr(_ context.Context, c *Call) int {
	args := c.Args
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return c.usagef("no expression given")
	}
	e := &evaluator{args: args}
	v, err := e.level(0)
	if err == nil && len(e.args) > 0 {
		err = fmt.Errorf("unexpected %q", e.args[0])
	}
	if err != nil {
		return c.usagef("%v", err)
	}
	fmt.Fprintln(c.Stdout, v)
	if falsy(v) {
		return exitFault
	}
	return exitOK
}

func falsy(v string) bool {
	return v == "" || strings.Trim(v, "0") == "" || strings.Trim(v, "0") == "-" && v != "-"
}

type evaluator struct{ args []string }

// level parses the operators of one precedence and above (expr(1p), the table of expressions).
func (e *evaluator) level(n int) (string, error) {
	operators := []string{" | ", " & ", " = == > >= < <= != ", " + - ", " * / % ", " : "}
	if n == len(operators) {
		return e.operand()
	}
	a, err := e.level(n + 1)
	for err == nil && len(e.args) > 0 && strings.Contains(operators[n], " "+e.args[0]+" ") {
		op := e.args[0]
		e.args = e.args[1:]
		var b string
		if b, err = e.level(n + 1); err == nil {
			a, err = combine(a, op, b)
		}
	}
	return a, err
}

func (e *evaluator) operand() (string, error) {
	if len(e.args) == 0 {
		return "", errors.New("an operand is missing")
	}
	a := e.args[0]
	e.args = e.args[1:]
	take := func() (string, error) { return e.operand() }
	switch {
	case a == "(":
		v, err := e.level(0)
		if err == nil && (len(e.args) == 0 || e.args[0] != ")") {
			err = errors.New(`")" is missing`)
		}
		if err == nil {
			e.args = e.args[1:]
		}
		return v, err
	case a == "+" && len(e.args) > 0:
		return take()
	case a == "length" && len(e.args) > 0:
		v, err := take()
		return strconv.Itoa(len([]rune(v))), err
	case (a == "match" || a == "index") && len(e.args) > 1:
		s, err := take()
		if err != nil {
			return "", err
		}
		t, err := take()
		if err != nil {
			return "", err
		}
		if a == "match" {
			return combine(s, ":", t)
		}
		for i, r := range []rune(s) {
			if strings.ContainsRune(t, r) {
				return strconv.Itoa(i + 1), nil
			}
		}
		return "0", nil
	case a == "substr" && len(e.args) > 2:
		var part [3]string
		for i := range part {
			var err error
			if part[i], err = take(); err != nil {
				return "", err
			}
		}
		at, err1 := strconv.Atoi(part[1])
		n, err2 := strconv.Atoi(part[2])
		s := []rune(part[0])
		if err1 != nil || err2 != nil || at < 1 || n < 1 || at > len(s) {
			return "", nil
		}
		return string(s[at-1:][:min(n, len(s)-at+1)]), nil
	}
	return a, nil
}

func combine(a, op, b string) (string, error) {
	truth := func(v bool) (string, error) {
		if v {
			return "1", nil
		}
		return "0", nil
	}
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	switch op {
	case "|":
		if !falsy(a) {
			return a, nil
		}
		if falsy(b) {
			return "0", nil
		}
		return b, nil
	case "&":
		if falsy(a) || falsy(b) {
			return "0", nil
		}
		return a, nil
	case ":":
		return matchStart(a, b)
	case "=", "==", "!=", "<", "<=", ">", ">=":
		d := strings.Compare(a, b)
		if errX == nil && errY == nil {
			d = 0
			if x < y {
				d = -1
			} else if x > y {
				d = 1
			}
		}
		return truth(
			map[string]bool{
				"=": d == 0, "==": d == 0, "!=": d != 0, "<": d < 0, "<=": d <= 0, ">": d > 0,
				">=": d >= 0,
			}[op],
		)
	}
	if errX != nil || errY != nil {
		bad := a
		if errX == nil {
			bad = b
		}
		return "", fmt.Errorf("%q is no integer", bad)
	}
	var r int64
	switch op {
	case "+":
		if r = x + y; (r > x) != (y > 0) && y != 0 {
			return "", fmt.Errorf("%d + %d is out of range", x, y)
		}
	case "-":
		if r = x - y; (r < x) != (y > 0) && y != 0 {
			return "", fmt.Errorf("%d - %d is out of range", x, y)
		}
	case "*":
		if r = x * y; x != 0 && (r/x != y || x == -1 && y == -1<<63) {
			return "", fmt.Errorf("%d * %d is out of range", x, y)
		}
	default:
		if y == 0 {
			return "", errors.New("division by zero")
		}
		if r = x / y; op == "%" {
			r = x % y
		}
	}
	return strconv.FormatInt(r, 10), nil
}

// matchStart is the operator ":": the first group of a basic expression that matches at the start,
// or the number of characters matched.
func matchStart(s, pattern string) (string, error) {
	re, err := posixPattern(strings.TrimPrefix(pattern, "^"), false, false)
	if err != nil {
		return "", err
	}
	// The anchor stands outside, around every alternative.
	m := re.FindStringSubmatchIndex(s)
	if m != nil && m[0] != 0 {
		m = nil
	}
	if re.NumSubexp() > 0 {
		if m == nil || m[2] < 0 {
			return "", nil
		}
		return s[m[2]:m[3]], nil
	}
	if m == nil {
		return "0", nil
	}
	return strconv.Itoa(len([]rune(s[:m[1]]))), nil
}
