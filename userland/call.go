package userland

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Exit statuses that all applets share.
const (
	exitOK    = 0
	exitFault = 1 // an operand could not be served
	exitUsage = 2 // the command line is not understood
)

// Call is one invocation of an applet. It is used by one goroutine.
type Call struct {
	// Name is the applet's name, as messages show it.
	Name string
	// Args are the arguments after the name.
	Args   []string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Dir is what relative paths are relative to; empty means the process's working directory.
	Dir string
	// Env is the environment as "NAME=value"; of equal names the last counts.
	Env []string
	// Exit ends the process. It is set where the process is a container's first, which the kernel
	// protects from the signals that would end any other (pid_namespaces(7)); then they end it by
	// this. The Go runtime alone would answer them with status 2.
	Exit func(status int)
}

// Applet is a command.
type Applet struct {
	Name string
	// Usage is the argument part of the usage line.
	Usage string
	// Run serves a call and returns the exit status. When ctx ends it returns soon, with any
	// status.
	Run func(ctx context.Context, c *Call) int
	// Inline applets are served by the shell as function calls: they neither read standard input
	// nor run until interrupted.
	Inline bool
}

// Serve runs the applet. What it could not write is an error of its own, also where it did not look:
// a line that a full disk has not taken was not written.
func (a Applet) Serve(ctx context.Context, c *Call) int {
	if !a.Inline {
		return a.Run(ctx, c) // those write much, and look
	}
	w := &checked{Writer: c.Stdout}
	c.Stdout = w
	status := a.Run(ctx, c)
	if w.err != nil && status == exitOK {
		status = c.fault("write", w.err)
	}
	return status
}

// checked keeps the first error of a writer.
type checked struct {
	io.Writer
	err error
}

func (w *checked) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

// stdoutFile is standard output if it is a file.
func (c *Call) stdoutFile() (*os.File, bool) {
	out := c.Stdout
	if w, ok := out.(*checked); ok {
		out = w.Writer
	}
	f, ok := out.(*os.File)
	return f, ok
}

// Lookup finds an applet by its name.
func Lookup(name string) (Applet, bool) {
	for _, a := range Applets() {
		if a.Name == name {
			return a, true
		}
	}
	return Applet{}, false
}

// path resolves an operand against the call's directory.
func (c *Call) path(name string) string {
	if c.Dir == "" || name == "" || filepath.IsAbs(name) {
		return name
	}
	// Not filepath.Join: it would drop a trailing slash, which means "follow, and be a directory".
	return strings.TrimSuffix(c.Dir, "/") + "/" + name
}

// workDir is the call's directory as an absolute path.
func (c *Call) workDir() (string, error) {
	if c.Dir != "" {
		return c.Dir, nil
	}
	return os.Getwd()
}

// env returns a variable of the call's environment.
func (c *Call) env(name string) string {
	for i := len(c.Env) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(c.Env[i], "="); ok && k == name {
			return v
		}
	}
	return ""
}

// errorf writes a message and returns exitFault.
func (c *Call) errorf(format string, args ...any) int {
	fmt.Fprintf(c.Stderr, c.Name+": "+format+"\n", args...)
	return exitFault
}

// usagef writes a message about the command line and returns exitUsage.
func (c *Call) usagef(format string, args ...any) int {
	c.errorf(format, args...)
	return exitUsage
}

// fault reports what happened to an operand and returns exitFault.
func (c *Call) fault(operand string, err error) int {
	if errors.Is(err, syscall.EPIPE) {
		return exitFault // the reader left: what a SIGPIPE says without words
	}
	return c.errorf("%s: %s", operand, reason(err))
}

// reason is an error without the operation and path that Go's errors repeat.
func reason(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// open opens an input operand, where "-" is standard input.
func (c *Call) open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(c.Stdin), nil
	}
	f, err := os.Open(c.path(name))
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.IsDir() {
		f.Close()
		return nil, syscall.EISDIR
	}
	return f, nil
}

// inputs calls fn with every input operand in turn, standard input when there is none, and reports
// the ones that cannot be read.
func (c *Call) inputs(
	ctx context.Context, names []string, fn func(name string, r io.Reader) error,
) int {
	if len(names) == 0 {
		names = []string{"-"}
	}
	status := exitOK
	for _, n := range names {
		r, err := c.open(n)
		if err == nil {
			err = fn(n, ctxReader{ctx, r})
			r.Close()
		}
		if err != nil {
			status = c.fault(n, err)
			if errors.Is(err, syscall.EPIPE) || ctx.Err() != nil {
				break
			}
		}
	}
	return status
}

// ctxReader ends a copy between two reads when ctx ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// buffered is a buffered standard output whose flush error becomes the exit status.
func (c *Call) buffered() *bufio.Writer { return bufio.NewWriterSize(c.Stdout, 32<<10) }

// finish flushes standard output and returns the status, worsened by a write error.
func (c *Call) finish(w *bufio.Writer, status int) int {
	if err := w.Flush(); err != nil {
		c.fault("write", err)
		if status == exitOK {
			return exitFault
		}
	}
	return status
}

// maxLine bounds a line held in memory; longer ones are an error, not a crash.
const maxLine = 64 << 20

// lines calls fn with each line without its newline. had tells whether the newline was there.
func lines(r io.Reader, fn func(line []byte, had bool) error) error {
	return records(r, '\n', fn)
}

// records is lines with another terminator.
func records(r io.Reader, end byte, fn func(rec []byte, had bool) error) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var long []byte
	for {
		part, err := br.ReadSlice(end)
		if err == bufio.ErrBufferFull {
			if len(long)+len(part) > maxLine {
				return fmt.Errorf("line longer than %d bytes", maxLine)
			}
			long = append(long, part...)
			continue
		}
		if err != nil && err != io.EOF {
			return err
		}
		rec := part
		if len(long) > 0 {
			long = append(long, part...)
			rec = long
		}
		if len(rec) > 0 {
			had := rec[len(rec)-1] == end
			if had {
				rec = rec[:len(rec)-1]
			}
			if ferr := fn(rec, had); ferr != nil {
				return ferr
			}
		}
		long = long[:0]
		if err == io.EOF {
			return nil
		}
	}
}
