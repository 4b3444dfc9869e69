package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
)

// connection is the way to one repository's registry for one operation.
type connection struct {
	resolver remotes.Resolver
	hosts    docker.RegistryHosts
	domain   string
	guard    *guard
	// limit and wait are Config.StallTimeout and Config.RetryWait.
	limit, wait time.Duration
}

// close gives idle connections back.
func (r *connection) close() { r.guard.close() }

// DefaultRegistry is where names without a host belong, as docker's clients have it.
var DefaultRegistry = func() string {
	named, err := reference.ParseNormalizedNamed("a")
	if err != nil {
		panic(err) // a constant of the library
	}
	return reference.Domain(named)
}()

func (c *Client) connect(ctx context.Context, named reference.Named, auth *Auth) *connection {
	cfg, domain := c.cfg, reference.Domain(named)
	r := &connection{
		domain: domain, guard: newGuard(), limit: cfg.StallTimeout, wait: cfg.RetryWait,
	}
	own, err := docker.DefaultHost(domain) // the name that it answers under
	if err != nil {
		own = domain
	}
	o := config.HostOptions{
		HostDir: cfg.hostDir,
		UpdateClient: func(c *http.Client) error {
			r.guard.protect(c)
			return nil
		},
		// Mirrors are other parties: they never see the registry's credentials.
		Credentials: func(host string) (string, string, error) {
			switch {
			case auth == nil || host != own && host != domain:
				return "", "", nil
			case auth.IdentityToken != "":
				return "", auth.IdentityToken, nil
			}
			return auth.Username, auth.Password, nil
		},
	}
	if cfg.insecure(domain) {
		// Prefer TLS, fall back to plain HTTP, as dockerd does for these.
		o.DefaultTLS, o.DefaultScheme = &tls.Config{
			InsecureSkipVerify: true, MinVersion: tls.VersionTLS12,
		}, "http"
	}
	configured := config.ConfigureHosts(ctx, o)
	hosts := func(host string) ([]docker.RegistryHost, error) {
		list, err := configured(host)
		if err != nil {
			return nil, fmt.Errorf("configuration of registry %q: %w", host, err)
		}
		for _, h := range list {
			if h.Scheme == "https" && cfg.insecure(h.Host) {
				withPlainRetry(h.Client, cfg.insecure)
			}
		}
		if auth != nil && auth.RegistryToken != "" {
			for i := range list {
				if list[i].Host == own || list[i].Host == domain {
					list[i].Authorizer = nil
					h := list[i].Header.Clone()
					if h == nil {
						h = http.Header{}
					}
					h.Set("Authorization", "Bearer "+auth.RegistryToken)
					list[i].Header = h
				}
			}
		}
		if host == DefaultRegistry {
			list = append(cfg.mirrors(r.guard), list...)
		}
		for _, h := range list {
			u := url.URL{Host: h.Host}
			r.guard.allow(u.Hostname(), h.Scheme == "https" && !cfg.insecure(h.Host))
		}
		return list, nil
	}
	r.hosts = hosts
	r.resolver = docker.NewResolver(
		docker.ResolverOptions{Hosts: hosts, Headers: http.Header{"User-Agent": {cfg.UserAgent}}},
	)
	return r
}

// mirrors are hosts that can resolve and pull, never take a push.
func (c Config) mirrors(g *guard) []docker.RegistryHost {
	var out []docker.RegistryHost
	for _, m := range c.Mirrors {
		u, err := url.Parse(m)
		if err != nil {
			continue // Validate has refused it
		}
		client := &http.Client{
			Transport: docker.DefaultHTTPTransport(
				&tls.Config{InsecureSkipVerify: c.insecure(u.Host), MinVersion: tls.VersionTLS12},
			),
		}
		g.protect(client)
		out = append(out, docker.RegistryHost{
			Client: client, Authorizer: docker.NewDockerAuthorizer(docker.WithAuthClient(client)),
			Host: u.Host, Scheme: u.Scheme,
			Path:         strings.TrimSuffix(u.Path, "/") + "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		})
	}
	return out
}

// explain says what a registry's refusal means, in dockerd's words.
func explain(err error, named reference.Named) error {
	if errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) {
		return fmt.Errorf(
			"manifest for %s not found: manifest unknown: %w", reference.FamiliarString(named),
			errdefs.ErrNotFound,
		)
	}
	return explainBlob(err, named, "")
}

// explainBlob is explain for something that the image's manifest or index names.
func explainBlob(err error, named reference.Named, d digest.Digest) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, docker.ErrInvalidAuthorization), statusOf(err) == http.StatusUnauthorized,
		statusOf(err) == http.StatusForbidden:
		return fmt.Errorf("access denied for %s, repository does not exist or may require "+
			"authentication: %w: %w",
			reference.FamiliarName(named), err, errdefs.ErrPermissionDenied)
	case errdefs.IsFailedPrecondition(err) && d != "":
		return fmt.Errorf(
			"the registry sends more bytes than belong to %s: %w", d, errdefs.ErrInvalidArgument,
		)
	case statusOf(err) == http.StatusRequestedRangeNotSatisfiable && d != "":
		return fmt.Errorf(
			"the registry has fewer bytes of %s than its descriptor says: %w", d,
			errdefs.ErrInvalidArgument,
		)
	case errdefs.IsNotFound(err) && d != "":
		return fmt.Errorf(
			"the registry does not have %s, which %s consists of: %w", d,
			reference.FamiliarString(named), errdefs.ErrNotFound,
		)
	}
	return err
}

// statusOf is the HTTP status a registry refused with, 0 for other errors.
func statusOf(err error) int {
	var s remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &s) {
		return s.StatusCode
	}
	return 0
}
