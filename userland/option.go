package userland

import (
	"fmt"
	"strings"
)

// options are the parsed options of a call.
type options struct {
	seen []option
}

// option is one occurrence on the command line.
type option struct {
	name  byte
	value string
}

// has tells whether an option was given.
func (o options) has(name byte) bool { return o.count(name) > 0 }

func (o options) count(name byte) int {
	n := 0
	for _, s := range o.seen {
		if s.name == name {
			n++
		}
	}
	return n
}

// value is the last value given for an option, or def.
func (o options) value(name byte, def string) string {
	for i := len(o.seen) - 1; i >= 0; i-- {
		if o.seen[i].name == name {
			return o.seen[i].value
		}
	}
	return def
}

// values are all values given for an option.
func (o options) values(name byte) []string {
	var out []string
	for _, s := range o.seen {
		if s.name == name {
			out = append(out, s.value)
		}
	}
	return out
}

// last is whichever of names was given last, 0 when none was: for options that override each other.
func (o options) last(names string) byte {
	for i := len(o.seen) - 1; i >= 0; i-- {
		if strings.IndexByte(names, o.seen[i].name) >= 0 {
			return o.seen[i].name
		}
	}
	return 0
}

// syntax describes the options that an applet knows.
type syntax struct {
	// short are option letters as getopt(3) writes them: a colon after a letter means that it takes
	// a value; a leading "+" that options end at the first operand (POSIX), without which they may
	// follow operands (GNU). Two colons: the value is optional and only given as --name=value or
	// right after the letter.
	short string
	// long maps long names to letters as "name=x other=y"; whether they take a value is the
	// letter's business. A letter may be any byte, so that options without a short form use one
	// that people do not type.
	long string
}

// options parses the call's arguments. ok is false after --help or a mistake, which it reported;
// then the applet returns status.
func (c *Call) options(short, long string) (o options, operands []string, status int, ok bool) {
	o, operands, err := syntax{short, long}.parse(c.Args)
	switch {
	case err == errHelp:
		a, _ := Lookup(c.Name)
		fmt.Fprintf(c.Stdout, "usage: %s %s\n", c.Name, a.Usage)
		return o, nil, exitOK, false
	case err != nil:
		return o, nil, c.usagef("%v", err), false
	}
	return o, operands, exitOK, true
}

type helpRequest struct{}

func (helpRequest) Error() string { return "help requested" }

var errHelp error = helpRequest{}

func (s syntax) parse(args []string) (o options, operands []string, err error) {
	short, posix := strings.CutPrefix(s.short, "+")
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return o, append(operands, args...), nil
		case strings.HasPrefix(arg, "--"):
			if args, err = s.parseLong(&o, short, arg[2:], args); err != nil {
				return o, nil, err
			}
		case len(arg) > 1 && arg[0] == '-':
			if args, err = parseShort(&o, short, arg[1:], args); err != nil {
				return o, nil, err
			}
		case posix:
			return o, append(operands, append([]string{arg}, args...)...), nil
		default:
			operands = append(operands, arg)
		}
	}
	return o, operands, nil
}

// takesValue tells whether a letter is known and whether it has a value.
func takesValue(short string, letter byte) (known, value bool) {
	i := strings.IndexByte(short, letter)
	if i < 0 || letter == ':' {
		return false, false
	}
	return true, i+1 < len(short) && short[i+1] == ':'
}

func parseShort(o *options, short, cluster string, args []string) ([]string, error) {
	for i := 0; i < len(cluster); i++ {
		known, value := takesValue(short, cluster[i])
		// Letters that only long options use are not printable, hence cannot be typed here by
		// accident.
		if !known || cluster[i] < ' ' {
			return nil, fmt.Errorf("unknown option %q", "-"+cluster[i:i+1])
		}
		if !value {
			o.seen = append(o.seen, option{name: cluster[i]})
			continue
		}
		v := cluster[i+1:]
		if v == "" && !strings.Contains(short, cluster[i:i+1]+"::") {
			if len(args) == 0 {
				return nil, fmt.Errorf("option %q needs a value", "-"+cluster[i:i+1])
			}
			v, args = args[0], args[1:]
		}
		o.seen = append(o.seen, option{cluster[i], v})
		return args, nil
	}
	return args, nil
}

func (s syntax) parseLong(o *options, short, arg string, args []string) ([]string, error) {
	name, v, assigned := strings.Cut(arg, "=")
	if name == "help" {
		return nil, errHelp
	}
	for _, l := range strings.Fields(s.long) {
		n, letter, _ := strings.Cut(l, "=")
		if n != name {
			continue
		}
		_, value := takesValue(short, letter[0])
		switch {
		case value && !assigned && strings.Contains(short, letter[:1]+"::"):
		case value && !assigned:
			if len(args) == 0 {
				return nil, fmt.Errorf("option %q needs a value", "--"+name)
			}
			v, args = args[0], args[1:]
		case !value && assigned:
			return nil, fmt.Errorf("option %q takes no value", "--"+name)
		}
		o.seen = append(o.seen, option{letter[0], v})
		return args, nil
	}
	return nil, fmt.Errorf("unknown option %q", "--"+name)
}
