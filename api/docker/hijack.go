package docker

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"strake/engine"
)

// hijacked is a connection that has been taken over from HTTP.
type hijacked struct {
	net.Conn
	in     io.Reader
	header []byte // of the answer, until it has been sent
	taken  sync.Once
}

// answer sends the head of the answer, once; what follows is the stream. Clients start a container
// when they have received the answer to an attach.
func (h *hijacked) answer() {
	if h.header != nil {
		h.Conn.Write(h.header) // the next write to the stream reports the same error
		h.header = nil
	}
}

// Write writes to the stream. The first bytes follow when the client has read the head of the
// answer: some clients, the Python library among them, lose what they have received together with
// it. It may be called concurrently.
func (h *hijacked) Write(p []byte) (int, error) {
	h.taken.Do(h.awaitRead)
	return h.Conn.Write(p)
}

// headPatience bounds how long the stream waits for a client that does not read the head.
const headPatience = 100 * time.Millisecond

// awaitRead waits until the client's socket has nothing more to read (unix(7), SIOCOUTQ; on a TCP
// socket, until the client's kernel has acknowledged it), or headPatience is over. Nothing is
// waited for on connections that are no sockets.
func (h *hijacked) awaitRead() {
	c, ok := h.Conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	unread := func() bool {
		var n int
		var ierr error
		err := raw.Control(func(fd uintptr) { n, ierr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		return err == nil && ierr == nil && n > 0
	}
	step := 50 * time.Microsecond
	for waited := time.Duration(0); waited < headPatience && unread(); waited += step {
		step = min(2*step, 5*time.Millisecond)
		time.Sleep(step)
	}
}

// Read reads what the client sends, beginning with the bytes that the HTTP server has buffered.
func (h *hijacked) Read(p []byte) (int, error) { return h.in.Read(p) }

// CloseWrite ends the direction to the client only.
func (h *hijacked) CloseWrite() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// hijack takes the connection of a request over from the HTTP server. The caller closes it. After
// answer, errors can be reported in the stream only.
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
	// The server's own reader would cancel the request's context at the end of the input. Here the
	// end of the input means only that the client sends no more.
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		conn.Close()
		return nil, errAnswered
	}
	return &hijacked{
		Conn: conn, in: io.MultiReader(bytes.NewReader(early), conn), header: header.Bytes(),
	}, nil
}

// streams are the ends of a process's streams for a client: raw for a terminal, else multiplexed.
// stdin, stdout and stderr say which of them the client asked for.
func (h *hijacked) streams(tty, stdin, stdout, stderr bool) engine.Streams {
	var out engine.Streams
	if stdin {
		out.Stdin = h
	}
	if tty {
		if stdout || stderr {
			out.Stdout = h
		}
		return out
	}
	mu := new(sync.Mutex)
	if stdout {
		out.Stdout = frames{mu, h, 1}
	}
	if stderr {
		out.Stderr = frames{mu, h, 2}
	}
	return out
}

// tell writes an error into the stream as standard error, which clients print.
func tell(h *hijacked, tty bool, err error) {
	h.answer()
	var w io.Writer = h
	if !tty {
		w = frames{new(sync.Mutex), h, 2}
	}
	fmt.Fprintf(w, "%v\r\n", err)
}
