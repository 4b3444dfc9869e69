package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"strake/cli/command"
)

// complete is the hidden verb that the scripts of `strake completion` call: its arguments are the
// words before the cursor, the last of which is being written. It prints candidates, one a line,
// with what they are after a tab; a line ":files" or ":dirs" leaves it to the shell. It asks the
// engine for names. Errors are dropped, because a shell does not show them, and no engine is
// started.
func complete(ctx context.Context, s *command.Session, words []string) {
	s.NoStart = true
	s.Err = io.Discard
	if len(words) == 0 {
		words = []string{""}
	}
	out := bufio.NewWriter(s.Out)
	defer out.Flush()
	c := &completer{ctx: ctx, s: s, out: out, word: words[len(words)-1]}
	c.walk(words[:len(words)-1])
}

type completer struct {
	ctx  context.Context
	s    *command.Session
	out  *bufio.Writer
	word string
}

// offer prints a candidate if what is written begins it.
func (c *completer) offer(value, about string) {
	if !strings.HasPrefix(value, c.word) || strings.ContainsAny(value, "\n\t") {
		return
	}
	if about != "" {
		value += "\t" + about
	}
	fmt.Fprintln(c.out, value)
}

// walk goes down the tree along the words before the one being written.
func (c *completer) walk(before []string) {
	g, fs := globalFlags(c.s)
	args, pending := split(fs, before, false)
	fs.Parse(before[:len(before)-len(args)])
	c.s.Host, c.s.ConfigDir = g.host, g.config
	if pending != nil {
		c.value(pending)
		return
	}
	list := tree()
	for len(args) > 0 {
		v := find(list, args[0])
		if v == nil {
			return
		}
		args = args[1:]
		if v.Sub == nil {
			c.verb(v, args)
			return
		}
		list = v.Sub()
		fs = nil
	}
	if strings.HasPrefix(c.word, "-") && fs != nil {
		c.flags(fs)
		return
	}
	for _, v := range list {
		if v.Group != command.Hidden {
			c.offer(v.Name, v.Short)
		}
	}
}

// split separates flags from arguments the way pflag does. pending is the flag whose value the next
// word is.
func split(
	fs *pflag.FlagSet, words []string, interspersed bool,
) (args []string, pending *pflag.Flag) {
	for i := 0; i < len(words); i++ {
		w := words[i]
		if w == "--" {
			return append(args, words[i+1:]...), nil
		}
		if len(w) < 2 || w[0] != '-' {
			if !interspersed {
				return append(args, words[i:]...), nil
			}
			args = append(args, w)
			continue
		}
		f, hasValue := flagOf(fs, w)
		if f == nil || hasValue || f.NoOptDefVal != "" {
			continue
		}
		if i++; i == len(words) {
			return args, f
		}
	}
	return args, nil
}

// flagOf finds the flag that a word is, and says whether its value is in the word. Of bundled
// letters the first that takes a value counts.
func flagOf(fs *pflag.FlagSet, w string) (*pflag.Flag, bool) {
	if name, ok := strings.CutPrefix(w, "--"); ok {
		name, _, hasValue := strings.Cut(name, "=")
		return fs.Lookup(name), hasValue
	}
	var f *pflag.Flag
	for i := 1; i < len(w); i++ {
		if f = fs.ShorthandLookup(w[i : i+1]); f == nil {
			return nil, false
		}
		if f.NoOptDefVal == "" {
			return f, i+1 < len(w)
		}
	}
	return f, false
}

func (c *completer) verb(v *command.Command, before []string) {
	if v.Passthrough {
		fmt.Fprintln(c.out, ":files")
		return
	}
	fs := newFlagSet()
	v.Setup(fs)
	args, pending := split(fs, before, !greedy(v))
	switch {
	case pending != nil:
		c.value(pending)
	case strings.HasPrefix(c.word, "-") && (len(args) == 0 || !greedy(v)) && !slices.Contains(
		before, "--",
	):
		if name, value, ok := strings.Cut(c.word, "="); ok {
			if f, _ := flagOf(fs, name); f != nil {
				inner := *c
				inner.word = value
				inner.prefixed(name+"=", f)
			}
			return
		}
		fs.Bool("help", false, "Print usage")
		c.flags(fs)
	case v.Name == "completion":
		for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
			c.offer(shell, "")
		}
	case len(v.Complete) > 0 && (v.Max < 0 || len(args) < v.Max):
		c.kind(string(v.Complete[min(len(args), len(v.Complete)-1)]), args)
	}
}

// greedy says whether everything after a verb's first argument belongs to a process.
func greedy(v *command.Command) bool {
	switch v.Name {
	case "run", "create", "exec", "top":
		return v.Max < 0
	}
	return false
}

func (c *completer) flags(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			c.offer("--"+f.Name, f.Usage)
		}
	})
}

// value completes the value of a flag.
func (c *completer) value(f *pflag.Flag) {
	for _, choice := range command.FlagChoices(f) {
		c.kind(choice, nil)
	}
}

// prefixed completes --flag=value as one word.
func (c *completer) prefixed(prefix string, f *pflag.Flag) {
	var b strings.Builder
	whole := c.out
	c.out = bufio.NewWriter(&b)
	c.value(f)
	c.out.Flush()
	c.out = whole
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, ":") {
			io.WriteString(c.out, prefix+line)
		}
	}
}

// kind offers everything of a kind that is not among the arguments already; a word that is no kind
// is offered itself.
func (c *completer) kind(kind string, given []string) {
	switch k := command.Kind(kind); k {
	case command.Nothing:
	case command.Files, command.Dirs:
		fmt.Fprintln(c.out, ":"+kind)
	case command.Variables:
		for _, v := range c.s.Environ {
			name, _, _ := strings.Cut(v, "=")
			c.offer(name, "")
		}
	case command.Containers, command.Running, command.Stopped, command.Images, command.Networks,
		command.Volumes, command.Any:
		for _, name := range namesOf(c.ctx, c.s, k) {
			if !slices.Contains(given, name) {
				c.offer(name, "")
			}
		}
	default:
		c.offer(kind, "")
	}
}
