package docker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"strake/engine"
)

// Types of the content of a hijacked connection or a log (API, "Stream format").
const (
	rawStream         = "application/vnd.docker.raw-stream"
	multiplexedStream = "application/vnd.docker.multiplexed-stream"
)

// frames writes the multiplexed form: eight bytes of header in front of each piece. Several of them
// share one lock.
type frames struct {
	mu     *sync.Mutex
	w      io.Writer
	stream byte // 1 standard output, 2 standard error
}

func (f frames) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	buf := make([]byte, 8+len(p))
	buf[0] = f.stream
	binary.BigEndian.PutUint32(buf[4:], uint32(len(p)))
	copy(buf[8:], p)
	n, err := f.w.Write(buf)
	return max(n-8, 0), err
}

// contentType is the type of a stream; clients before 1.42 know one type only.
func contentType(tty bool, v version) string {
	if !tty && v >= 42 {
		return multiplexedStream
	}
	return rawStream
}

// hijacked is a connection that has been taken over from HTTP.
type hijacked struct {
	net.Conn
	in     io.Reader
	header []byte // of the answer, until it has been sent
}

// answer tells the client that the connection is a stream from here on. Clients start a container
// when an attach has been answered.
func (h *hijacked) answer() {
	if h.header != nil {
		h.Conn.Write(h.header) // a client that is gone shows in the stream
		h.header = nil
	}
}

// Read reads what the client sends, beginning with what HTTP had read already.
func (h *hijacked) Read(p []byte) (int, error) { return h.in.Read(p) }

// CloseWrite ends our direction only.
func (h *hijacked) CloseWrite() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// hijack takes the connection of a request over. Until it is answered errors can still be told by
// closing it; after, only within the stream.
func hijack(w http.ResponseWriter, r *request, tty bool) (*hijacked, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	var header bytes.Buffer
	if strings.EqualFold(r.Header.Get("Upgrade"), "tcp") {
		fmt.Fprintf(
			&header,
			"HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n",
			contentType(tty, r.version),
		)
	} else {
		header.WriteString("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n")
	}
	for _, name := range []string{"Api-Version", "Server", "Ostype", "Docker-Experimental"} {
		fmt.Fprintf(&header, "%s: %s\r\n", name, w.Header().Get(name))
	}
	header.WriteString("\r\n")
	// The server's own reader would cancel the request's context at the end of the input, which is
	// no more than the client's saying that it has nothing to add.
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		conn.Close()
		return nil, errAnswered
	}
	return &hijacked{
		Conn: conn, in: io.MultiReader(bytes.NewReader(early), conn), header: header.Bytes(),
	}, nil
}

// streams connects a client with a process.
func (h *hijacked) streams(tty, stdin, stdout, stderr bool) engine.Streams {
	var out engine.Streams
	if stdin {
		out.Stdin = h
	}
	if tty {
		if stdout || stderr {
			out.Stdout = h.Conn
		}
		return out
	}
	mu := new(sync.Mutex)
	if stdout {
		out.Stdout = frames{mu, h.Conn, 1}
	}
	if stderr {
		out.Stderr = frames{mu, h.Conn, 2}
	}
	return out
}

func (s *server) attachContainer(w http.ResponseWriter, r *request) error {
	name := r.PathValue("name")
	info, err := s.Engine.Inspect(r.Context(), name)
	if err != nil {
		return err
	}
	keys, err := detachKeys(r.form("detachKeys"))
	if err != nil {
		return err
	}
	if st := info.State.Status; st == engine.Paused {
		return conflict("Container %s is paused, unpause the container before attach", name)
	} else if st == engine.Restarting {
		return conflict("Container %s is restarting, wait until the container is running", name)
	}
	stream, stdin := r.flag("stream"), r.flag("stdin")
	tty := info.Spec.TTY
	h, err := hijack(w, r, tty)
	if err != nil {
		return err
	}
	defer h.Close()
	opt := engine.AttachOptions{
		Streams: h.streams(tty, stdin && stream, r.flag("stdout"), r.flag("stderr")),
		Logs:    r.flag("logs"), Stream: stream,
		Attached: h.answer,
	}
	opt.DetachKeys = keys
	err = s.Engine.Attach(r.Context(), name, opt)
	// What kept a container from starting is the answer to the start.
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, engine.ErrNotStarted) {
		s.tell(h, tty, err)
	}
	return errAnswered
}

// tell puts an error into a stream, where clients show it.
func (s *server) tell(h *hijacked, tty bool, err error) {
	h.answer()
	var w io.Writer = h.Conn
	if !tty {
		w = frames{new(sync.Mutex), h.Conn, 2}
	}
	fmt.Fprintf(w, "%v\r\n", err)
}

// detachKeys parses "ctrl-p,ctrl-q" or "a,b".
func detachKeys(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	var keys []byte
	for _, k := range strings.Split(text, ",") {
		if len(k) == 1 {
			keys = append(keys, k[0])
			continue
		}
		c, ok := strings.CutPrefix(k, "ctrl-")
		if !ok || len(c) != 1 {
			return nil, invalid("Invalid detach keys (%s) provided", text)
		}
		switch {
		case c[0] >= 'a' && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case strings.Contains("@[\\]^_", c):
			keys = append(keys, c[0]-'@')
		default:
			return nil, invalid("Invalid detach keys (%s) provided", text)
		}
	}
	return keys, nil
}

func (s *server) createExec(w http.ResponseWriter, r *request) error {
	var req struct {
		User         string
		Privileged   bool
		Tty          bool
		AttachStdin  bool
		AttachStderr bool
		AttachStdout bool
		DetachKeys   string
		Env          []string
		WorkingDir   string
		Cmd          []string
	}
	if err := decode(r, &req); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return invalid("No exec command specified")
	}
	id, err := s.Engine.ExecCreate(r.Context(), r.PathValue("name"), engine.ExecSpec{
		Args: req.Cmd, Env: req.Env, User: req.User, WorkingDir: req.WorkingDir, TTY: req.Tty,
		Stdin:      req.AttachStdin,
		Privileged: req.Privileged, DetachKeys: req.DetachKeys,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, map[string]string{"Id": id})
}

func (s *server) startExec(w http.ResponseWriter, r *request) error {
	var req struct {
		Detach, Tty bool
		ConsoleSize *[2]uint // height, width
	}
	if err := decode(r, &req); err != nil {
		return err
	}
	id := r.PathValue("id")
	info, err := s.Engine.ExecInspect(r.Context(), id)
	if err != nil {
		return err
	}
	var size *[2]uint16
	if c := req.ConsoleSize; c != nil && c[0] < 1<<16 && c[1] < 1<<16 {
		size = &[2]uint16{uint16(c[1]), uint16(c[0])}
	}
	if req.Detach {
		if err := s.Engine.ExecStart(r.Context(), id, engine.Streams{}, size, true); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	if info.Running || info.ExitCode != nil {
		return conflict("exec process is already running or has ended")
	}
	keys, err := detachKeys(info.Spec.DetachKeys)
	if err != nil {
		return err
	}
	h, err := hijack(w, r, info.Spec.TTY)
	if err != nil {
		return err
	}
	defer h.Close()
	h.answer()
	streams := h.streams(info.Spec.TTY, info.Spec.Stdin, true, true)
	streams.DetachKeys = keys
	if err := s.Engine.ExecStart(r.Context(), id, streams, size, false); err != nil &&
		!errors.Is(err, net.ErrClosed) {
		s.tell(h, info.Spec.TTY, err)
	}
	return errAnswered
}

func (s *server) inspectExec(w http.ResponseWriter, r *request) error {
	e, err := s.Engine.ExecInspect(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	var entry string
	var args []string
	if len(e.Spec.Args) > 0 {
		entry, args = e.Spec.Args[0], e.Spec.Args[1:]
	}
	return writeJSON(w, http.StatusOK, map[string]any{
		"ID": e.ID, "Running": e.Running, "ExitCode": e.ExitCode, "ContainerID": e.ContainerID,
		"Pid": e.Pid, "CanRemove": false,
		"OpenStdin": e.Spec.Stdin, "OpenStdout": true, "OpenStderr": true,
		"DetachKeys": []byte(e.Spec.DetachKeys),
		"ProcessConfig": map[string]any{
			"tty": e.Spec.TTY, "entrypoint": entry, "arguments": orEmpty(args),
			"privileged": e.Spec.Privileged, "user": e.Spec.User,
		},
	})
}

func (s *server) resizeExec(w http.ResponseWriter, r *request) error {
	width, height, err := sizeOf(r)
	if err != nil {
		return err
	}
	return s.Engine.ExecResize(r.Context(), r.PathValue("id"), width, height)
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// writersFor are the two output streams over a plain response.
func writersFor(w io.Writer, tty bool) engine.Streams {
	if tty {
		return engine.Streams{Stdout: w}
	}
	mu := new(sync.Mutex)
	return engine.Streams{Stdout: frames{mu, w, 1}, Stderr: frames{mu, w, 2}}
}
