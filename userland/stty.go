package userland

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mode is a flag of a terminal as stty(1p) names it.
type mode struct {
	name string
	set  func(t *unix.Termios) *uint32
	bits uint32
	sane bool // what `stty sane` makes of it
}

func inputModes(t *unix.Termios) *uint32   { return &t.Iflag }
func outputModes(t *unix.Termios) *uint32  { return &t.Oflag }
func controlModes(t *unix.Termios) *uint32 { return &t.Cflag }
func localModes(t *unix.Termios) *uint32   { return &t.Lflag }

var modes = []mode{
	{"parenb", controlModes, unix.PARENB, false}, {"parodd", controlModes, unix.PARODD, false},
	{"hupcl", controlModes, unix.HUPCL, false}, {"cstopb", controlModes, unix.CSTOPB, false},
	{"cread", controlModes, unix.CREAD, true}, {"clocal", controlModes, unix.CLOCAL, false},
	{"crtscts", controlModes, unix.CRTSCTS, false},
	{"ignbrk", inputModes, unix.IGNBRK, false}, {"brkint", inputModes, unix.BRKINT, true},
	{"ignpar", inputModes, unix.IGNPAR, false}, {"parmrk", inputModes, unix.PARMRK, false},
	{"inpck", inputModes, unix.INPCK, false}, {"istrip", inputModes, unix.ISTRIP, false},
	{"inlcr", inputModes, unix.INLCR, false}, {"igncr", inputModes, unix.IGNCR, false},
	{"icrnl", inputModes, unix.ICRNL, true}, {"ixon", inputModes, unix.IXON, true},
	{"ixoff", inputModes, unix.IXOFF, false}, {"iuclc", inputModes, unix.IUCLC, false},
	{"ixany", inputModes, unix.IXANY, false}, {"imaxbel", inputModes, unix.IMAXBEL, true},
	{"iutf8", inputModes, unix.IUTF8, false},
	{"opost", outputModes, unix.OPOST, true}, {"olcuc", outputModes, unix.OLCUC, false},
	{"ocrnl", outputModes, unix.OCRNL, false}, {"onlcr", outputModes, unix.ONLCR, true},
	{"onocr", outputModes, unix.ONOCR, false}, {"onlret", outputModes, unix.ONLRET, false},
	{"ofill", outputModes, unix.OFILL, false}, {"ofdel", outputModes, unix.OFDEL, false},
	{"isig", localModes, unix.ISIG, true}, {"icanon", localModes, unix.ICANON, true},
	{"iexten", localModes, unix.IEXTEN, true}, {"echo", localModes, unix.ECHO, true},
	{"echoe", localModes, unix.ECHOE, true}, {"echok", localModes, unix.ECHOK, true},
	{"echonl", localModes, unix.ECHONL, false}, {"noflsh", localModes, unix.NOFLSH, false},
	{"xcase", localModes, unix.XCASE, false}, {"tostop", localModes, unix.TOSTOP, false},
	{"echoprt", localModes, unix.ECHOPRT, false}, {"echoctl", localModes, unix.ECHOCTL, true},
	{"echoke", localModes, unix.ECHOKE, true},
}

// characters are the special characters by their names, with what `stty sane` makes of them.
var characters = []struct {
	name  string
	index int
	sane  byte
}{
	{"intr", unix.VINTR, 3}, {"quit", unix.VQUIT, 28}, {"erase", unix.VERASE, 127},
	{"kill", unix.VKILL, 21}, {"eof", unix.VEOF, 4}, {"eol", unix.VEOL, 0},
	{"eol2", unix.VEOL2, 0}, {"start", unix.VSTART, 17}, {"stop", unix.VSTOP, 19},
	{"susp", unix.VSUSP, 26}, {"rprnt", unix.VREPRINT, 18}, {"werase", unix.VWERASE, 23},
	{"lnext", unix.VLNEXT, 22}, {"discard", unix.VDISCARD, 15},
}

// stty shows and sets the modes of the terminal on standard input (stty(1p)).
func stty(_ context.Context, c *Call) int {
	var file *os.File
	name, words := "standard input", c.Args
	if f, ok := c.Stdin.(*os.File); ok {
		file = f
	}
	if len(words) > 0 && strings.HasPrefix(words[0], "--") {
		o, rest, status, ok := c.options("agF:", "all=a save=g file=F")
		if !ok {
			return status
		}
		if words = rest; o.has('a') {
			words = append(words, "-a")
		} else if o.has('g') {
			words = append(words, "-g")
		}
		if o.has('F') {
			words = append([]string{"-F", o.value('F', "")}, words...)
		}
	}
	if len(words) > 1 && words[0] == "-F" {
		f, err := os.OpenFile(c.path(words[1]), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil {
			return c.fault(words[1], err)
		}
		defer f.Close()
		file, name, words = f, words[1], words[2:]
	}
	if file == nil {
		return c.fault(name, unix.ENOTTY)
	}
	return c.stty(file, name, words)
}

func (c *Call) stty(file *os.File, name string, words []string) int {
	t, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	var size *unix.Winsize
	if err == nil {
		size, err = unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	}
	if err != nil {
		return c.fault(name, err)
	}
	switch strings.Join(words, " ") {
	case "", "-a":
		showTerminal(c, t, size, len(words) > 0)
		return exitOK
	case "-g":
		fmt.Fprintln(c.Stdout, saveModes(t))
		return exitOK
	case "size":
		fmt.Fprintln(c.Stdout, size.Row, size.Col)
		return exitOK
	case "speed":
		fmt.Fprintln(c.Stdout, speed(t))
		return exitOK
	}
	before := *size
	for len(words) > 0 {
		used, err := applyMode(t, size, words)
		if err != nil {
			return c.usagef("%v", err)
		}
		words = words[used:]
	}
	if err = unix.IoctlSetTermios(int(file.Fd()), unix.TCSETSW, t); err == nil && *size != before {
		err = unix.IoctlSetWinsize(int(file.Fd()), unix.TIOCSWINSZ, size)
	}
	if err != nil {
		return c.fault(name, err)
	}
	return exitOK
}

// applyMode changes a terminal's modes as the first words say and returns their number.
func applyMode(t *unix.Termios, size *unix.Winsize, words []string) (used int, err error) {
	word := words[0]
	if strings.Contains(word, ":") {
		return 1, restoreModes(t, word)
	}
	switch word {
	case "sane":
		for _, m := range modes {
			m.apply(t, m.sane)
		}
		for _, ch := range characters {
			t.Cc[ch.index] = ch.sane
		}
		return 1, nil
	case "raw", "-cooked":
		t.Iflag, t.Oflag = 0, t.Oflag&^unix.OPOST
		t.Lflag &^= unix.ISIG | unix.ICANON | unix.XCASE
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		return 1, nil
	case "cooked", "-raw":
		t.Iflag |= unix.BRKINT | unix.IGNPAR | unix.ISTRIP | unix.ICRNL | unix.IXON
		t.Oflag |= unix.OPOST
		t.Lflag |= unix.ISIG | unix.ICANON
		t.Cc[unix.VEOF], t.Cc[unix.VEOL] = 4, 0
		return 1, nil
	case "cbreak", "-cbreak":
		mode{set: localModes, bits: unix.ICANON}.apply(t, word != "cbreak")
		return 1, nil
	case "rows", "cols", "columns", "min", "time":
		if len(words) < 2 {
			return 0, fmt.Errorf("%s: want a number behind it", word)
		}
		bits := 16
		if word == "min" || word == "time" {
			bits = 8
		}
		n, err := strconv.ParseUint(words[1], 10, bits)
		if err != nil {
			return 0, fmt.Errorf("%s %q: want a number below %d", word, words[1], 1<<bits)
		}
		switch word {
		case "rows":
			size.Row = uint16(n)
		case "min":
			t.Cc[unix.VMIN] = byte(n)
		case "time":
			t.Cc[unix.VTIME] = byte(n)
		default:
			size.Col = uint16(n)
		}
		return 2, nil
	}
	for _, ch := range characters {
		if word != ch.name {
			continue
		}
		if len(words) < 2 {
			return 0, fmt.Errorf("%s: want a character behind it", word)
		}
		value, err := parseCharacter(words[1])
		t.Cc[ch.index] = value
		return 2, err
	}
	bare, off := strings.CutPrefix(word, "-")
	i := slices.IndexFunc(modes, func(m mode) bool { return m.name == bare })
	if i < 0 {
		return 0, fmt.Errorf("unknown mode %q", word)
	}
	modes[i].apply(t, !off)
	return 1, nil
}

func (m mode) apply(t *unix.Termios, on bool) {
	if on {
		*m.set(t) |= m.bits
	} else {
		*m.set(t) &^= m.bits
	}
}

// parseCharacter reads a special character: itself, ^X, or none of them (undef).
func parseCharacter(word string) (byte, error) {
	switch {
	case word == "undef", word == "^-":
		return 0, nil
	case word == "^?":
		return 127, nil
	case len(word) == 1:
		return word[0], nil
	case len(word) == 2 && word[0] == '^':
		return word[1] & 31, nil
	}
	return 0, fmt.Errorf("character %q: want one, ^ and one, or undef", word)
}

func showCharacter(b byte) string {
	switch {
	case b == 0:
		return "<undef>"
	case b == 127:
		return "^?"
	case b < 32:
		return "^" + string(rune(b+64))
	}
	return string(rune(b))
}

// showTerminal prints the modes: all of them, or those that are not as `stty sane` makes them.
func showTerminal(c *Call, t *unix.Termios, size *unix.Winsize, all bool) {
	fmt.Fprintf(c.Stdout, "speed %d baud;", speed(t))
	if all {
		fmt.Fprintf(c.Stdout, " rows %d; columns %d;", size.Row, size.Col)
	}
	fmt.Fprintf(c.Stdout, " line = %d;\n", t.Line)
	var line []string
	for _, ch := range characters {
		if all || t.Cc[ch.index] != ch.sane {
			line = append(line, ch.name+" = "+showCharacter(t.Cc[ch.index])+";")
		}
	}
	if all {
		line = append(
			line, fmt.Sprintf("min = %d; time = %d;", t.Cc[unix.VMIN], t.Cc[unix.VTIME]),
		)
	}
	if len(line) > 0 {
		fmt.Fprintln(c.Stdout, strings.Join(line, " "))
	}
	line = nil
	for _, m := range modes {
		on := *m.set(t)&m.bits == m.bits
		switch {
		case !all && on == m.sane:
		case on:
			line = append(line, m.name)
		default:
			line = append(line, "-"+m.name)
		}
	}
	if len(line) > 0 {
		fmt.Fprintln(c.Stdout, strings.Join(line, " "))
	}
}

// speed is the output speed in baud. The kernel leaves the number beside the code for those that
// have none.
func speed(t *unix.Termios) uint32 {
	for code, baud := range map[uint32]uint32{
		unix.B0: 0, unix.B9600: 9600, unix.B19200: 19200, unix.B38400: 38400,
		unix.B57600: 57600, unix.B115200: 115200, unix.B230400: 230400, unix.B921600: 921600,
	} {
		if t.Cflag&unix.CBAUD == code {
			return baud
		}
	}
	return t.Ospeed
}

// saveModes is all of a terminal's modes in the form that stty reads again.
func saveModes(t *unix.Termios) string {
	words := []string{
		hexWord(t.Iflag), hexWord(t.Oflag), hexWord(t.Cflag), hexWord(t.Lflag),
	}
	for _, b := range t.Cc {
		words = append(words, hexWord(uint32(b)))
	}
	return strings.Join(words, ":")
}

func hexWord(n uint32) string { return strconv.FormatUint(uint64(n), 16) }

func restoreModes(t *unix.Termios, saved string) error {
	words := strings.Split(saved, ":")
	if len(words) != 4+len(t.Cc) {
		return fmt.Errorf("modes %q: want what stty -g prints", saved)
	}
	for i, w := range words {
		bits := 32
		if i >= 4 {
			bits = 8
		}
		n, err := strconv.ParseUint(w, 16, bits)
		if err != nil {
			return fmt.Errorf("modes %q: %q is no number of %d bits", saved, w, bits)
		}
		switch i {
		case 0:
			t.Iflag = uint32(n)
		case 1:
			t.Oflag = uint32(n)
		case 2:
			t.Cflag = uint32(n)
		case 3:
			t.Lflag = uint32(n)
		default:
			t.Cc[i-4] = byte(n)
		}
	}
	return nil
}
