package registry

import (
	"net"
	"net/http"
	"testing"
)

// TestGuardRedirect lists where a registry may send a client.
func TestGuardRedirect(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		tls  bool
		from string
		to   string
		ok   bool
		auth bool // the credentials are sent
	}{
		{true, "https://r.example/v2/a", "https://r.example/v2/b", true, true},
		{true, "https://r.example/v2/a", "https://cdn.example/b", true, false},
		{true, "https://r.example/v2/a", "https://cdn.r.example/b", true, false},
		{true, "https://r.example/v2/a", "https://r.example:444/b", true, false},
		{true, "https://r.example/v2/a", "http://r.example/b", false, false},
		{false, "http://r.example/v2/a", "http://cdn.example/b", true, false},
		{false, "http://r.example/v2/a", "file:///etc/passwd", false, false},
	} {
		g := newGuard()
		g.allow("r.example", tc.tls)
		from, err := http.NewRequest(http.MethodGet, tc.from, nil)
		if err != nil {
			t.Fatal(err)
		}
		to, err := http.NewRequest(http.MethodGet, tc.to, nil)
		if err != nil {
			t.Fatal(err)
		}
		to.Header.Set("Authorization", "secret")
		if err := g.checkRedirect(to, []*http.Request{from}); (err == nil) != tc.ok {
			t.Errorf("%s to %s: %v", tc.from, tc.to, err)
		} else if auth := to.Header.Get("Authorization") != ""; err == nil && auth != tc.auth {
			t.Errorf("%s to %s: credentials are sent: %v", tc.from, tc.to, auth)
		}
	}
}

// TestGuardPeer lists the addresses that a registry may lead to.
func TestGuardPeer(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		own, host, ip string
		ok            bool
	}{
		{"r.example", "r.example", "169.254.1.1", true}, // the user chose it
		{"r.example", "cdn.example", "192.0.2.1", true},
		{"r.example", "cdn.example", "10.0.0.1", true}, // a registry of the same network
		{"r.example", "cdn.example", "127.0.0.1", false},
		{"r.example", "cdn.example", "::1", false},
		{"r.example", "cdn.example", "::ffff:127.0.0.1", false},
		{"r.example", "cdn.example", "169.254.169.254", false},
		{"r.example", "cdn.example", "fe80::1", false},
		{"r.example", "cdn.example", "fd00:ec2::254", false},
		{"127.0.0.1", "localhost", "127.0.0.1", true},
		{"127.0.0.1", "cdn.example", "169.254.169.254", false},
	} {
		g := newGuard()
		g.allow(tc.own, true)
		err := g.checkPeer(tc.host, &net.TCPAddr{IP: net.ParseIP(tc.ip), Port: 443})
		if (err == nil) != tc.ok {
			t.Errorf("%s leads to %s at %s: %v", tc.own, tc.host, tc.ip, err)
		}
	}
}

// TestGuardRealm lists the token servers that get credentials.
func TestGuardRealm(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		tls  bool
		url  string
		auth bool
		ok   bool
	}{
		{true, "https://auth.example/token", true, true},
		{true, "http://auth.example/token", false, true},
		{true, "http://auth.example/token", true, false},
		{false, "http://auth.example/token", true, true},
	} {
		g := newGuard()
		g.allow("r.example", tc.tls)
		req, err := http.NewRequest(http.MethodGet, tc.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.auth {
			req.SetBasicAuth("u", "p")
		}
		if err := g.checkRealm(req); (err == nil) != tc.ok {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}
