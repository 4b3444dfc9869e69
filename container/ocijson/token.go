package ocijson

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

func (d *decoder) space() {
	for d.at < len(d.text) {
		switch d.text[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

// next skips white space and returns the byte behind it, or 0 at the end.
func (d *decoder) next() byte {
	d.space()
	if d.at < len(d.text) {
		return d.text[d.at]
	}
	return 0
}

// kindOf names what begins with a byte.
func kindOf(c byte) string {
	switch {
	case c == '{':
		return "an object"
	case c == '[':
		return "a list"
	case c == '"':
		return "a string"
	case c == 't' || c == 'f':
		return "true or false"
	case c == '-' || c >= '0' && c <= '9':
		return "a number"
	}
	return ""
}

func (d *decoder) word(w string) *Error {
	if !strings.HasPrefix(string(d.text[d.at:min(len(d.text), d.at+len(w))]), w) {
		return d.fail("%s where a value begins", d.here())
	}
	d.at += len(w)
	return nil
}

// digits passes over digits and says whether there were any.
func (d *decoder) digits() bool {
	begin := d.at
	for d.at < len(d.text) && d.text[d.at]-'0' <= 9 {
		d.at++
	}
	return d.at > begin
}

// numeral passes over a number (RFC 8259, section 6).
func (d *decoder) numeral() (text string, whole bool, err *Error) {
	begin := d.at
	peek := func(any string) bool {
		return d.at < len(d.text) && strings.IndexByte(any, d.text[d.at]) >= 0
	}
	if peek("-") {
		d.at++
	}
	if peek("0") {
		d.at++
	} else if !d.digits() {
		return "", false, d.fail("%s in a number", d.here())
	}
	whole = true
	if peek(".") {
		d.at++
		if whole = false; !d.digits() {
			return "", false, d.fail("%s in a number", d.here())
		}
	}
	if peek("eE") {
		d.at++
		if peek("+-") {
			d.at++
		}
		if whole = false; !d.digits() {
			return "", false, d.fail("%s in a number", d.here())
		}
	}
	return string(d.text[begin:d.at]), whole, nil
}

func (d *decoder) number(v reflect.Value, c byte, depth int) *Error {
	if kindOf(c) != "a number" {
		return d.mismatch("a number", depth)
	}
	begin := d.at
	text, whole, bad := d.numeral()
	if bad != nil {
		return bad
	}
	refuse := func(want string) *Error {
		d.at = begin
		return d.fail("%s, want %s", text, want)
	}
	bits := v.Type().Bits()
	switch v.Kind() {
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(text, bits)
		if err != nil {
			return refuse("a number that can be represented")
		}
		v.SetFloat(f)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, bits)
		if err != nil || !whole {
			return refuse(fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-bits)))
		}
		v.SetUint(n)
	default:
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil || !whole {
			return refuse(
				fmt.Sprintf(
					"a whole number from %d to %d", int64(-1)<<(bits-1), ^uint64(0)>>(65-bits),
				),
			)
		}
		v.SetInt(n)
	}
	return nil
}

// raw passes over a string and says whether it is its own value, so without escapes and plain
// ASCII.
func (d *decoder) raw() (text []byte, plain bool, err *Error) {
	begin := d.at
	plain = true
	for d.at++; d.at < len(d.text); d.at++ {
		switch c := d.text[d.at]; {
		case c == '"':
			d.at++
			return d.text[begin:d.at], plain, nil
		case c < ' ':
			return nil, false, d.fail("%s in a string, want it escaped", d.here())
		case c == '\\':
			plain = false
			if err := d.escape(); err != nil {
				return nil, false, err
			}
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	return nil, false, d.fail("a string without an end")
}

// escape passes over all but the last byte of an escape sequence.
func (d *decoder) escape() *Error {
	d.at++
	switch {
	case d.at >= len(d.text):
		return d.fail("a string without an end")
	case d.text[d.at] == 'u':
		for range 4 {
			d.at++
			if d.at >= len(d.text) ||
				strings.IndexByte("0123456789abcdefABCDEF", d.text[d.at]) < 0 {
				return d.fail("%s in an escape sequence, want a hexadecimal digit", d.here())
			}
		}
	case strings.IndexByte(`"\/bfnrt`, d.text[d.at]) < 0:
		return d.fail("%s in an escape sequence", d.here())
	}
	return nil
}

func (d *decoder) str() (string, *Error) {
	text, plain, err := d.raw()
	if err != nil {
		return "", err
	}
	if plain {
		return string(text[1 : len(text)-1]), nil
	}
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return "", d.fail("%v", err)
	}
	return s, nil
}

// skip checks a value that no field takes, and passes over it.
func (d *decoder) skip(depth int) *Error {
	if depth > maxDepth {
		return d.fail("nested more than %d deep", maxDepth)
	}
	switch c := d.next(); {
	case c == '"':
		_, _, err := d.raw()
		return err
	case c == '{':
		return d.each('}', "an object", func(int) *Error {
			if _, err := d.key(); err != nil {
				return err
			}
			return d.skip(depth + 1)
		})
	case c == '[':
		return d.each(']', "a list", func(int) *Error { return d.skip(depth + 1) })
	case c == 't':
		return d.word("true")
	case c == 'f':
		return d.word("false")
	case c == 'n':
		return d.word("null")
	case kindOf(c) == "a number":
		_, _, err := d.numeral()
		return err
	}
	return d.fail("%s where a value begins", d.here())
}
