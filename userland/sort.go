package userland

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// sortKey is one -k: the part of the line from field f1 character c1 to field f2 character c2 (c2
// 0: to that field's end; f2 0: to the line's).
type sortKey struct {
	f1, c1, f2, c2 int
	how            sortHow
}

// sortHow is how keys compare.
type sortHow struct {
	numeric, human, fold, reverse, blanks, version bool
}

func (h *sortHow) set(k byte) bool {
	switch k {
	case 'n':
		h.numeric = true
	case 'h':
		h.human = true
	case 'f':
		h.fold = true
	case 'r':
		h.reverse = true
	case 'b':
		h.blanks = true
	case 'V':
		h.version = true
	default:
		return false
	}
	return true
}

// sortLines sorts, checks or makes unique the lines of its inputs (sort(1p); -h, -V, -s, -z as
// GNU). Order is that of bytes, as in the C locale.
func sortLines(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"nhfrbVk:t:ucCso:mz",
		"numeric-sort=n human-numeric-sort=h ignore-case=f reverse=r ignore-leading-blanks=b "+
			"version-sort=V key=k field-separator=t unique=u check=c stable=s output=o merge=m "+
			"zero-terminated=z",
	)
	if !ok {
		return status
	}
	var global sortHow
	for _, s := range o.seen {
		global.set(s.name)
	}
	sep := o.value('t', "")
	if o.has('t') && len(sep) != 1 && sep != `\0` {
		return c.usagef("option -t: %q is not one byte", sep)
	}
	if sep == `\0` {
		sep = "\x00"
	}
	var keys []sortKey
	for _, v := range o.values('k') {
		k, err := parseSortKey(v, global)
		if err != nil {
			return c.usagef("option -k: %v", err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		keys = []sortKey{{f1: 1, c1: 1, how: global}}
	}
	how := sortOrder{keys: keys, sep: sep, reverse: global.reverse}
	how.last = !o.has('s') && !o.has('u')
	end := byte('\n')
	if o.has('z') {
		end = 0
	}
	all, status := c.sortInput(ctx, names, end)
	if status != exitOK {
		return exitUsage
	}
	if o.has('c') || o.has('C') {
		return checkSorted(c, o, all, how)
	}
	slices.SortStableFunc(all, how.compare)
	if o.has('u') {
		all = slices.CompactFunc(all, func(a, b []byte) bool { return how.byKeys(a, b) == 0 })
	}
	w := c.buffered()
	if o.has('o') {
		f, err := os.Create(c.path(o.value('o', "")))
		if err != nil {
			c.fault(o.value('o', ""), err)
			return exitUsage
		}
		defer f.Close()
		w = bufio.NewWriter(f)
	}
	for _, l := range all {
		w.Write(l)
		w.WriteByte(end)
	}
	return c.finish(w, exitOK)
}

// sortInput reads the lines of all files. Their bytes are in one buffer, from which the lines are
// cut when it grows no more.
func (c *Call) sortInput(ctx context.Context, names []string, end byte) ([][]byte, int) {
	var held bytes.Buffer
	var ends []int
	status := c.inputs(ctx, names, func(_ string, r io.Reader) error {
		return records(r, end, func(l []byte, _ bool) error {
			held.Write(l)
			ends = append(ends, held.Len())
			return nil
		})
	})
	all := make([][]byte, len(ends))
	for from, i := 0, 0; i < len(ends); i++ {
		all[i] = held.Bytes()[from:ends[i]:ends[i]]
		from = ends[i]
	}
	return all, status
}

// sortOrder compares lines by their keys and, if last is set, lines with equal keys by their bytes.
type sortOrder struct {
	keys          []sortKey
	sep           string
	reverse, last bool
}

func (s *sortOrder) byKeys(a, b []byte) int {
	for _, k := range s.keys {
		if d := k.how.compare(k.of(a, s.sep), k.of(b, s.sep)); d != 0 {
			return d
		}
	}
	return 0
}

func (s *sortOrder) compare(a, b []byte) int {
	d := s.byKeys(a, b)
	if d == 0 && s.last {
		if d = bytes.Compare(a, b); s.reverse {
			d = -d
		}
	}
	return d
}

// checkSorted is -c and -C: it finds the first line that is out of order.
func checkSorted(c *Call, o options, all [][]byte, how sortOrder) int {
	for i := 1; i < len(all); i++ {
		d := how.compare(all[i-1], all[i])
		if d > 0 || d == 0 && o.has('u') {
			if o.has('c') {
				c.errorf("line %d is out of order: %s", i+1, all[i])
			}
			return exitFault
		}
	}
	return exitOK
}

func parseSortKey(v string, global sortHow) (sortKey, error) {
	bad := fmt.Errorf("%q is no key (want FIELD[.CHAR][bfhnrV][,FIELD[.CHAR][bfhnrV]])", v)
	k := sortKey{c1: 1}
	own := false
	pos := func(s string) (f, ch int, err error) {
		num := strings.TrimRight(s, "bfhnrV")
		for _, r := range s[len(num):] {
			own = k.how.set(byte(r)) || own
		}
		a, b, dotted := strings.Cut(num, ".")
		if f, err = strconv.Atoi(a); err != nil || f < 1 {
			return 0, 0, bad
		}
		if dotted {
			if ch, err = strconv.Atoi(b); err != nil || ch < 0 {
				return 0, 0, bad
			}
		}
		return f, ch, nil
	}
	a, b, both := strings.Cut(v, ",")
	var err error
	if k.f1, k.c1, err = pos(a); err != nil {
		return k, err
	}
	k.c1 = max(k.c1, 1)
	if both {
		if k.f2, k.c2, err = pos(b); err != nil {
			return k, err
		}
	}
	if !own {
		k.how = global
	}
	return k, nil
}

// field finds where a field begins and ends. Without a separator, a field begins with the blanks
// before it.
func field(l []byte, n int, sep string) (from, to int) {
	for i := 1; ; i++ {
		to = from
		if sep != "" {
			if j := bytes.IndexByte(l[from:], sep[0]); j >= 0 {
				to = from + j
			} else {
				to = len(l)
			}
		} else {
			for to < len(l) && (l[to] == ' ' || l[to] == '\t') {
				to++
			}
			for to < len(l) && l[to] != ' ' && l[to] != '\t' {
				to++
			}
		}
		if i == n {
			return from, to
		}
		if to >= len(l) {
			return len(l), len(l)
		}
		from = to
		if sep != "" {
			from++
		}
	}
}

func (k sortKey) of(l []byte, sep string) []byte {
	if k.f1 == 1 && k.c1 == 1 && k.f2 == 0 {
		if k.how.blanks {
			return bytes.TrimLeft(l, " \t")
		}
		return l
	}
	skip := func(from, to int) int {
		for k.how.blanks && from < to && (l[from] == ' ' || l[from] == '\t') {
			from++
		}
		return from
	}
	from, to := field(l, k.f1, sep)
	from = min(skip(from, to)+k.c1-1, len(l))
	end := len(l)
	if k.f2 > 0 {
		f, t := field(l, k.f2, sep)
		end = t
		if k.c2 > 0 {
			end = min(skip(f, t)+k.c2, t)
		}
	}
	if end < from {
		return nil
	}
	return l[from:end]
}

func (h sortHow) compare(a, b []byte) int {
	var d int
	switch {
	case h.human:
		d = compareHuman(string(a), string(b))
	case h.numeric:
		d = compareNumbers(number(string(a)), number(string(b)))
	case h.version:
		d = compareVersions(string(a), string(b))
	case h.fold:
		d = bytes.Compare(bytes.ToUpper(a), bytes.ToUpper(b))
	default:
		d = bytes.Compare(a, b)
	}
	if h.reverse {
		return -d
	}
	return d
}

// number is the decimal number at the start of s, "" for none: kept as text so that any length
// compares exactly.
func number(s string) string {
	s = strings.TrimLeft(s, " \t")
	i := 0
	if i < len(s) && s[i] == '-' {
		i++
	}
	start, dot := i, false
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.' && !dot) {
		dot = dot || s[i] == '.'
		i++
	}
	if i == start {
		return ""
	}
	return s[:i]
}

func compareNumbers(a, b string) int {
	negA, negB := strings.HasPrefix(a, "-"), strings.HasPrefix(b, "-")
	magnitude := func(s string) (string, string) {
		whole, frac, _ := strings.Cut(strings.TrimPrefix(s, "-"), ".")
		return strings.TrimLeft(whole, "0"), strings.TrimRight(frac, "0")
	}
	aw, af := magnitude(a)
	bw, bf := magnitude(b)
	negA, negB = negA && aw+af != "", negB && bw+bf != ""
	if negA != negB {
		if negA {
			return -1
		}
		return 1
	}
	d := cmp.Or(cmp.Compare(len(aw), len(bw)), cmp.Compare(aw, bw), cmp.Compare(af, bf))
	if negA {
		return -d
	}
	return d
}

func compareHuman(a, b string) int {
	unit := func(s string) (string, int) {
		n := number(s)
		rest := strings.TrimLeft(s, " \t")[len(n):]
		u := 0
		if rest != "" && n != "" {
			u = strings.IndexByte("kKMGTPE", rest[0])
			u = max(u, 0)
			if u == 0 && rest[0] == 'k' {
				u = 1
			}
		}
		return n, u
	}
	an, au := unit(a)
	bn, bu := unit(b)
	sign := func(n string) int { return compareNumbers(n, "") }
	if sign(an) != sign(bn) || sign(an) == 0 {
		return cmp.Compare(sign(an), sign(bn))
	}
	if au != bu {
		return cmp.Compare(au, bu) * sign(an)
	}
	return compareNumbers(an, bn)
}

// compareVersions compares runs of digits by value and everything else by bytes.
func compareVersions(a, b string) int {
	digits := func(s string) int {
		i := 0
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		return i
	}
	for a != "" && b != "" {
		if i, j := digits(a), digits(b); i > 0 && j > 0 {
			if d := compareNumbers(a[:i], b[:j]); d != 0 {
				return d
			}
			a, b = a[i:], b[j:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}
