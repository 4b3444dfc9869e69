package userland

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	gosync "sync"
	"time"
)

// httpd serves the files below a directory over HTTP/1.1 (busybox httpd: -p [ADDRESS:]PORT, -h
// DIRECTORY, -f, -v). It stays in the foreground with and without -f, as the main process of a
// container has to. GET and HEAD; nothing outside the directory is served, by links neither.
func httpd(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options("p:h:fv", "port=p home=h foreground=f verbose=v")
	if !ok {
		return status
	}
	if len(names) > 0 {
		return c.usagef("extra operand %q", names[0])
	}
	addr := o.value('p', "80")
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	root, err := os.OpenRoot(c.path(o.value('h', ".")))
	if err != nil {
		return c.fault(o.value('h', "."), err)
	}
	defer root.Close()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return c.errorf("%s: %v", addr, netReason(err))
	}
	s := &fileServer{root: root, idle: time.Minute}
	if o.has('v') {
		s.log = func(line string) { c.errorf("%s", line) }
	}
	if err := s.serve(ctx, l); err != nil {
		return c.errorf("%v", netReason(err))
	}
	return exitOK
}

// maxClients bounds the connections served at a time.
const maxClients = 512

type fileServer struct {
	root *os.Root
	idle time.Duration
	log  func(line string) // nil: silent

	logMu gosync.Mutex // one line at a time
}

// serve answers until ctx ends, then closes all connections and waits for their goroutines.
func (s *fileServer) serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	slots := make(chan struct{}, maxClients)
	var wg gosync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return err
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s.connection(conn)
		})
	}
}

func (s *fileServer) connection(conn net.Conn) {
	r, w := bufio.NewReader(conn), bufio.NewWriterSize(conn, 32<<10)
	for {
		conn.SetDeadline(time.Now().Add(s.idle))
		start, h, err := readHead(r)
		if err != nil {
			if err != io.EOF {
				s.fail(w, "", 400, "Bad Request", false)
				w.Flush()
			}
			return
		}
		method, rest, _ := strings.Cut(start, " ")
		target, proto, _ := strings.Cut(rest, " ")
		keep := proto == "HTTP/1.1" && !strings.EqualFold(h["connection"], "close") &&
			h["content-length"] == "" && h["transfer-encoding"] == ""
		status := s.answer(w, method, target, proto, h, keep)
		if s.log != nil {
			s.logMu.Lock()
			s.log(fmt.Sprintf("%s %q %d", conn.RemoteAddr(), start, status))
			s.logMu.Unlock()
		}
		if w.Flush() != nil || !keep || status == 400 {
			return
		}
	}
}

// fail writes an answer without content.
func (s *fileServer) fail(
	w *bufio.Writer, method string, status int, text string, keep bool, extra ...string,
) int {
	body := fmt.Sprintf("%d %s\n", status, text)
	writeHead(w, status, text, int64(len(body)), "text/plain; charset=utf-8", keep, extra...)
	if method != "HEAD" {
		w.WriteString(body)
	}
	return status
}

func writeHead(
	w *bufio.Writer, status int, text string, size int64, kind string, keep bool, extra ...string,
) {
	fmt.Fprintf(
		w,
		"HTTP/1.1 %d %s\r\nContent-Length: %d\r\nContent-Type: %s\r\n"+
			"X-Content-Type-Options: nosniff\r\n",
		status, text, size, kind,
	)
	if !keep {
		w.WriteString("Connection: close\r\n")
	}
	for _, e := range extra {
		w.WriteString(e + "\r\n")
	}
	w.WriteString("\r\n")
}

func (s *fileServer) answer(
	w *bufio.Writer, method, target, proto string, h httpHeader, keep bool,
) int {
	if !strings.HasPrefix(proto, "HTTP/1.") {
		return s.fail(w, method, 400, "Bad Request", false)
	}
	if method != "GET" && method != "HEAD" {
		return s.fail(w, method, 405, "Method Not Allowed", keep, "Allow: GET, HEAD")
	}
	u, err := url.ParseRequestURI(target)
	if err != nil || !strings.HasPrefix(u.Path, "/") {
		return s.fail(w, method, 400, "Bad Request", false)
	}
	name := strings.TrimPrefix(path.Clean(u.Path), "/")
	if name == "" {
		name = "."
	}
	f, err := s.root.Open(name)
	if err != nil {
		return s.fileFault(w, method, err, keep)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return s.fileFault(w, method, err, keep)
	}
	if st.IsDir() {
		if !strings.HasSuffix(u.Path, "/") {
			return s.fail(
				w, method, 301, "Moved Permanently", keep,
				"Location: "+(&url.URL{Path: u.Path + "/"}).EscapedPath(),
			)
		}
		index, err := s.root.Open(path.Join(name, "index.html"))
		if err != nil {
			return s.listing(w, method, f, u.Path, keep)
		}
		defer index.Close()
		f = index
		if st, err = f.Stat(); err != nil {
			return s.fileFault(w, method, err, keep)
		}
	}
	if !st.Mode().IsRegular() {
		return s.fail(w, method, 403, "Forbidden", keep)
	}
	modified := st.ModTime().UTC().Format("Mon, 02 Jan 2006 15:04:05") + " GMT"
	if h["if-modified-since"] == modified {
		w.WriteString("HTTP/1.1 304 Not Modified\r\n")
		if !keep {
			w.WriteString("Connection: close\r\n")
		}
		w.WriteString("\r\n")
		return 304
	}
	writeHead(w, 200, "OK", st.Size(), contentType(f.Name()), keep, "Last-Modified: "+modified)
	if method == "GET" {
		// A file that shrinks meanwhile leaves the answer short: the connection has to end, or the
		// client would wait.
		if n, err := io.Copy(w, io.LimitReader(f, st.Size())); err != nil || n < st.Size() {
			return 400
		}
	}
	return 200
}

func (s *fileServer) fileFault(w *bufio.Writer, method string, err error, keep bool) int {
	if errors.Is(err, fs.ErrPermission) {
		return s.fail(w, method, 403, "Forbidden", keep)
	}
	return s.fail(w, method, 404, "Not Found", keep)
}

func (s *fileServer) listing(w *bufio.Writer, method string, d *os.File, at string, keep bool) int {
	list, err := d.ReadDir(-1)
	if err != nil {
		return s.fileFault(w, method, err, keep)
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var b strings.Builder
	fmt.Fprintf(
		&b, "<!doctype html><meta charset=utf-8><title>%[1]s</title><h1>%[1]s</h1><ul>\n",
		html.EscapeString(at),
	)
	for _, e := range list {
		n := e.Name()
		if e.IsDir() {
			n += "/"
		}
		fmt.Fprintf(
			&b, "<li><a href=\"%s\">%s</a>\n", "./"+(&url.URL{Path: n}).EscapedPath(),
			html.EscapeString(n),
		)
	}
	b.WriteString("</ul>\n")
	writeHead(w, 200, "OK", int64(b.Len()), "text/html; charset=utf-8", keep)
	if method == "GET" {
		w.WriteString(b.String())
	}
	return 200
}

// contentType goes by the name alone: a short list for pages, not package mime, which reads the
// host's files.
func contentType(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".html", ".htm":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".json":
		return "application/json"
	case ".txt", ".md", ".log":
		return "text/plain; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".png":
		return "image/png"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".gif":
		return "image/gif"
	case ".webp":
		return "image/webp"
	case ".ico":
		return "image/x-icon"
	case ".wasm":
		return "application/wasm"
	case ".xml":
		return "application/xml"
	case ".pdf":
		return "application/pdf"
	}
	return "application/octet-stream"
}
