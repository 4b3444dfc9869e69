package userland

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
	shsyntax "mvdan.cc/sh/v3/syntax"
)

var errInterrupted = errors.New("interrupted")

// interact is the shell at a terminal: it prompts, reads a whole command, runs it, until exit or
// the end of input.
func (s *shell) interact(ctx context.Context, in, out *os.File) int {
	// Without job control a process that ^Z stops could not be continued.
	signal.Ignore(syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	ed := newEditor(in, out, s.complete)
	status := exitOK
	for {
		text, err := s.readCommand(ed)
		switch {
		case errors.Is(err, errInterrupted):
			status = exitSignal + int(syscall.SIGINT)
			continue
		case err == io.EOF:
			fmt.Fprintln(out)
			return s.leave(ctx, status)
		case err != nil:
			return s.c.errorf("terminal: %s", reason(err))
		}
		file, err := s.parser.Parse(strings.NewReader(text), s.zero)
		if err != nil {
			s.c.errorf("%v", err)
			status = exitUsage
			continue
		}
		s.prepare(file)
		st, exited := s.line(ctx, file, status)
		if exited {
			return st
		}
		status = st
	}
}

// line runs the statements of a command; an interrupt ends them all.
func (s *shell) line(
	ctx context.Context, file *shsyntax.File, before int,
) (status int, exited bool) {
	status = before
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	s.interrupt = cancel
	stop := s.watch()
	defer stop()
	for _, st := range file.Stmts {
		status = s.status(s.runner.Run(run, st))
		if run.Err() != nil {
			fmt.Fprintln(s.c.Stderr) // the terminal has shown ^C and stands behind it
			return exitSignal + int(syscall.SIGINT), false
		}
		if s.runner.Exited() {
			return status, true
		}
	}
	return status, false
}

// readCommand reads lines until they are a whole command.
func (s *shell) readCommand(ed *editor) (string, error) {
	text := ""
	prompt := s.prompt("PS1", `\w \$ `)
	for {
		line, err := ed.readLine(prompt)
		if err != nil {
			if err == io.EOF && text != "" {
				return text, nil // the parser says what is missing
			}
			return "", err
		}
		text += line + "\n"
		if !incomplete(text) {
			return text, nil
		}
		prompt = s.prompt("PS2", "> ")
	}
}

// incomplete tells whether a command goes on in the next line.
func incomplete(text string) bool {
	body := strings.TrimSuffix(text, "\n")
	if (len(body)-len(strings.TrimRight(body, `\`)))%2 == 1 {
		return true
	}
	_, err := shsyntax.NewParser(shsyntax.Variant(shsyntax.LangBash)).Parse(
		strings.NewReader(text), "",
	)
	return shsyntax.IsIncomplete(err)
}

// prompt expands the escapes \w \W \u \h \$ \n \\ of a prompt variable.
func (s *shell) prompt(name, def string) string {
	text := def
	if v, ok := s.runner.Vars[name]; ok && v.IsSet() {
		text = v.String()
	} else if v := s.c.env(name); v != "" {
		text = v
	}
	dir := s.runner.Dir
	if home := s.c.env("HOME"); home != "" && home != "/" &&
		(dir == home || strings.HasPrefix(dir, home+"/")) {
		dir = "~" + dir[len(home):]
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		switch text[i] {
		case 'w':
			b.WriteString(dir)
		case 'W':
			b.WriteString(filepath.Base(dir))
		case 'u':
			b.WriteString(readAccounts().userName(os.Geteuid()))
		case 'h':
			h, _ := os.Hostname()
			h, _, _ = strings.Cut(h, ".")
			b.WriteString(h)
		case '$':
			if os.Geteuid() == 0 {
				b.WriteByte('#')
			} else {
				b.WriteByte('$')
			}
		case 'n':
			b.WriteByte('\n')
		case '[', ']': // bash's marks around what has no width
		case 'e':
			b.WriteByte(0x1b)
		default:
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

// editor reads lines with the keys people know (x/term: arrows, ^A ^E ^K ^U ^W ^L, history). The
// terminal is raw only while a line is read.
type editor struct {
	in  *os.File
	t   *term.Terminal
	key *keys
}

func newEditor(
	in, out *os.File, complete func(line string, pos int) (string, int, []string),
) *editor {
	k := &keys{r: in}
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{k, out}, "")
	t.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		next, at, choices := complete(line, pos)
		if len(choices) > 0 {
			// The terminal writes it above the line being edited. Its lock is held here, hence not
			// now.
			k.after = func() { fmt.Fprintf(t, "%s\n", strings.Join(choices, "  ")) }
		}
		return next, at, true
	}
	return &editor{in: in, t: t, key: k}
}

func (e *editor) readLine(prompt string) (string, error) {
	fd := int(e.in.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	defer term.Restore(fd, old)
	if ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
		if err := e.t.SetSize(int(ws.Col), int(ws.Row)); err != nil {
			return "", err
		}
	}
	// Only the last line of a prompt is the editor's; it counts columns in it.
	if i := strings.LastIndexByte(prompt, '\n'); i >= 0 {
		if _, err := e.t.Write([]byte(prompt[:i+1])); err != nil {
			return "", err
		}
		prompt = prompt[i+1:]
	}
	e.t.SetPrompt(prompt)
	line, err := e.t.ReadLine()
	if e.key.interrupted {
		e.key.interrupted = false
		return "", errInterrupted
	}
	return line, err
}

// keys passes keys on. ^C, which the terminal would take for the end of input, becomes the keys
// that empty the line and finish it.
type keys struct {
	r           io.Reader
	held        []byte
	interrupted bool
	after       func() // to be done before the next key
}

func (k *keys) Read(p []byte) (int, error) {
	if k.after != nil {
		k.after()
		k.after = nil
	}
	if len(k.held) == 0 {
		buf := make([]byte, 256)
		n, err := k.r.Read(buf)
		if n == 0 {
			return 0, err
		}
		for _, b := range buf[:n] {
			if b == 3 {
				k.interrupted = true
				k.held = append(k.held, "\x01\x0b\r"...) // ^A ^K Enter
				// what was typed behind it is dropped, as terminals do
				break
			}
			k.held = append(k.held, b)
		}
	}
	n := copy(p, k.held)
	k.held = k.held[n:]
	return n, nil
}

// complete completes the word before pos: the first of a command by commands, others by files.
// Several choices complete what they share, and are listed.
func (s *shell) complete(line string, pos int) (string, int, []string) {
	before := line[:pos]
	start := strings.LastIndexAny(before, " \t;|&<>()=") + 1
	word := before[start:]
	var found []string
	if lead := strings.TrimRight(before[:start], " \t"); !strings.Contains(word, "/") &&
		(lead == "" || strings.ContainsRune(";|&(", rune(lead[len(lead)-1]))) {
		found = s.commands(word)
	} else {
		found = s.files(word)
	}
	if len(found) == 0 {
		return line, pos, nil
	}
	shared := found[0]
	for _, f := range found[1:] {
		for !strings.HasPrefix(f, shared) {
			_, n := utf8.DecodeLastRuneInString(shared)
			shared = shared[:len(shared)-n]
		}
	}
	if len(found) == 1 && !strings.HasSuffix(shared, "/") {
		shared += " "
	}
	var choices []string
	if len(found) > 1 && shared == word {
		for _, f := range found {
			choices = append(choices, filepath.Base(f))
		}
	}
	return line[:start] + shared + line[pos:], start + len(shared), choices
}

func (s *shell) commands(prefix string) []string {
	seen := map[string]bool{}
	for _, b := range []string{
		"cd", "exit", "export", "set", "unset", "alias", "exec", "eval", "read", "source", "trap",
		"ulimit", "umask", "wait", "type", "command",
	} {
		seen[b] = true
	}
	for dir := range strings.SplitSeq(s.runnerVar("PATH"), ":") {
		list, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range list {
			seen[e.Name()] = true
		}
	}
	var out []string
	for n := range seen {
		if strings.HasPrefix(n, prefix) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func (s *shell) runnerVar(name string) string {
	if v, ok := s.runner.Vars[name]; ok {
		return v.String()
	}
	return s.c.env(name)
}

func (s *shell) files(word string) []string {
	dir, base := "", word
	if i := strings.LastIndexByte(word, '/'); i >= 0 {
		dir, base = word[:i+1], word[i+1:]
	}
	at := dir
	if !strings.HasPrefix(dir, "/") {
		at = s.runner.Dir + "/" + dir
	}
	if rest, ok := strings.CutPrefix(dir, "~/"); ok {
		at = s.runnerVar("HOME") + "/" + rest
	}
	list, err := os.ReadDir(at)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), base) || base == "" && e.Name()[0] == '.' {
			continue
		}
		n := dir + e.Name()
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			st, err := os.Stat(filepath.Join(at, e.Name()))
			isDir = err == nil && st.IsDir()
		}
		if isDir {
			n += "/"
		}
		out = append(out, n)
	}
	return out
}
