package registry

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Config says how registries are reached.
type Config struct {
	// HostsDirs are directories in the layout of containerd's hosts configuration
	// (<dir>/<host>/hosts.toml, docs/hosts.md there) or of docker's certs.d (<dir>/<host>/*.crt).
	// The first one with an entry for a registry wins. They are read anew for every operation.
	HostsDirs []string
	// Insecure lists registries (host, host:port or CIDR) that are spoken to by TLS without
	// verification or by plain HTTP. 127.0.0.0/8, ::1 and localhost always are.
	Insecure []string
	// Mirrors are tried before docker.io's own registry (URLs), as dockerd's registry-mirrors.
	Mirrors []string
	// UserAgent is sent with every request; empty means "strake".
	UserAgent string
	// StallTimeout ends an attempt to get something from a registry after so long without a byte,
	// or with less than 1 KiB for each second of it. The attempt counts as one that the network
	// cut. Zero means 60 seconds.
	StallTimeout time.Duration
	// RetryWait is the pause before the second attempt to get something; each further one is twice
	// as long. Zero means half a second.
	RetryWait time.Duration
}

// Auth is what a client sends as X-Registry-Auth. At most one of the three ways is used, in this
// order.
type Auth struct {
	// RegistryToken is sent as it is (bearer).
	RegistryToken string
	// IdentityToken is an OAuth refresh token.
	IdentityToken string
	// Username and Password are for basic authentication or for the token server.
	Username, Password string
}

// Validate names the first field that cannot work.
func (c Config) Validate() error {
	for _, m := range c.Mirrors {
		u, err := url.Parse(m)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf(
				"image store: Registries.Mirrors: %q is not an http or https URL: %w", m,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	for _, i := range c.Insecure {
		if i == "" || strings.Contains(i, "://") {
			return fmt.Errorf(
				"image store: Registries.Insecure: %q, want host, host:port or CIDR: %w", i,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	if c.StallTimeout < 0 {
		return fmt.Errorf(
			"image store: Registries.StallTimeout is %s, want 0 (default) or more: %w",
			c.StallTimeout, errdefs.ErrInvalidArgument,
		)
	}
	if c.RetryWait < 0 {
		return fmt.Errorf(
			"image store: Registries.RetryWait is %s, want 0 (default) or more: %w", c.RetryWait,
			errdefs.ErrInvalidArgument,
		)
	}
	return nil
}

// insecure says whether a registry host may be spoken to without verified TLS. Loopback always may,
// as dockerd allows.
func (c Config) insecure(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	if name == "localhost" || ip != nil && ip.IsLoopback() {
		return true
	}
	for _, i := range c.Insecure {
		if i == host || i == name {
			return true
		}
		if _, n, err := net.ParseCIDR(i); err == nil && ip != nil && n.Contains(ip) {
			return true
		}
	}
	return false
}

// hostDir finds the configuration directory of a registry.
func (c Config) hostDir(host string) (string, error) {
	for _, d := range c.HostsDirs {
		for _, name := range []string{host, strings.Replace(host, ":", "_", 1) + "_", "_default"} {
			if strings.ContainsAny(name, "/\\") || name == ".." {
				continue
			}
			dir := filepath.Join(d, name)
			if st, err := os.Stat(dir); err == nil && st.IsDir() {
				return dir, nil
			}
		}
	}
	return "", errdefs.ErrNotFound
}
