package userland

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// wget fetches http URLs (wget(1): -O, -q, -S, -T, --header, --post-data, --spider). TLS is not
// spoken: the image carries no certificates to check.
func wget(ctx context.Context, c *Call) int {
	o, urls, status, ok := c.options(
		"O:qST:U:c\x01:\x02\x03:",
		"output-document=O quiet=q server-response=S timeout=T user-agent=U header=\x01 "+
			"spider=\x02 post-data=\x03",
	)
	if !ok {
		return status
	}
	if o.has('c') {
		return c.usagef("unknown option %q", "-c")
	}
	if len(urls) == 0 {
		return c.usagef("no URL given")
	}
	g := &getter{c: c, o: o, limit: 900 * time.Second}
	if o.has('T') {
		d, err := parseSeconds(o.value('T', ""))
		if err != nil || d == 0 {
			return c.usagef("option -T: %q is no time above 0", o.value('T', ""))
		}
		g.limit = d
	}
	for _, h := range o.values('\x01') {
		if n, _, ok := strings.Cut(h, ":"); !ok || n == "" || strings.ContainsAny(h, "\r\n") {
			return c.usagef("option --header: %q is not NAME: VALUE", h)
		}
	}
	for _, u := range urls {
		if err := g.fetch(ctx, u); err != nil {
			status = c.errorf("%s: %v", u, err)
		}
	}
	return status
}

type getter struct {
	c     *Call
	o     options
	limit time.Duration // without any byte
}

func parseURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("malformed URL")
	}
	switch {
	case u.Scheme == "https":
		return nil, errors.New("https is not supported (the image carries no certificates)")
	case u.Scheme != "http":
		return nil, fmt.Errorf("scheme %q is not supported (want http)", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("the URL has no host")
	}
	return u, nil
}

func (g *getter) fetch(ctx context.Context, address string) error {
	u, err := parseURL(address)
	if err != nil {
		return err
	}
	method := "GET"
	switch {
	case g.o.has('\x02'):
		method = "HEAD"
	case g.o.has('\x03'):
		method = "POST"
	}
	first := u
	for range 10 {
		res, conn, err := g.ask(ctx, u, method)
		if err != nil {
			return err
		}
		if to := res.header["location"]; to != "" &&
			slices.Contains([]int{301, 302, 303, 307, 308}, res.status) {
			conn.Close()
			ref, err := url.Parse(to)
			if err != nil {
				return fmt.Errorf("redirected to %q, which is no URL", to)
			}
			if u, err = parseURL(u.ResolveReference(ref).String()); err != nil {
				return fmt.Errorf("redirected to %q: %w", to, err)
			}
			if method == "POST" && res.status <= 303 {
				method = "GET"
			}
			continue
		}
		err = g.deliver(first, res)
		return errors.Join(err, conn.Close())
	}
	return errors.New("more than 10 redirections")
}

// timedConn fails when no byte moves for limit.
type timedConn struct {
	net.Conn
	limit time.Duration
	stop  func() bool
}

func (t timedConn) Read(p []byte) (int, error) {
	if err := t.SetReadDeadline(time.Now().Add(t.limit)); err != nil {
		return 0, err
	}
	return t.Conn.Read(p)
}

func (t timedConn) Close() error {
	t.stop()
	return t.Conn.Close()
}

func (g *getter) ask(ctx context.Context, u *url.URL, method string) (*response, net.Conn, error) {
	port := u.Port()
	if port == "" {
		port = "80"
	}
	d := net.Dialer{Timeout: g.limit}
	raw, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, nil, netReason(err)
	}
	conn := timedConn{raw, g.limit, context.AfterFunc(ctx, func() { raw.Close() })}
	var req strings.Builder
	fmt.Fprintf(
		&req, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", method, u.RequestURI(), u.Host,
	)
	agent := g.o.value('U', "Wget")
	custom := ""
	for _, h := range g.o.values('\x01') {
		n, _, _ := strings.Cut(h, ":")
		custom += " " + strings.ToLower(strings.TrimSpace(n)) + " "
		req.WriteString(h + "\r\n")
	}
	if !strings.Contains(custom, " user-agent ") {
		fmt.Fprintf(&req, "User-Agent: %s\r\n", agent)
	}
	if method == "POST" {
		body := g.o.value('\x03', "")
		if !strings.Contains(custom, " content-type ") {
			req.WriteString("Content-Type: application/x-www-form-urlencoded\r\n")
		}
		fmt.Fprintf(&req, "Content-Length: %d\r\n\r\n%s", len(body), body)
	} else {
		req.WriteString("\r\n")
	}
	if _, err := io.WriteString(conn, req.String()); err != nil {
		conn.Close()
		return nil, nil, netReason(err)
	}
	res, err := readResponse(bufio.NewReaderSize(conn, 32<<10), method)
	if err != nil {
		conn.Close()
		return nil, nil, netReason(err)
	}
	if g.o.has('S') {
		fmt.Fprintf(g.c.Stderr, "  HTTP/1.1 %d %s\n", res.status, res.reason)
		for k, v := range res.header {
			fmt.Fprintf(g.c.Stderr, "  %s: %s\n", k, v)
		}
	}
	return res, conn, nil
}

func (g *getter) deliver(u *url.URL, res *response) (err error) {
	if res.status < 200 || res.status > 299 {
		return fmt.Errorf("server answered %d %s", res.status, res.reason)
	}
	if g.o.has('\x02') {
		return nil
	}
	name := g.o.value('O', "")
	if !g.o.has('O') {
		if name = path.Base(u.Path); name == "" || name == "/" || name == "." || name == ".." {
			name = "index.html"
		}
	}
	if name == "-" {
		_, err := io.Copy(g.c.Stdout, res.body)
		return netReason(err)
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if !g.o.has('O') {
		// a name chosen by the server overwrites nothing
		flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(g.c.path(name), flags, 0o666)
	if err != nil {
		return fmt.Errorf("%s: %s", name, reason(err))
	}
	n, err := io.Copy(f, res.body)
	if err = errors.Join(netReason(err), f.Close()); err != nil {
		return err
	}
	if !g.o.has('q') {
		fmt.Fprintf(g.c.Stderr, "%s: %d bytes saved\n", name, n)
	}
	return nil
}

// netReason drops what package net repeats before the reason.
func netReason(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		var dns *net.DNSError
		if errors.As(err, &dns) {
			return fmt.Errorf("%s: %s", dns.Name, dns.Err)
		}
		if op.Addr != nil {
			return fmt.Errorf("%s: %s", op.Addr, reason(op.Err))
		}
		return errors.New(reason(op.Err))
	}
	return err
}
