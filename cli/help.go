package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"strake/cli/command"
)

const about = "Containers, from the kernel's namespaces up"

func writeRootHelp(w io.Writer, fs *pflag.FlagSet) {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:  strake [OPTIONS] COMMAND\n\n%s\n", about)
	list := tree()
	for _, g := range []struct {
		title string
		group command.Group
	}{
		{"Common Commands", command.Common}, {"Management Commands", command.Management},
		{"Commands", command.Other},
	} {
		fmt.Fprintf(&b, "\n%s:\n", g.title)
		for _, c := range list {
			if c.Group == g.group {
				fmt.Fprintf(&b, "  %-12s%s\n", c.Name, c.Short)
			}
		}
	}
	fmt.Fprintf(
		&b,
		"\nGlobal Options:\n%s\nRun 'strake COMMAND --help' for more information on a command.\n",
		flagUsages(fs),
	)
	io.WriteString(w, b.String())
}

func writeGroupHelp(w io.Writer, c *command.Command) {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:  strake %s COMMAND\n\n%s\n\nCommands:\n", c.Name, c.Short)
	for _, v := range c.Sub() {
		fmt.Fprintf(&b, "  %-12s%s\n", v.Name, v.Short)
	}
	fmt.Fprintf(&b, "\nRun 'strake %s COMMAND --help' for more information on a command.\n", c.Name)
	io.WriteString(w, b.String())
}

func writeVerbHelp(w io.Writer, c *command.Command, fs *pflag.FlagSet, path string) {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:  strake %s\n\n%s\n", strings.TrimSpace(path+" "+c.Args), c.Short)
	if names := aliases(c); len(names) > 1 {
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", strings.Join(names, ", "))
	}
	if usages := flagUsages(fs); usages != "" {
		fmt.Fprintf(&b, "\nOptions:\n%s", usages)
	}
	io.WriteString(w, b.String())
}

// flagUsages describes flags, one a line, with defaults that say something.
func flagUsages(fs *pflag.FlagSet) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 1, 3, ' ', 0)
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		short := "    "
		if f.Shorthand != "" {
			short = "-" + f.Shorthand + ", "
		}
		kind := ""
		if k := f.Value.Type(); k != "bool" {
			kind = " " + map[string]string{
				"stringArray": "list", "stringSlice": "list", "int64": "int", "uint16": "uint",
			}[k]
			if kind == " " {
				kind += k
			}
		}
		about := f.Usage
		switch f.DefValue {
		case "", "0", "0s", "false", "[]", "-1":
		default:
			about += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(t, "  %s--%s%s\t%s\n", short, f.Name, kind, about)
	})
	t.Flush()
	return b.String()
}

// aliases are all the ways to call a verb: below its noun, by that one's other names, and at the
// top.
func aliases(c *command.Command) []string {
	var names []string
	seen := map[string]bool{}
	add := func(path string) {
		if path = "strake " + path; !seen[path] {
			seen[path] = true
			names = append(names, path)
		}
	}
	add(c.Path)
	top := tree()
	noun, _, nested := strings.Cut(c.Path, " ")
	short := c.Short
	if group := find(top, noun); nested && group != nil && group.Sub != nil {
		for _, v := range group.Sub() {
			if v.Short != short {
				continue
			}
			for _, a := range v.Aliases {
				add(noun + " " + a)
			}
		}
	} else if !nested {
		for _, g := range top {
			if g.Sub == nil {
				continue
			}
			for _, v := range g.Sub() {
				if v.Short == short {
					add(g.Name + " " + v.Name)
				}
			}
		}
	}
	for _, v := range top {
		if v.Short == short && v.Sub == nil {
			add(v.Name)
		}
	}
	return names
}
