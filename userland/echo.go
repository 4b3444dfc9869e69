package userland

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Echo writes the arguments as echo(1) of busybox and bash do: -n without the newline, -e with backslash
// escapes, -E without them. It is exported because the multi-call binary serves it before it looks
// at anything else.
func Echo(c *Call) int {
	args := c.Args
	newline, escapes := true, false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' &&
		strings.Trim(args[0][1:], "neE") == "" {
		for _, k := range args[0][1:] {
			switch k {
			case 'n':
				newline = false
			case 'e':
				escapes = true
			case 'E':
				escapes = false
			}
		}
		args = args[1:]
	}
	out := []byte(strings.Join(args, " "))
	if escapes {
		var stop bool
		out, stop = unescape(string(out), true)
		newline = newline && !stop
	}
	if newline {
		out = append(out, '\n')
	}
	if _, err := c.Stdout.Write(out); err != nil {
		return c.fault("write", err)
	}
	return exitOK
}

func echo(_ context.Context, c *Call) int { return Echo(c) }

// unescape expands backslash escapes; stop means that \c ended the output. zeroOctal is the form of
// echo and %b (\0nnn), without it that of printf's format (\nnn).
func unescape(s string, zeroOctal bool) (out []byte, stop bool) {
	for s != "" {
		if s[0] != '\\' || len(s) == 1 {
			out = append(out, s[0])
			s = s[1:]
			continue
		}
		switch e := s[1]; {
		case e == 'c':
			return out, true
		case e == 'e':
			out, s = append(out, 0x1b), s[2:]
		case e == 'x' && len(s) > 2 && isHex(s[2]):
			n := 3
			if len(s) > 3 && isHex(s[3]) {
				n = 4
			}
			v, _ := strconv.ParseUint(s[2:n], 16, 8)
			out, s = append(out, byte(v)), s[n:]
		case e == '0' && zeroOctal:
			n, v := 2, 0
			for n < len(s) && n < 5 && s[n] >= '0' && s[n] <= '7' {
				v = v*8 + int(s[n]-'0')
				n++
			}
			out, s = append(out, byte(v)), s[n:]
		case strings.IndexByte(`abfnrtv\`, e) >= 0 || e >= '0' && e <= '7':
			b, n := escapeByte(s)
			out, s = append(out, b), s[n:]
		default:
			out, s = append(out, '\\', e), s[2:]
		}
	}
	return out, false
}

func isHex(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F'
}

// printf formats its arguments (printf(1p)): the format is used again while arguments are left.
func printf(_ context.Context, c *Call) int {
	args := c.Args
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return c.usagef("no format given")
	}
	p := &printer{w: c.buffered(), args: args[1:]}
	for {
		before := len(p.args)
		stop, err := p.once(args[0])
		if err != nil {
			c.finish(p.w, exitOK)
			return c.errorf("%v", err)
		}
		if stop || len(p.args) == 0 || len(p.args) == before {
			break
		}
	}
	status := exitOK
	for _, bad := range p.bad {
		status = c.errorf("%q is no number", bad)
	}
	return c.finish(p.w, status)
}

type printer struct {
	w    *bufio.Writer
	args []string
	bad  []string
}

func (p *printer) next() (string, bool) {
	if len(p.args) == 0 {
		return "", false
	}
	a := p.args[0]
	p.args = p.args[1:]
	return a, true
}

func (p *printer) once(format string) (stop bool, err error) {
	for format != "" {
		i := strings.IndexAny(format, `%\`)
		if i < 0 {
			i = len(format)
		}
		p.w.WriteString(format[:i])
		format = format[i:]
		switch {
		case format == "":
		case format[0] == '\\':
			n := escapeLen(format)
			out, stop := unescape(format[:n], false)
			p.w.Write(out)
			if stop {
				return true, nil
			}
			format = format[n:]
		case strings.HasPrefix(format, "%%"):
			p.w.WriteByte('%')
			format = format[2:]
		default:
			n, stop, err := p.directive(format)
			if err != nil || stop {
				return stop, err
			}
			format = format[n:]
		}
	}
	return false, nil
}

// escapeLen is the length of the escape at the start of s.
func escapeLen(s string) int {
	switch {
	case len(s) == 1:
		return 1
	case s[1] == 'x':
		n := 2
		for n < len(s) && n < 4 && isHex(s[n]) {
			n++
		}
		return n
	case s[1] == 'e' || s[1] == 'c':
		return 2
	}
	_, n := escapeByte(s)
	return n
}

func (p *printer) directive(s string) (n int, stop bool, err error) {
	spec := "%"
	i := 1
	for i < len(s) && strings.IndexByte("-+ #0", s[i]) >= 0 {
		spec += s[i : i+1]
		i++
	}
	size := func() error {
		if i < len(s) && s[i] == '*' {
			i++
			a, _ := p.next()
			v := p.integer(a)
			if v > 1<<16 || v < -(1<<16) {
				return fmt.Errorf("width %d is out of range", v)
			}
			spec += strconv.FormatInt(v, 10)
			return nil
		}
		start := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		if i-start > 5 {
			return fmt.Errorf("width %s is out of range", s[start:i])
		}
		spec += s[start:i]
		return nil
	}
	if err := size(); err != nil {
		return 0, false, err
	}
	if i < len(s) && s[i] == '.' {
		spec += "."
		i++
		if err := size(); err != nil {
			return 0, false, err
		}
	}
	if i == len(s) {
		return 0, false, fmt.Errorf("format %q ends in the middle of a directive", s)
	}
	verb := s[i]
	arg, given := p.next()
	switch verb {
	case 'd', 'i':
		fmt.Fprintf(p.w, precise(spec)+"d", p.integer(arg))
	case 'u', 'o', 'x', 'X':
		v := strings.Replace(string(verb), "u", "d", 1)
		fmt.Fprintf(p.w, precise(spec)+v, uint64(p.integer(arg)))
	case 'e', 'E', 'f', 'F', 'g', 'G':
		if !strings.Contains(spec, ".") {
			spec += ".6"
		}
		fmt.Fprintf(p.w, spec+string(verb), p.float(arg))
	case 'c':
		_, n := utf8.DecodeRuneInString(arg)
		fmt.Fprintf(p.w, strings.ReplaceAll(spec, "0", "")+"s", arg[:min(n, len(arg))])
	case 's':
		fmt.Fprintf(p.w, spec+"s", arg)
	case 'q':
		fmt.Fprintf(p.w, spec+"s", quoteWord(arg))
	case 'b':
		out, end := unescape(arg, true)
		fmt.Fprintf(p.w, spec+"s", out)
		stop = end
	default:
		return 0, false, fmt.Errorf(
			"directive %q is unknown (want one of d i u o x X e E f F g G c s b q %%)", s[:i+1],
		)
	}
	_ = given // a missing argument is empty or 0, as POSIX has it
	return i + 1, stop, nil
}

// precise drops the 0 flag when a precision is there, which C ignores and Go does not.
func precise(spec string) string {
	if !strings.Contains(spec, ".") {
		return spec
	}
	flags := strings.TrimLeft(spec[1:], "-+ #0")
	return "%" + strings.ReplaceAll(spec[1:len(spec)-len(flags)], "0", "") + flags
}

func (p *printer) integer(s string) int64 {
	if s == "" {
		return 0
	}
	if s[0] == '"' || s[0] == '\'' {
		r, _ := utf8.DecodeRuneInString(s[1:])
		return int64(r)
	}
	clean := s
	if strings.Contains(s, "_") || strings.ContainsAny(s, "oObB") &&
		!strings.HasPrefix(strings.TrimLeft(s, "+-"), "0x") {
		clean = "?" // Go's extras are no numbers to C
	}
	if v, err := strconv.ParseInt(clean, 0, 64); err == nil {
		return v
	}
	if v, err := strconv.ParseUint(clean, 0, 64); err == nil {
		return int64(v)
	}
	p.bad = append(p.bad, s)
	return 0
}

func (p *printer) float(s string) float64 {
	if s == "" {
		return 0
	}
	if s[0] == '"' || s[0] == '\'' {
		return float64(p.integer(s))
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(v, 0) {
		p.bad = append(p.bad, s)
	}
	return v
}

// quoteWord quotes s so that the shell reads it back as one word.
func quoteWord(s string) string {
	if s != "" && strings.Trim(
		s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,",
	) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
