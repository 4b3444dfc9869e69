package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"strake/image/document"
)

// maxTagPages and maxTags bound what a registry may answer to the question for its tags.
const maxTagPages, maxTags = 1000, 100_000

// Login asks a registry whether it accepts credentials (distribution-spec, "Determining Support").
// server is host[:port], or a URL of it as old clients have for their default registry. A refusal
// is ErrUnauthenticated.
func (c *Client) Login(ctx context.Context, server string, auth Auth) error {
	host := server
	if _, rest, ok := strings.Cut(server, "://"); ok {
		host = rest
	}
	host, _, _ = strings.Cut(host, "/")
	if host == "index."+DefaultRegistry {
		host = DefaultRegistry
	}
	// The repository's name plays no part.
	named, err := reference.ParseNormalizedNamed(host + "/login")
	if err != nil || host == "" || reference.Domain(named) != host {
		return fmt.Errorf(
			"registry %q: want host or host:port: %w", server, errdefs.ErrInvalidArgument,
		)
	}
	r := c.connect(ctx, named, &auth)
	defer r.close()
	watched, await, stop := watch(ctx, c.cfg.StallTimeout)
	defer stop()
	after := await()
	resp, err := r.get(watched, "/", nil)
	if err = after(err); err == nil {
		resp.Body.Close()
		return nil
	}
	if status := statusOf(err); status == http.StatusUnauthorized ||
		status == http.StatusForbidden || errors.Is(err, docker.ErrInvalidAuthorization) {
		return fmt.Errorf(
			"login to %s: unauthorized: incorrect username or password: %w: %w", host, err,
			errdefs.ErrUnauthenticated,
		)
	}
	return fmt.Errorf("login to %s: %w", host, err)
}

// Tags lists the tags of a repository in its registry, in the registry's order (distribution-spec,
// "Listing Tags"). Errors are those of Pull.
func (c *Client) Tags(ctx context.Context, repository string, auth *Auth) ([]string, error) {
	named, err := reference.ParseNormalizedNamed(repository)
	if err != nil {
		return nil, fmt.Errorf("reference %q: %w: %w", repository, err, errdefs.ErrInvalidArgument)
	}
	named = reference.TrimNamed(named)
	ctx = docker.WithScope(ctx, "repository:"+reference.Path(named)+":pull")
	r := c.connect(ctx, named, auth)
	defer r.close()
	watched, await, stop := watch(ctx, c.cfg.StallTimeout)
	defer stop()
	var tags []string
	query := url.Values{"n": {"1000"}}
	for range maxTagPages {
		page, next, err := r.tags(watched, await, reference.Path(named), query)
		if err != nil {
			return nil, fmt.Errorf(
				"tags of %s: %w", reference.FamiliarName(named), explain(err, named),
			)
		}
		for _, t := range page {
			// What becomes a part of a reference has to be one.
			if _, err := reference.WithTag(named, t); err != nil {
				return nil, fmt.Errorf(
					"tags of %s: the registry sent %q: %w: %w", reference.FamiliarName(named), t,
					err, errdefs.ErrInvalidArgument,
				)
			}
		}
		tags = append(tags, page...)
		if next == nil {
			return tags, nil
		}
		if len(tags) > maxTags {
			break
		}
		query = next
	}
	return nil, fmt.Errorf(
		"tags of %s: more than %d: %w", reference.FamiliarName(named), maxTags,
		errdefs.ErrResourceExhausted,
	)
}

// tags gets one page.
func (r *connection) tags(
	ctx context.Context, await func() func(error) error, path string, query url.Values,
) (tags []string, next url.Values, err error) {
	after := await()
	resp, err := r.get(ctx, "/"+path+"/tags/list", query)
	if err = after(err); err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	var list struct {
		Tags []string `json:"tags"`
	}
	patient := patientReader{r: resp.Body, await: await, limit: r.limit}
	body, err := io.ReadAll(io.LimitReader(&patient, document.MaxBytes))
	if err != nil {
		return nil, nil, fmt.Errorf("list of tags: %w", err)
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, nil, fmt.Errorf("list of tags: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return list.Tags, nextPage(resp.Header.Get("Link")), nil
}

// nextPage takes the query of the next page out of a Link header (RFC 8288): of the address in it,
// only the query is followed.
func nextPage(link string) url.Values {
	target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
		return nil
	}
	u, err := url.Parse(target)
	if err != nil || u.Query().Get("last") == "" {
		return nil
	}
	return u.Query()
}

// get sends one request below /v2 to the first host of the registry that answers, with the
// authorization that it asks for. An answer that is not a success is an error with its status.
func (r *connection) get(
	ctx context.Context, path string, query url.Values,
) (*http.Response, error) {
	hosts, err := r.hosts(r.domain)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, h := range hosts {
		if !h.Capabilities.Has(docker.HostCapabilityResolve) {
			continue
		}
		resp, err := getFrom(ctx, &h, path, query)
		if err == nil || statusOf(err) != 0 || errors.Is(err, docker.ErrInvalidAuthorization) ||
			ctx.Err() != nil {
			return resp, err
		}
		failed = append(failed, err)
	}
	if len(failed) == 0 {
		return nil, fmt.Errorf(
			"no host of registry %s can be asked: %w", r.domain, errdefs.ErrNotFound,
		)
	}
	return nil, errors.Join(failed...)
}

func getFrom(
	ctx context.Context, h *docker.RegistryHost, path string, query url.Values,
) (*http.Response, error) {
	u := url.URL{
		Scheme: h.Scheme, Host: h.Host, Path: strings.TrimSuffix(h.Path, "/") + path,
		RawQuery: query.Encode(),
	}
	for attempt := 0; ; attempt++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		if h.Header != nil {
			req.Header = h.Header.Clone()
		}
		if h.Authorizer != nil {
			if err := h.Authorizer.Authorize(ctx, req); err != nil {
				return nil, err
			}
		}
		resp, err := h.Client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode/100 == 2 {
			return resp, nil
		}
		refusal := remoteerrors.NewUnexpectedStatusErr(resp)
		resp.Body.Close()
		if resp.StatusCode == http.StatusNotFound {
			return nil, errors.Join(refusal, errdefs.ErrNotFound)
		}
		if resp.StatusCode != http.StatusUnauthorized || attempt > 0 || h.Authorizer == nil {
			return nil, refusal
		}
		if err := h.Authorizer.AddResponses(ctx, []*http.Response{resp}); err != nil {
			return nil, err
		}
	}
}
