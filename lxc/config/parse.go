package config

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Bounds of what is read.
const (
	maxFile  = 1 << 20 // bytes
	maxLine  = 1 << 16 // bytes
	maxDepth = 16      // of lxc.include
	maxFiles = 1000    // of one configuration
)

// Load reads a configuration file. Paths in lxc.include that are not absolute are below the working
// directory, as in LXC. Lines that are wrong are reported together as Errors; a file that cannot be
// opened is the error of os.Open.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Parse(path, f)
}

// Parse reads a configuration, and the files that it includes. name is for messages. Lines that are
// wrong are reported together as Errors.
func Parse(name string, r io.Reader) (*Config, error) {
	c := &Config{}
	p := parser{c: c}
	c.lines = p.read(name, r)
	if len(p.wrong) > 0 {
		return nil, p.wrong
	}
	return c, nil
}

// parser reads one configuration.
type parser struct {
	c     *Config
	wrong Errors
	// open are the files that are being read, the first one is the outermost.
	open []os.FileInfo
	// files is how many were included.
	files int
}

// read applies the lines of one file.
func (p *parser) read(name string, r io.Reader) []line {
	var lines []line
	eachLine(name, r, &p.wrong, func(text string) *Error {
		l, err := p.line(text)
		lines = append(lines, l)
		return err
	})
	return lines
}

// eachLine calls a function with every line of a file, without its end, and adds to wrong what was
// refused, until there are as many errors as are reported.
func eachLine(name string, r io.Reader, wrong *Errors, use func(text string) *Error) {
	limited := &io.LimitedReader{R: r, N: maxFile + 1}
	scanner := bufio.NewScanner(limited)
	scanner.Buffer(nil, maxLine)
	n := 1
	for ; len(*wrong) < most && scanner.Scan(); n++ {
		if e := use(strings.TrimRight(scanner.Text(), "\r")); e != nil && len(*wrong) < most {
			e.File, e.Line = name, n
			*wrong = append(*wrong, e)
		}
	}
	err := scanner.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		err = want("lines of less than %d bytes", maxLine)
	} else if limited.N == 0 {
		err = want("a file of at most %d bytes", maxFile)
	}
	if err != nil && len(*wrong) < most {
		*wrong = append(*wrong, &Error{File: name, Line: n, Problem: err.Error()})
	}
}

const notALine = "want lxc.KEY = VALUE, or a comment after #"

// line applies one line.
func (p *parser) line(text string) (line, *Error) {
	key, value, ok := split(text)
	if !ok {
		return line{text: text}, &Error{Value: strings.TrimSpace(text), Problem: notALine}
	}
	if key == "" {
		return line{text: text}, nil
	}
	l, err := p.set(key, value)
	l.text = text
	if err != nil {
		return l, &Error{Key: key, Value: value, Problem: err.Error()}
	}
	return l, nil
}

// set applies one setting.
func (p *parser) set(key, value string) (line, error) {
	name, err := p.c.modern(key, value)
	if err != nil {
		return line{}, err
	}
	l := line{key: name, value: value}
	if name == "lxc.include" && value != "" {
		l.include, err = p.include(value)
		return l, err
	}
	return l, p.c.apply(name, value)
}

// split takes a line apart. Comments and empty lines have no key.
func split(text string) (key, value string, ok bool) {
	rest := strings.Trim(text, " \t\r\f")
	if rest == "" || rest[0] == '#' {
		return "", "", true
	}
	key, value, found := strings.Cut(rest, "=")
	if !found || !strings.HasPrefix(key, "lxc.") {
		return "", "", false
	}
	return strings.TrimRight(key, " \t"), unquote(value), true
}

// unquote takes white space and one pair of quotes from around a value. Quotes have no other
// meaning.
func unquote(value string) string {
	value = strings.Trim(value, " \t")
	if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		return value[1 : n-1]
	}
	return value
}

// include applies a file, or the files of a directory whose names end in ".conf" in the order of
// their names. As in LXC, a directory need not be there if its path ends in a slash.
func (p *parser) include(path string) ([]line, error) {
	names := []string{path}
	info, err := os.Stat(path)
	switch {
	case os.IsNotExist(err) && strings.HasSuffix(path, "/"):
		return nil, nil
	case err != nil:
		return nil, err
	case info.IsDir():
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		names = nil
		for _, e := range entries {
			if before, ok := strings.CutSuffix(e.Name(), ".conf"); ok && before != "" {
				names = append(names, filepath.Join(path, e.Name()))
			}
		}
	}
	var lines []line
	for _, name := range names {
		more, err := p.includeFile(name)
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
	}
	return lines, nil
}

// includeFile applies one file.
func (p *parser) includeFile(name string) ([]line, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	for _, outer := range p.open {
		if os.SameFile(outer, info) {
			return nil, refusal(fmt.Sprintf("%s includes itself", name))
		}
	}
	if p.files++; len(p.open) == maxDepth || p.files > maxFiles {
		return nil, refusal(fmt.Sprintf("want at most %d files inside of each other, and %d in all",
			maxDepth, maxFiles))
	}
	p.open = append(p.open, info)
	defer func() { p.open = p.open[:len(p.open)-1] }()
	return p.read(name, f), nil
}
