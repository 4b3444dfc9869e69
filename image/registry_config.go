package image

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
)

func (r Registries) validate() error {
	for _, m := range r.Mirrors {
		u, err := url.Parse(m)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("image store: Registries.Mirrors: %q is not an http or https URL: %w", m, errdefs.ErrInvalidArgument)
		}
	}
	for _, i := range r.Insecure {
		if i == "" || strings.Contains(i, "://") {
			return fmt.Errorf("image store: Registries.Insecure: %q, want host, host:port or CIDR: %w", i, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// insecure says whether a registry host may be spoken to without verified TLS. Loopback always may, as dockerd allows.
func (r Registries) insecure(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	if name == "localhost" || ip != nil && ip.IsLoopback() {
		return true
	}
	for _, i := range r.Insecure {
		if i == host || i == name {
			return true
		}
		if _, n, err := net.ParseCIDR(i); err == nil && ip != nil && n.Contains(ip) {
			return true
		}
	}
	return false
}
