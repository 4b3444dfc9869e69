package registry

import (
	"errors"
	"net"
	"net/http"
	"sync"
)

// plainRetry asks an insecure registry again by plain HTTP if TLS does not work there, however it
// fails: that the connection is closed, that what is answered is no TLS, or that nothing is
// answered, as dockerd does it. It is not for a registry that has spoken TLS before. It may be used
// concurrently.
type plainRetry struct {
	super    http.RoundTripper
	insecure func(host string) bool

	mu    sync.Mutex
	plain map[string]bool // guarded by mu; whether a host, by name and port, speaks plain HTTP
}

// withPlainRetry makes a client use plainRetry for hosts that are insecure.
func withPlainRetry(c *http.Client, insecure func(host string) bool) {
	c.Transport = &plainRetry{
		super: c.Transport, insecure: insecure, plain: map[string]bool{},
	}
}

// RoundTrip implements http.RoundTripper.
func (p *plainRetry) RoundTrip(r *http.Request) (*http.Response, error) {
	host := r.URL.Host
	if r.URL.Scheme != "https" || !p.insecure(host) {
		return p.super.RoundTrip(r)
	}
	p.mu.Lock()
	plain, known := p.plain[host]
	p.mu.Unlock()
	if plain {
		return p.super.RoundTrip(plainRequest(r))
	}
	answer, err := p.super.RoundTrip(r)
	var dial *net.OpError
	switch {
	case err == nil:
		p.note(host, false)
		return answer, nil
	case known, r.Context().Err() != nil, errors.As(err, &dial) && dial.Op == "dial":
		return nil, err
	}
	again := plainRequest(r)
	if r.Body != nil {
		if r.GetBody == nil {
			return nil, err
		}
		body, berr := r.GetBody()
		if berr != nil {
			return nil, err
		}
		again.Body = body
	}
	answer, perr := p.super.RoundTrip(again)
	if perr != nil {
		return nil, err // what TLS says is what the user has to know
	}
	p.note(host, true)
	return answer, nil
}

// CloseIdleConnections is what http.Client.CloseIdleConnections looks for.
func (p *plainRetry) CloseIdleConnections() {
	if c, ok := p.super.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (p *plainRetry) note(host string, plain bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plain[host] = plain
}

// plainRequest is a request by plain HTTP instead of TLS.
func plainRequest(r *http.Request) *http.Request {
	u := *r.URL
	u.Scheme = "http"
	again := *r
	again.URL = &u
	return &again
}
