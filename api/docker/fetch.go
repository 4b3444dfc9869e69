package docker

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// answerPatience is how long a server may take until the head of its answer is here.
const answerPatience = time.Minute

// fetch opens what is at an address, which means HTTP if it names no scheme, as dockerd does it
// for imports. It ends with the request. The caller closes it.
func fetch(r *request, address string) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err == nil && u.Scheme == "" || err != nil && !strings.Contains(address, "://") {
		u, err = url.Parse("http://" + address)
	}
	if err != nil {
		return nil, invalid("fromSrc: %v", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, invalid("fromSrc %q: want - or the URL of an archive", address)
	}
	ask, err := http.NewRequestWithContext(r.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, invalid("fromSrc: %v", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = answerPatience
	transport.DisableKeepAlives = true // one request is all
	answer, err := (&http.Client{Transport: transport}).Do(ask)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode < 400 {
		return answer.Body, nil
	}
	answer.Body.Close()
	class := error(errdefs.ErrUnknown)
	switch answer.StatusCode {
	case http.StatusNotFound:
		class = errdefs.ErrNotFound
	case http.StatusBadRequest:
		class = errdefs.ErrInvalidArgument
	case http.StatusUnauthorized:
		class = errdefs.ErrUnauthenticated
	case http.StatusForbidden:
		class = errdefs.ErrPermissionDenied
	}
	return nil, plainError{
		class, fmt.Sprintf("failed to GET %s with status %s", u.Redacted(), answer.Status),
	}
}
