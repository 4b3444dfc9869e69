// Package ocijson reads JSON into the types of the runtime-spec, for processes that read one
// configuration and end.
//
// encoding/json prepares to encode and decode every type that it can reach from the target before
// it reads the first byte; the types of the runtime-spec reach those of five other platforms, and
// this costs more than the rest of a container's plan. This decoder looks at a type when the text
// comes to it. Besides, its errors name the field of the text: `linux.resources.memory.limit: ...`.
//
// It accepts and refuses what encoding/json does, with the same result; a fuzz test holds the two
// against each other. Not for encoding, and not for long-lived processes, which are served well by
// encoding/json.
package ocijson

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep values may be nested, as in encoding/json.
const maxDepth = 10000

// Error is a text that is not JSON, or that does not fit the type.
type Error struct {
	// Field is where, in the words of the text: "mounts[3].options". Empty for the text as a whole.
	Field string
	// Offset counts bytes from the beginning of the text.
	Offset int
	// Reason says what is there and what is allowed.
	Reason string
}

func (e *Error) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("byte %d: %s", e.Offset, e.Reason)
	}
	return fmt.Sprintf("%s: %s (byte %d)", e.Field, e.Reason, e.Offset)
}

// Decode reads the text into what to points at. Errors are *Error; to is then partly filled.
func Decode(text []byte, to any) error {
	d := decoder{text: text}
	if err := d.value(reflect.ValueOf(to).Elem(), 0); err != nil {
		return err
	}
	if d.space(); d.at < len(d.text) {
		return d.fail("%s after the end of the value", d.here())
	}
	return nil
}

type decoder struct {
	text []byte
	at   int
	seen map[reflect.Type][]field
	// that seen's lists are parts of: one allocation instead of one of another size for each type
	all []field
}

// field is one field of a struct, those of embedded structs included.
type field struct {
	name  string
	index []int
}

func (d *decoder) fail(format string, args ...any) *Error {
	return &Error{Offset: d.at, Reason: fmt.Sprintf(format, args...)}
}

// here names what comes next.
func (d *decoder) here() string {
	if d.at >= len(d.text) {
		return "the end of the text"
	}
	r, _ := utf8.DecodeRune(d.text[d.at:])
	return strconv.QuoteRune(r)
}

// within puts the name of the enclosing field in front of an error's.
func (e *Error) within(name string) *Error {
	switch {
	case e == nil || e.Field == "":
	case e.Field[0] != '[':
		name += "."
	}
	if e != nil {
		e.Field = name + e.Field
	}
	return e
}

// mismatch checks that a value of another kind is well-formed before it complains about the kind.
func (d *decoder) mismatch(want string, depth int) *Error {
	at, c := d.at, d.next()
	if kindOf(c) == "" {
		return d.fail("%s where a value begins", d.here())
	}
	if err := d.skip(depth); err != nil {
		return err
	}
	text := d.text[at:d.at]
	if len(text) > 40 {
		text = append(append([]byte(nil), text[:40]...), "..."...)
	}
	d.at = at
	return d.fail("%s is %s, want %s", text, kindOf(c), want)
}

func (d *decoder) value(v reflect.Value, depth int) *Error {
	if depth > maxDepth {
		return d.fail("nested more than %d deep", maxDepth)
	}
	c := d.next()
	if c == 'n' {
		if err := d.word("null"); err != nil {
			return err
		}
		switch v.Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
			v.SetZero()
		}
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(v.Elem(), depth)
	case reflect.String:
		if c != '"' {
			return d.mismatch("a string", depth)
		}
		s, err := d.str()
		if err == nil {
			v.SetString(s)
		}
		return err
	case reflect.Bool:
		if c != 't' && c != 'f' {
			return d.mismatch("true or false", depth)
		}
		if err := d.word(strconv.FormatBool(c == 't')); err != nil {
			return err
		}
		v.SetBool(c == 't')
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64:
		return d.number(v, c, depth)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			return d.slice(v, c, depth)
		}
	case reflect.Map:
		if v.Type().Key().Kind() == reflect.String {
			return d.mapping(v, c, depth)
		}
	case reflect.Struct:
		if _, ok := v.Addr().Interface().(json.Unmarshaler); !ok {
			return d.object(v, c, depth)
		}
	}
	return d.other(v, depth)
}

// other hands a value of a rare type to encoding/json.
func (d *decoder) other(v reflect.Value, depth int) *Error {
	d.space()
	begin := d.at
	if err := d.skip(depth); err != nil {
		return err
	}
	if err := json.Unmarshal(d.text[begin:d.at], v.Addr().Interface()); err != nil {
		d.at = begin
		return d.fail("%v", err)
	}
	return nil
}

// each passes over a list or an object, whose elements an own function reads.
func (d *decoder) each(end byte, what string, element func(i int) *Error) *Error {
	d.at++
	if d.next() == end {
		d.at++
		return nil
	}
	for i := 0; ; i++ {
		d.space()
		if err := element(i); err != nil {
			return err
		}
		switch d.next() {
		case ',':
			d.at++
		case end:
			d.at++
			return nil
		default:
			return d.fail("%s in %s, want a comma or its end", d.here(), what)
		}
	}
}

// key reads the name of a member and the colon behind it.
func (d *decoder) key() (string, *Error) {
	if d.next() != '"' {
		return "", d.fail("%s in an object, want a name in quotes", d.here())
	}
	name, err := d.str()
	if err != nil {
		return "", err
	}
	if d.next() != ':' {
		return "", d.fail("%s behind the name %q, want a colon", d.here(), name)
	}
	d.at++
	return name, nil
}

func (d *decoder) slice(v reflect.Value, c byte, depth int) *Error {
	if c != '[' {
		return d.mismatch("a list", depth)
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 4))
	return d.each(']', "a list", func(i int) *Error {
		if i >= v.Cap() {
			v.Grow(v.Cap())
		}
		v.SetLen(i + 1)
		v.Index(i).SetZero()
		return d.value(v.Index(i), depth+1).within("[" + strconv.Itoa(i) + "]")
	})
}

func (d *decoder) mapping(v reflect.Value, c byte, depth int) *Error {
	if c != '{' {
		return d.mismatch("an object", depth)
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	return d.each('}', "an object", func(int) *Error {
		name, err := d.key()
		if err != nil {
			return err
		}
		element := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(element, depth+1); err != nil {
			return err.within(name)
		}
		v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), element)
		return nil
	})
}

func (d *decoder) object(v reflect.Value, c byte, depth int) *Error {
	if c != '{' {
		return d.mismatch("an object", depth)
	}
	fields := d.fields(v.Type())
	return d.each('}', "an object", func(int) *Error {
		name, err := d.key()
		if err != nil {
			return err
		}
		f := find(fields, name)
		if f == nil {
			d.space()
			return d.skip(depth + 1).within(name)
		}
		return d.value(v.FieldByIndex(f.index), depth+1).within(f.name)
	})
}

// find prefers the exact name to one that differs in case, as encoding/json does.
func find(fields []field, name string) *field {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	for i := range fields {
		if strings.EqualFold(fields[i].name, name) {
			return &fields[i]
		}
	}
	return nil
}

func (d *decoder) fields(t reflect.Type) []field {
	if list, ok := d.seen[t]; ok {
		return list
	}
	if d.seen == nil {
		d.seen, d.all = make(map[reflect.Type][]field), make([]field, 0, 192)
	}
	from := len(d.all)
	d.all = appendFields(d.all, t, nil)
	list := d.all[from:len(d.all):len(d.all)]
	d.seen[t] = list
	return list
}

// appendFields appends the fields of a struct that is found at an index.
func appendFields(list []field, t reflect.Type, at []int) []field {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		switch {
		case tag == "-":
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			list = appendFields(list, f.Type, slices.Concat(at, f.Index))
		case f.IsExported():
			if name == "" {
				name = f.Name
			}
			list = append(list, field{name, slices.Concat(at, f.Index)})
		}
	}
	return list
}
