package cli

import (
	"fmt"
	"strconv"
	"strings"

	"strake/internal/suggest"
)

// style is how results are printed.
type style string

const (
	pairs  style = "pairs"
	values style = "values"
	long   style = "long"
)

// flags are those of a command line.
type flags struct {
	given          []string // letters that are for some commands only, in their order
	binary         bool
	config         *string
	force          bool
	help           bool
	noWait         bool
	recursive      bool
	style          style
	version        bool
	tree, treeLong bool
	outputFD       int
}

// letters are the short flags. Those in particular are for some commands only.
const (
	letters    = "bcfhlnprvV"
	particular = "bcfnr"
)

// longNames are the long flags with the letters of those that mean the same.
var longNames = map[string]string{
	"lmctfy_binary": "b", "lmctfy_config": "c", "lmctfy_force": "f", "lmctfy_print_help": "h",
	"help": "h", "lmctfy_no_wait": "n", "lmctfy_recursive": "r", "lmctfy_version": "V",
	"version": "V", "lmctfy_version_long": "V", "lmctfy_output_style": "",
	"lmctfy_print_cmd_tree": "", "lmctfy_print_cmd_tree_long": "", "lmctfy_output_fd": "",
}

// parse takes flags out of a command line, wherever they are. After "--", and after the container's
// name of run, everything is an argument.
func parse(args []string) (f flags, words []string, err error) {
	f = flags{style: pairs, outputFD: 1}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if len(words) == 2 && words[0] == "run" {
			return f, append(words, args[i:]...), nil
		}
		next := func(flag string) (string, error) {
			if i++; i >= len(args) {
				return "", fmt.Errorf("flag %s: want a value after it", flag)
			}
			return args[i], nil
		}
		switch {
		case arg == "--":
			return f, append(words, args[i+1:]...), nil
		case strings.HasPrefix(arg, "--"):
			err = f.long(arg[2:], next)
		case strings.HasPrefix(arg, "-") && len(arg) > 1:
			err = f.short(arg[1:], next)
		default:
			words = append(words, arg)
		}
		if err != nil {
			return f, nil, err
		}
	}
	return f, words, nil
}

// short reads one or more letters. What follows -c in the same word is its value.
func (f *flags) short(text string, next func(string) (string, error)) error {
	for i, letter := range text {
		if !strings.ContainsRune(letters, letter) {
			return fmt.Errorf(
				"flag -%c: there is no such flag; want one of -%s", letter,
				strings.Join(strings.Split(letters, ""), " -"),
			)
		}
		if letter != 'c' {
			f.letter(string(letter))
			continue
		}
		value := text[i+1:]
		if value == "" {
			var err error
			if value, err = next("-c"); err != nil {
				return err
			}
		}
		f.setConfig(value)
		return nil
	}
	return nil
}

func (f *flags) setConfig(value string) {
	f.config = &value
	f.given = append(f.given, "c")
}

func (f *flags) letter(letter string) {
	switch letter {
	case "b":
		f.binary = true
	case "f":
		f.force = true
	case "h":
		f.help = true
	case "l":
		f.style = long
	case "n":
		f.noWait = true
	case "p":
		f.style = pairs
	case "r":
		f.recursive = true
	case "v":
		f.style = values
	case "V":
		f.version = true
	}
	if strings.Contains(particular, letter) {
		f.given = append(f.given, letter)
	}
}

// long reads a flag of the form name or name=value.
func (f *flags) long(text string, next func(string) (string, error)) (err error) {
	flag, value, hasValue := strings.Cut(text, "=")
	letter, known := longNames[flag]
	if !known {
		var names []string
		for n := range longNames {
			names = append(names, n)
		}
		hint := ""
		if near := suggest.Nearest(flag, names); near != "" {
			hint = fmt.Sprintf("; did you mean --%s?", near)
		}
		return fmt.Errorf("flag --%s: there is no such flag%s", flag, hint)
	}
	needs := letter == "c" || flag == "lmctfy_output_style" || flag == "lmctfy_output_fd"
	if needs && !hasValue {
		if value, err = next("--" + flag); err != nil {
			return err
		}
	}
	if !needs && hasValue {
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("flag --%s: %q: want true or false", flag, value)
		}
		if !on {
			return nil
		}
	}
	switch flag {
	case "lmctfy_config":
		f.setConfig(value)
	case "lmctfy_output_style":
		f.style = style(value)
		if f.style != pairs && f.style != values && f.style != long {
			return fmt.Errorf("flag --%s: %q: want values, long or pairs", flag, value)
		}
	case "lmctfy_output_fd":
		if f.outputFD, err = strconv.Atoi(value); err != nil || f.outputFD < 0 {
			return fmt.Errorf("flag --%s: %q: want the number of a descriptor", flag, value)
		}
	case "lmctfy_print_cmd_tree":
		f.tree = true
	case "lmctfy_print_cmd_tree_long":
		f.treeLong = true
	default:
		f.letter(letter)
	}
	return nil
}
