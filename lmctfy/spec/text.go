package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"strake/internal/suggest"
)

// Parse reads a ContainerSpec in text or binary form. Errors are of class
// errdefs.ErrInvalidArgument and name the place and what is not understood there.
func Parse(data []byte) (*ContainerSpec, error) {
	s := new(ContainerSpec)
	if err := parse(data, s); err != nil {
		return nil, err
	}
	return s, nil
}

// ParseInit is Parse for an InitSpec.
func ParseInit(data []byte) (*InitSpec, error) {
	s := new(InitSpec)
	if err := parse(data, s); err != nil {
		return nil, err
	}
	return s, nil
}

// ParseBinary reads a ContainerSpec in binary form only. Errors are of class
// errdefs.ErrInvalidArgument.
func ParseBinary(data []byte) (*ContainerSpec, error) {
	s := new(ContainerSpec)
	if err := proto.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf(
			"ContainerSpec: it is no message in binary form: %w", errdefs.ErrInvalidArgument,
		)
	}
	return s, nil
}

// parse tries the text form first, as lmctfy does. A binary message may consist of printable bytes
// by chance, and a mistyped text may be a binary message of fields that do not exist: binary form
// counts only if all its fields are known.
func parse(data []byte, into proto.Message) error {
	textErr := prototext.Unmarshal(data, into)
	if textErr == nil {
		return nil
	}
	binaryErr := proto.Unmarshal(data, into)
	unknown := ""
	if binaryErr == nil {
		if unknown = unknownField(into.ProtoReflect(), ""); unknown == "" {
			return nil
		}
	}
	kind := into.ProtoReflect().Descriptor().Name()
	if printable(data) {
		return fmt.Errorf(
			"%s: %s: %w", kind, explain(textErr, data, into.ProtoReflect().Descriptor()),
			errdefs.ErrInvalidArgument,
		)
	}
	if binaryErr != nil {
		return fmt.Errorf(
			"%s: it is no text, and no message in binary form either: %w", kind,
			errdefs.ErrInvalidArgument,
		)
	}
	return fmt.Errorf("%s: %s: %w", kind, unknown, errdefs.ErrInvalidArgument)
}

func printable(data []byte) bool {
	return !slices.ContainsFunc(data, func(b byte) bool {
		return b < ' ' && b != '\n' && b != '\t' && b != '\r'
	})
}

// unknownField names a field that a binary message has and its type does not, or returns "".
func unknownField(m protoreflect.Message, at string) (found string) {
	if len(m.GetUnknown()) > 0 {
		return fmt.Sprintf("the binary message has a field at %q that is not known", "/"+at)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		below := strings.TrimPrefix(at+"."+string(f.Name()), ".")
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && found == ""; i++ {
				found = unknownField(v.List().Get(i).Message(), below)
			}
		default:
			found = unknownField(v.Message(), below)
		}
		return found == ""
	})
	return found
}

var (
	placed   = regexp.MustCompile(`\(line (\d+):(\d+)\): (.*)$`)
	noField  = regexp.MustCompile(`unknown field: (\w+)`)
	badValue = regexp.MustCompile(`invalid (?:scalar )?value(?: for (\w+).*?)?: (.*)$`)
	before   = regexp.MustCompile(`(\w+)\s*:\s*$`)
)

// explain turns an error of the text parser, whose words change from build to build, into one with
// the place and what is allowed.
func explain(err error, data []byte, root protoreflect.MessageDescriptor) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	at, name := "", ""
	if m := placed.FindStringSubmatch(text); m != nil {
		at, text = "line "+m[1]+":"+m[2]+": ", m[3]
		name = fieldBefore(data, m[1], m[2])
	}
	text = strings.TrimPrefix(text, "proto: ")
	if m := noField.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("there is no field %q", m[1])
		all := names(root, map[protoreflect.FullName]bool{})
		if near := suggest.Nearest(m[1], all); near != "" {
			text += fmt.Sprintf("; did you mean %q?", near)
		}
	} else if m := badValue.FindStringSubmatch(text); m != nil {
		if f := field(root, name, m[1], map[protoreflect.FullName]bool{}); f != nil {
			text = fmt.Sprintf("%s: %s: want %s", name, m[2], want(f))
		}
	}
	return at + text
}

// fieldBefore is the name of the field whose value is at a place of a text; both numbers count from
// 1.
func fieldBefore(data []byte, line, column string) string {
	n, _ := strconv.Atoi(line)
	k, _ := strconv.Atoi(column)
	lines := strings.SplitAfter(string(data), "\n")
	if n < 1 || n > len(lines) || k < 1 || k > len(lines[n-1]) {
		return ""
	}
	if m := before.FindStringSubmatch(strings.Join(lines[:n-1], "") + lines[n-1][:k-1]); m != nil {
		return m[1]
	}
	return ""
}

// want says what values a field takes.
func want(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.EnumKind:
		var list []string
		for i := range f.Enum().Values().Len() {
			list = append(list, string(f.Enum().Values().Get(i).Name()))
		}
		return strings.Join(list, ", ")
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.StringKind:
		return "a string in quotes"
	case protoreflect.Uint64Kind, protoreflect.Uint32Kind:
		return "a whole number, 0 or more, of at most " + f.Kind().String()[4:] + " bits"
	}
	return "a whole number of at most " + f.Kind().String()[3:] + " bits"
}

// names are the names of all fields of a message and of those in it.
func names(m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) (list []string) {
	if seen[m.FullName()] {
		return nil
	}
	seen[m.FullName()] = true
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		list = append(list, string(f.Name()))
		if f.Message() != nil {
			list = append(list, names(f.Message(), seen)...)
		}
	}
	return list
}

// field finds a field by its name and, if that is not empty, its type in a message or in those in
// it.
func field(
	m protoreflect.MessageDescriptor, name, kind string, seen map[protoreflect.FullName]bool,
) protoreflect.FieldDescriptor {
	if name == "" || seen[m.FullName()] {
		return nil
	}
	seen[m.FullName()] = true
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if string(f.Name()) == name && (kind == "" || kind == f.Kind().String()) {
			return f
		}
		if f.Message() != nil {
			if found := field(f.Message(), name, kind, seen); found != nil {
				return found
			}
		}
	}
	return nil
}

// Binary is the message in binary form, always the same bytes for the same message.
func Binary(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Text is the message in text form, a field a line in the order of their numbers, as the C++
// library prints it. (prototext changes its spaces from build to build so that nobody relies on
// them; this output is relied on.)
func Text(m proto.Message) string {
	var b strings.Builder
	writeText(&b, m.ProtoReflect(), "")
	return b.String()
}

func writeText(b *strings.Builder, m protoreflect.Message, indent string) {
	var set []protoreflect.FieldDescriptor
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		set = append(set, f)
		return true
	})
	slices.SortFunc(set, func(a, b protoreflect.FieldDescriptor) int {
		return int(a.Number()) - int(b.Number())
	})
	for _, f := range set {
		if !f.IsList() {
			writeField(b, f, m.Get(f), indent)
			continue
		}
		for i := range m.Get(f).List().Len() {
			writeField(b, f, m.Get(f).List().Get(i), indent)
		}
	}
}

func writeField(
	b *strings.Builder, f protoreflect.FieldDescriptor, v protoreflect.Value, indent string,
) {
	b.WriteString(indent + string(f.Name()))
	switch f.Kind() {
	case protoreflect.MessageKind:
		b.WriteString(" {\n")
		writeText(b, v.Message(), indent+"  ")
		b.WriteString(indent + "}\n")
		return
	case protoreflect.EnumKind:
		b.WriteString(": ")
		if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
			b.WriteString(string(e.Name()))
		} else {
			b.WriteString(strconv.Itoa(int(v.Enum())))
		}
	case protoreflect.StringKind:
		b.WriteString(": " + strconv.QuoteToASCII(v.String()))
	default:
		b.WriteString(": " + v.String())
	}
	b.WriteByte('\n')
}
