// Package flagvalue has the kinds of values that flags take beside those of pflag: lists without
// separators, sizes, processors. A wrong value is refused while the command line is parsed, so that
// the error names the flag.
//
// Not for: values whose check needs more than their own text.
//
// Tested by tables.
package flagvalue

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// value is a pflag.Value made of functions.
type value struct {
	kind string
	text func() string
	set  func(string) error
}

func (v value) Type() string       { return v.kind }
func (v value) String() string     { return v.text() }
func (v value) Set(s string) error { return v.set(s) }
func empty() string                { return "" }

// List collects every use of a flag; commas are part of the value.
func List(to *[]string) pflag.Value {
	return value{"list", empty, func(s string) error {
		*to = append(*to, s)
		return nil
	}}
}

// Checked is List with a check of each value.
func Checked(to *[]string, kind string, check func(string) error) pflag.Value {
	return value{kind, empty, func(s string) error {
		if err := check(s); err != nil {
			return err
		}
		*to = append(*to, s)
		return nil
	}}
}

// Bytes is a size: a number with an optional unit b, k, m, g, t or p (powers of 1024; "kb" and
// "kib" are the same).
func Bytes(to *int64) pflag.Value { return sized(to, ParseBytes) }

// BytesOrUnlimited is Bytes, or -1.
func BytesOrUnlimited(to *int64) pflag.Value {
	return sized(to, func(s string) (int64, error) {
		if s == "-1" {
			return -1, nil
		}
		return ParseBytes(s)
	})
}

func sized(to *int64, parse func(string) (int64, error)) pflag.Value {
	return value{"bytes", func() string {
		if *to == 0 {
			return ""
		}
		return strconv.FormatInt(*to, 10)
	}, func(s string) (err error) {
		n, err := parse(s)
		if err == nil {
			*to = n
		}
		return err
	}}
}

// ParseBytes reads a size.
func ParseBytes(s string) (int64, error) {
	bad := func() (int64, error) {
		return 0, fmt.Errorf("invalid size: '%s': want a number and b, k, m, g, t or p", s)
	}
	number := strings.TrimRight(strings.ToLower(s), "bikmgtp")
	unit := strings.TrimSpace(strings.ToLower(s[len(number):]))
	number = strings.TrimSpace(number)
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n < 0 || math.IsInf(n, 0) || math.IsNaN(n) ||
		strings.ContainsAny(number, "xXeE+_") {
		return bad()
	}
	scale := 1.0
	if unit != "" && unit != "b" {
		i := strings.IndexByte("kmgtp", unit[0])
		if rest := unit[1:]; i < 0 || rest != "" && rest != "b" && rest != "ib" {
			return bad()
		}
		scale = math.Pow(1024, float64(i+1))
	}
	if n*scale >= math.MaxInt64 {
		return 0, fmt.Errorf("invalid size: '%s': too large", s)
	}
	return int64(n * scale), nil
}

// CPUs is a number of processors with up to nine decimals; to receives billionths of one.
func CPUs(to *int64) pflag.Value {
	return value{"decimal", func() string {
		if *to == 0 {
			return ""
		}
		return strconv.FormatFloat(float64(*to)/1e9, 'f', -1, 64)
	}, func(s string) error {
		n, err := parseNano(s)
		if err == nil {
			*to = n
		}
		return err
	}}
}

func parseNano(s string) (int64, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	digits := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	if whole+fraction == "" || !digits(whole) || !digits(fraction) {
		return 0, fmt.Errorf("invalid number of CPUs: '%s': want a decimal number as 1.5", s)
	}
	if len(fraction) > 9 {
		return 0, fmt.Errorf("invalid number of CPUs: '%s': value is too precise", s)
	}
	n, err := strconv.ParseInt(whole+(fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("invalid number of CPUs: '%s': too large", s)
	}
	return n, nil
}
