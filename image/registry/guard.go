package registry

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"

	"strake/image/document"
)

const (
	// maxRedirects bounds how often one request is sent on.
	maxRedirects = 10
	// maxHeaderBytes bounds the head of an answer.
	maxHeaderBytes = 256 << 10
	// maxTokenBytes bounds what a token server answers, maxRefusalBytes what is read of an answer
	// that is no success.
	maxTokenBytes, maxRefusalBytes = 1 << 20, 64 << 10
)

// guard stands between a registry's client and the network. It bounds all answers but blobs, whose
// bound is their descriptor's size, and where answers may lead: to no other scheme, not from TLS to
// plain HTTP, with no credentials to another host, and, unless the registry is there itself, to no
// address of this host or of its link (where clouds have their metadata). Its methods may be called
// concurrently.
type guard struct {
	mu    sync.Mutex
	own   map[string]bool // guarded by mu; names of hosts that the user chose, without ports
	tls   bool            // guarded by mu; one of them has to be spoken to by TLS
	local bool            // guarded by mu; one of them is on this host

	transports []*http.Transport // guarded by mu
}

// newGuard returns a guard that knows no host yet.
func newGuard() *guard { return &guard{own: map[string]bool{}} }

// protect makes a client use the guard.
func (g *guard) protect(c *http.Client) {
	t, ok := c.Transport.(*http.Transport)
	if !ok {
		return
	}
	t = t.Clone()
	t.MaxResponseHeaderBytes = maxHeaderBytes
	t.DialContext = g.dial(t.DialContext)
	if proxy := t.Proxy; proxy != nil {
		t.Proxy = func(req *http.Request) (u *url.URL, err error) {
			if u, err = proxy(req); u != nil {
				g.allow(u.Hostname(), false)
			}
			return u, err
		}
	}
	c.Transport = &guarded{g, t}
	g.mu.Lock()
	g.transports = append(g.transports, t)
	g.mu.Unlock()
	c.CheckRedirect = g.checkRedirect
}

// close gives idle connections back.
func (g *guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.transports {
		t.CloseIdleConnections()
	}
}

// allow notes a host that the user chose.
func (g *guard) allow(host string, tls bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.own[host] = true
	g.tls = g.tls || tls
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		g.local = true
	}
}

// checkRedirect is http.Client.CheckRedirect.
func (g *guard) checkRedirect(req *http.Request, via []*http.Request) error {
	g.mu.Lock()
	tls := g.tls
	g.mu.Unlock()
	switch {
	case len(via) >= maxRedirects:
		return fmt.Errorf("more than %d redirects: %w", maxRedirects, errdefs.ErrInvalidArgument)
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf(
			"redirect to scheme %q: %w", req.URL.Scheme, errdefs.ErrInvalidArgument,
		)
	case tls && req.URL.Scheme == "http":
		return fmt.Errorf("redirect to plain HTTP: %w", errdefs.ErrInvalidArgument)
	}
	if req.URL.Host != via[0].URL.Host {
		// net/http keeps them for other ports and for subdomains.
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return nil
}

// dialFunc is the type of http.Transport.DialContext.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dial wraps http.Transport.DialContext. What the registry leads to is looked at when its name has
// become an address, before a byte is sent.
func (g *guard) dial(next dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		if ip := net.ParseIP(host); ip != nil {
			if err := g.checkPeer(host, &net.TCPAddr{IP: ip}); err != nil {
				return nil, err
			}
		}
		c, err := next(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if err := g.checkPeer(host, c.RemoteAddr()); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
}

// metadata6 is where one cloud has its metadata in IPv6.
var metadata6 = netip.MustParseAddr("fd00:ec2::254")

// checkPeer refuses addresses that a registry must not lead to.
func (g *guard) checkPeer(host string, peer net.Addr) error {
	a, err := netip.ParseAddrPort(peer.String())
	if err != nil {
		return err
	}
	ip := a.Addr().Unmap()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.own[host] {
		g.local = g.local || ip.IsLoopback()
		return nil
	}
	if ip.IsLoopback() && g.local || !ip.IsLoopback() && !ip.IsLinkLocalUnicast() &&
		ip != metadata6 {
		return nil
	}
	return fmt.Errorf(
		"the registry leads to %s, an address of this host or its link: %w", ip,
		errdefs.ErrInvalidArgument,
	)
}

// guarded is a guard's http.RoundTripper.
type guarded struct {
	g    *guard
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	first := req // of a chain of redirects
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	kind, limit := answerOf(first.URL.Path)
	if kind == "token" {
		if err := t.g.checkRealm(req); err != nil {
			return nil, err
		}
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		resp.Body = &limitedBody{ReadCloser: resp.Body, left: maxRefusalBytes, soft: true}
		return resp, nil
	}
	if kind == "manifest" && resp.ContentLength > docker.MaxManifestSize {
		resp.Body.Close()
		return nil, fmt.Errorf(
			"manifest of %d bytes, at most %d are taken: %w", resp.ContentLength,
			docker.MaxManifestSize, errdefs.ErrInvalidArgument,
		)
	}
	if limit > 0 {
		resp.Body = &limitedBody{ReadCloser: resp.Body, left: limit, kind: kind, limit: limit}
	}
	return resp, nil
}

// answerOf says what a path asks for, and how many bytes the answer may have; 0 for a blob.
func answerOf(path string) (kind string, limit int64) {
	switch {
	case strings.Contains(path, "/blobs/"):
		return "blob", 0
	case strings.Contains(path, "/manifests/"):
		return "manifest", docker.MaxManifestSize
	case strings.HasSuffix(path, "/tags/list"):
		return "list of tags", document.MaxBytes
	}
	return "token", maxTokenBytes
}

// checkRealm refuses to send credentials that a registry got by TLS to a token server by plain
// HTTP.
func (g *guard) checkRealm(req *http.Request) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if req.URL.Scheme == "http" && g.tls && !g.own[req.URL.Hostname()] &&
		(req.Method == http.MethodPost || req.Header.Get("Authorization") != "") {
		return fmt.Errorf(
			"the registry wants credentials sent by plain HTTP to %s: %w", req.URL.Host,
			errdefs.ErrInvalidArgument,
		)
	}
	return nil
}

// limitedBody ends an answer that is too long: with an error, or, if it is only an explanation,
// with its end.
type limitedBody struct {
	io.ReadCloser
	left  int64
	soft  bool
	kind  string
	limit int64
}

func (l *limitedBody) Read(p []byte) (int, error) {
	if l.left == 0 && l.soft {
		return 0, io.EOF
	}
	// One byte more than there may be tells whether there are too many.
	n, err := l.ReadCloser.Read(p[:min(int64(len(p)), l.left+1)])
	if int64(n) > l.left {
		n = int(l.left)
		if !l.soft {
			err = fmt.Errorf(
				"%s of more than %d bytes: %w", l.kind, l.limit, errdefs.ErrInvalidArgument,
			)
		}
	}
	l.left -= int64(n)
	return n, err
}
