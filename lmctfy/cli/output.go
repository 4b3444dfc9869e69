package cli

import (
	"fmt"
	"io"
	"strings"
)

// output is what a command prints: keys with values, whose form the style decides, and raw text.
type output struct{ list []entry }

// entry is raw text if it has no key.
type entry struct{ key, value string }

func (o *output) add(key, value string) { o.list = append(o.list, entry{key, value}) }

func (o *output) raw(text string) { o.list = append(o.list, entry{value: text}) }

func (o *output) print(w io.Writer, s style) error {
	var b strings.Builder
	for _, e := range o.list {
		switch {
		case e.key == "":
			b.WriteString(e.value)
		case s == values:
			b.WriteString(e.value + "\n")
		case s == long:
			fmt.Fprintf(&b, "%-20s | %s\n\n", e.key, e.value)
		default:
			fmt.Fprintf(&b, "%s=\"%s\"\n", e.key, escape(e.value))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// escape writes a value as in a string of C.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '"' || c == '\'' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

const (
	columns     = 80
	nameColumns = 22
)

// wrap prints a text in lines that begin after some columns; the first line goes on where the
// caller has printed these.
func wrap(w io.Writer, text string, indent int) {
	for first := true; first || text != ""; first = false {
		line := text
		if width := columns - indent; len(text) > width {
			if i := strings.LastIndexByte(text[:width+1], ' '); i > 0 {
				line = text[:i]
			}
		}
		text = strings.TrimPrefix(text[len(line):], " ")
		if !first {
			fmt.Fprintf(w, "%*s", indent, "")
		}
		fmt.Fprintln(w, line)
	}
}

func printUsage(w io.Writer, title string, list []command) {
	fmt.Fprintf(w, `Usage: %s [command]

  Flags of all commands, anywhere on the line:
    -V                Print the version.
    -h                Print this help.
    -l                Print results in the style long.
    -p                Print results in the style pairs. [Default]
    -v                Print results in the style values.

  Flags of some commands:
    -b                Print a message in binary form.
    -c <file>         Read the specification from a file.
    -f                Do it all the same.
    -n                Do not wait for the command.
    -r                Containers inside too.

  Commands:
`, title)
	for _, c := range list {
		fmt.Fprintf(w, "    %-*s  ", nameColumns-6, c.name)
		wrap(w, c.about, nameColumns)
	}
}

func printTree(w io.Writer, list []command, indent string) {
	for _, c := range list {
		fmt.Fprintf(w, "%s%s\n", indent, c.name)
		printTree(w, c.sub, indent+"    ")
	}
}

// printTreeLong prints the tree with the kind of each command: root and branch have commands below;
// a leaf reads, a flur changes, and init sets the machine up.
func printTreeLong(w io.Writer, list []command, numbers, names []string) {
	for i, c := range list {
		at := append(numbers[:len(numbers):len(numbers)], fmt.Sprint(i))
		to := append(names[:len(names):len(names)], c.name)
		kind := "leaf"
		switch {
		case c.sub != nil && len(at) == 1:
			kind = "root"
		case c.sub != nil:
			kind = "branch"
		case c.setsUp:
			kind = "init"
		case c.changes:
			kind = "flur"
		}
		fmt.Fprintf(
			w, "%s[%s %s] %s\n", strings.Repeat("    ", len(numbers)), kind, strings.Join(at, ":"),
			strings.Join(to, " "),
		)
		printTreeLong(w, c.sub, at, to)
	}
}
