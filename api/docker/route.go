package docker

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
)

// namedRoute is an endpoint below /images/NAME, where NAME may be registry/path:tag@digest. A
// pattern of http.ServeMux cannot match a name with slashes in front of a suffix.
type namedRoute struct {
	method, suffix string
	handle         func(w http.ResponseWriter, r *request, name string) error
}

// imageRoute finds the endpoint of a path below /images.
func (s *server) imageRoute(method, path string) (handler, bool) {
	rest, ok := strings.CutPrefix(path, "/images/")
	if !ok || method == http.MethodGet && strings.HasSuffix(rest, "/attestations") {
		return nil, false // attestations are of the API but not served
	}
	for _, route := range s.named {
		name, ok := strings.CutSuffix(rest, route.suffix)
		if route.method != method || !ok || name == "" {
			continue
		}
		return func(w http.ResponseWriter, r *request) error {
			return route.handle(w, r, name)
		}, true
	}
	return nil, false
}

// notServed are the first parts of paths that belong to the API but are not served.
var notServed = map[string]bool{
	"containers": true, "exec": true, "images": true, "commit": true, "build": true,
	"session": true, "grpc": true, "networks": true, "volumes": true,
	"distribution": true, "system": true, "plugins": true, "swarm": true, "services": true,
	"nodes": true, "tasks": true, "secrets": true,
	"configs": true, "debug": true,
}

// swarm are the parts of notServed that dockerd, without a swarm, answers with 503.
var swarm = map[string]bool{
	"swarm": true, "services": true, "nodes": true, "tasks": true, "secrets": true, "configs": true,
}

// verbs are what may follow the name of an object in a path.
var verbs = map[string]bool{
	"json": true, "top": true, "logs": true, "changes": true, "stats": true, "start": true,
	"stop": true, "restart": true, "kill": true,
	"pause": true, "unpause": true, "wait": true, "resize": true, "attach": true, "rename": true,
	"update": true, "exec": true, "export": true,
	"archive": true, "connect": true, "disconnect": true,
}

// slashedName recognises the path of a container, network or volume whose name has a slash. No such
// object exists, but clients that look an image name up in every kind of object (docker inspect)
// send these paths.
func slashedName(path string) (kind, name string, ok bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	kind = map[string]string{
		"containers": "container", "networks": "network", "volumes": "volume",
	}[parts[0]]
	rest := parts[1:]
	if len(rest) > 1 && verbs[rest[len(rest)-1]] {
		rest = rest[:len(rest)-1]
	}
	return kind, strings.Join(rest, "/"), kind != "" && len(rest) > 1
}

// unknown says why no route matches: 501 for endpoints of the API, 404 for everything else.
func unknown(method, path string) error {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	kind, name, slashed := slashedName(path)
	switch {
	case path == "/swarm/init", path == "/swarm/join":
		return plainError{
			errdefs.ErrNotImplemented, "strake has no swarm mode: this node cannot become part of one",
		}
	case path == "/swarm/leave":
		return plainError{errdefs.ErrUnavailable, "This node is not part of a swarm"}
	case swarm[first]:
		return plainError{
			errdefs.ErrUnavailable,
			`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" ` +
				"to connect this node to swarm and try again.",
		}
	case first == "plugins" && method == http.MethodGet && strings.HasSuffix(path, "/json"):
		// There are no plugins; docker inspect asks for them last.
		name := strings.TrimSuffix(strings.TrimPrefix(path, "/plugins/"), "/json")
		return plainError{errdefs.ErrNotFound, fmt.Sprintf("plugin %q not found", name)}
	case slashed:
		return plainError{errdefs.ErrNotFound, fmt.Sprintf("No such %s: %s", kind, name)}
	case notServed[first]:
		return plainError{
			errdefs.ErrNotImplemented, fmt.Sprintf("strake does not serve %s %s", method, path),
		}
	}
	return plainError{errdefs.ErrNotFound, "page not found"}
}
