package userland

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// uniq drops repeated adjacent lines (uniq(1p); -i as GNU).
func uniq(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"cduif:s:w:",
		"count=c repeated=d unique=u ignore-case=i skip-fields=f skip-chars=s check-chars=w",
	)
	if !ok {
		return status
	}
	if len(names) > 2 {
		return c.usagef("extra operand %q", names[2])
	}
	var num [3]int64
	for i, k := range []byte("fsw") {
		if !o.has(k) {
			num[i] = -1
			continue
		}
		n, err := parseCount(o.value(k, ""))
		if err != nil {
			return c.usagef("option -%c: %v", k, err)
		}
		num[i] = n
	}
	key := func(l []byte) []byte {
		for range max(num[0], 0) {
			l = bytes.TrimLeft(l, " \t")
			if i := bytes.IndexAny(l, " \t"); i >= 0 {
				l = l[i:]
			} else {
				l = nil
			}
		}
		l = l[min(max(num[1], 0), int64(len(l))):]
		if num[2] >= 0 {
			l = l[:min(num[2], int64(len(l)))]
		}
		return l
	}
	same := bytes.Equal
	if o.has('i') {
		same = bytes.EqualFold
	}
	out := c.Stdout
	if len(names) == 2 {
		f, err := os.Create(c.path(names[1]))
		if err != nil {
			return c.fault(names[1], err)
		}
		defer f.Close()
		out, names = f, names[:1]
	}
	w := (&Call{Stdout: out}).buffered()
	var held []byte
	n := 0
	emit := func() {
		if n == 0 || o.has('d') && n == 1 || o.has('u') && n > 1 {
			return
		}
		if o.has('c') {
			fmt.Fprintf(w, "%7d ", n)
		}
		w.Write(held)
		w.WriteByte('\n')
	}
	status = c.inputs(ctx, names, func(_ string, r io.Reader) error {
		return lines(r, func(l []byte, _ bool) error {
			if n > 0 && same(key(held), key(l)) {
				n++
				return nil
			}
			emit()
			held, n = append(held[:0], l...), 1
			return nil
		})
	})
	emit()
	return c.finish(w, status)
}

// span is a range of positions, from 1; end 0 means open.
type span struct{ from, to int }

func parseSpans(list string) ([]span, error) {
	bad := func() ([]span, error) {
		return nil, fmt.Errorf(
			"%q is no list (want numbers and ranges from 1, such as 1,3-5,7-)", list,
		)
	}
	var out []span
	for _, part := range strings.FieldsFunc(
		list, func(r rune) bool { return r == ',' || r == ' ' },
	) {
		a, b, ranged := strings.Cut(part, "-")
		s := span{from: 1}
		var err error
		if a != "" {
			if s.from, err = strconv.Atoi(a); err != nil || s.from < 1 {
				return bad()
			}
		}
		switch {
		case !ranged:
			s.to = s.from
		case b != "":
			if s.to, err = strconv.Atoi(b); err != nil || s.to < s.from {
				return bad()
			}
		case a == "":
			return bad()
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return bad()
	}
	return out, nil
}

func inSpans(list []span, n int) bool {
	for _, s := range list {
		if n >= s.from && (s.to == 0 || n <= s.to) {
			return true
		}
	}
	return false
}

// cut selects bytes, characters or fields of lines (cut(1p); --complement and --output-delimiter as
// GNU).
func cut(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"b:c:f:d:sn\x01\x02:",
		"bytes=b characters=c fields=f delimiter=d only-delimited=s complement=\x01 "+
			"output-delimiter=\x02",
	)
	if !ok {
		return status
	}
	mode := byte(0)
	for _, k := range []byte("bcf") {
		if o.has(k) {
			if mode != 0 {
				return c.usagef("options -%c and -%c exclude each other", mode, k)
			}
			mode = k
		}
	}
	if mode == 0 {
		return c.usagef("one of -b, -c and -f is needed")
	}
	list, err := parseSpans(o.value(mode, ""))
	if err != nil {
		return c.usagef("option -%c: %v", mode, err)
	}
	if mode != 'f' && (o.has('d') || o.has('s')) {
		return c.usagef("options -d and -s need -f")
	}
	delim := o.value('d', "\t")
	if utf8.RuneCountInString(delim) != 1 {
		return c.usagef("option -d: %q is not one character", delim)
	}
	joint := o.value('\x02', delim)
	want := func(n int) bool { return inSpans(list, n) != o.has('\x01') }
	w := c.buffered()
	status = c.inputs(ctx, names, func(_ string, r io.Reader) error {
		return lines(r, func(l []byte, _ bool) error {
			switch {
			case mode == 'f':
				if !bytes.Contains(l, []byte(delim)) {
					if o.has('s') {
						return nil
					}
					w.Write(l)
					break
				}
				first := true
				for i, f := range bytes.Split(l, []byte(delim)) {
					if !want(i + 1) {
						continue
					}
					if !first {
						w.WriteString(joint)
					}
					first = false
					w.Write(f)
				}
			case mode == 'b':
				for i, b := range l {
					if want(i + 1) {
						w.WriteByte(b)
					}
				}
			default:
				n := 0
				for len(l) > 0 {
					_, size := utf8.DecodeRune(l)
					if n++; want(n) {
						w.Write(l[:size])
					}
					l = l[size:]
				}
			}
			return w.WriteByte('\n')
		})
	})
	return c.finish(w, status)
}

// tr translates, deletes or squeezes bytes (tr(1p)). Like GNU's it works on bytes: a character of
// several bytes in a set is refused.
func tr(ctx context.Context, c *Call) int {
	o, sets, status, ok := c.options(
		"+cCdst", "complement=c delete=d squeeze-repeats=s truncate-set1=t",
	)
	if !ok {
		return status
	}
	want := 2
	if o.has('d') != o.has('s') {
		want = 1
	}
	if len(sets) < want || len(sets) > 2 || len(sets) == 2 && o.has('d') && !o.has('s') {
		return c.usagef("%d sets given, want %d", len(sets), want)
	}
	first, err := expandSet(sets[0], 0)
	if err != nil {
		return c.usagef("%v", err)
	}
	if o.has('c') || o.has('C') {
		first = complementSet(first)
	}
	var second []byte
	if len(sets) == 2 {
		if second, err = expandSet(sets[1], len(first)); err != nil {
			return c.usagef("%v", err)
		}
	}
	var to [256]byte
	var drop, squeeze [256]bool
	for i := range to {
		to[i] = byte(i)
	}
	switch {
	case o.has('d'):
		for _, b := range first {
			drop[b] = true
		}
	case len(sets) == 2:
		if len(second) == 0 {
			return c.usagef("the second set is empty")
		}
		for i, b := range first {
			if i >= len(second) && o.has('t') {
				break
			}
			to[b] = second[min(i, len(second)-1)]
		}
	}
	if o.has('s') {
		set := second
		if len(sets) == 1 {
			set = first
		}
		for _, b := range set {
			squeeze[b] = true
		}
	}
	w := c.buffered()
	m := &byteMap{to: to, drop: drop, squeeze: squeeze, last: -1}
	status = c.inputs(ctx, nil, func(_ string, r io.Reader) error { return m.copy(w, r) })
	return c.finish(w, status)
}

// byteMap is what tr does with each byte: it is dropped or mapped, and of equal ones in a row that
// are squeezed only the first is written.
type byteMap struct {
	to            [256]byte
	drop, squeeze [256]bool
	last          int // the byte that was written last; -1 at the beginning
}

func (m *byteMap) copy(w *bufio.Writer, r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			if m.drop[b] {
				continue
			}
			b = m.to[b]
			if m.squeeze[b] && m.last == int(b) {
				continue
			}
			m.last = int(b)
			if werr := w.WriteByte(b); werr != nil {
				return werr
			}
		}
		if err != nil {
			return eofIsFine(err)
		}
	}
}

func complementSet(set []byte) []byte {
	var in [256]bool
	for _, b := range set {
		in[b] = true
	}
	var out []byte
	for i := range 256 {
		if !in[i] {
			out = append(out, byte(i))
		}
	}
	return out
}

// expandSet expands ranges, classes, escapes and, when fill is not 0, repeats "[x*]" up to fill
// bytes.
func expandSet(s string, fill int) ([]byte, error) {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return nil, fmt.Errorf("set %q has a character of several bytes; sets are of bytes", s)
		}
	}
	whole := s
	var out []byte
	next := func() byte {
		if s[0] != '\\' || len(s) == 1 {
			b := s[0]
			s = s[1:]
			return b
		}
		b, n := escapeByte(s)
		s = s[n:]
		return b
	}
	for s != "" {
		if strings.HasPrefix(s, "[:") {
			if end := strings.Index(s, ":]"); end > 0 {
				class, err := byteClass(s[2:end])
				if err != nil {
					return nil, err
				}
				out, s = append(out, class...), s[end+2:]
				continue
			}
		}
		if len(s) >= 4 && s[0] == '[' && s[2] == '*' {
			if end := strings.IndexByte(s, ']'); end >= 3 {
				n := int64(max(fill-len(out), 0))
				if digits := s[3:end]; digits != "" {
					var err error
					if n, err = strconv.ParseInt(digits, 0, 32); err != nil || n < 0 || n > 1<<16 {
						return nil, fmt.Errorf("set %q: %q is no repeat count", whole, digits)
					}
				}
				out, s = append(out, bytes.Repeat([]byte{s[1]}, int(n))...), s[end+1:]
				continue
			}
		}
		from := next()
		if len(s) < 2 || s[0] != '-' {
			out = append(out, from)
			continue
		}
		s = s[1:]
		to := next()
		if to < from {
			return nil, fmt.Errorf("set %q: range %q-%q runs backwards", whole, from, to)
		}
		for b := int(from); b <= int(to); b++ {
			out = append(out, byte(b))
		}
	}
	return out, nil
}

// escapeByte reads one escape of tr and printf at the start of s and its length.
func escapeByte(s string) (byte, int) {
	if len(s) < 2 {
		return '\\', len(s)
	}
	if i := strings.IndexByte(`abfnrtv\`, s[1]); i >= 0 {
		return "\a\b\f\n\r\t\v\\"[i], 2
	}
	n, v := 1, 0
	for n < len(s) && n < 4 && s[n] >= '0' && s[n] <= '7' {
		v = v*8 + int(s[n]-'0')
		n++
	}
	if n > 1 {
		return byte(v), n
	}
	return s[1], 2
}

func byteClass(name string) ([]byte, error) {
	var in func(r rune) bool
	switch name {
	case "alpha":
		in = unicode.IsLetter
	case "digit":
		in = unicode.IsDigit
	case "alnum":
		in = func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	case "upper":
		in = unicode.IsUpper
	case "lower":
		in = unicode.IsLower
	case "space":
		in = unicode.IsSpace
	case "blank":
		in = func(r rune) bool { return r == ' ' || r == '\t' }
	case "punct":
		in = func(r rune) bool {
			return r > ' ' && r < 0x7f && !unicode.IsLetter(r) && !unicode.IsDigit(r)
		}
	case "cntrl":
		in = unicode.IsControl
	case "print":
		in = func(r rune) bool { return r >= ' ' && r < 0x7f }
	case "graph":
		in = func(r rune) bool { return r > ' ' && r < 0x7f }
	case "xdigit":
		in = func(r rune) bool { return strings.ContainsRune("0123456789abcdefABCDEF", r) }
	default:
		return nil, fmt.Errorf("unknown class %q", name)
	}
	var out []byte
	for r := range rune(utf8.RuneSelf) {
		if in(r) {
			out = append(out, byte(r))
		}
	}
	return out, nil
}
