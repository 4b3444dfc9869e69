package docker

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
)

type versionKey struct{}

func contextWith(ctx context.Context, v version) context.Context {
	return context.WithValue(ctx, versionKey{}, v)
}

func versionOf(ctx context.Context) version {
	v, _ := ctx.Value(versionKey{}).(version)
	return v
}

// register lists the endpoints that are served. Those of images, whose names contain slashes, are
// in imageRoute.
func (s *server) register() {
	for pattern, h := range map[string]handler{
		"GET /_ping":     s.ping,
		"HEAD /_ping":    s.ping,
		"GET /version":   s.getVersion,
		"GET /info":      s.info,
		"GET /events":    s.events,
		"POST /auth":     s.auth,
		"GET /system/df": s.diskUsage,

		"GET /containers/json":            s.listContainers,
		"POST /containers/create":         s.createContainer,
		"POST /containers/prune":          s.pruneContainers,
		"GET /containers/{name}/json":     s.inspectContainer,
		"GET /containers/{name}/top":      s.top,
		"GET /containers/{name}/logs":     s.logs,
		"GET /containers/{name}/changes":  s.changes,
		"GET /containers/{name}/stats":    s.stats,
		"POST /containers/{name}/start":   s.startContainer,
		"POST /containers/{name}/stop":    s.stopContainer,
		"POST /containers/{name}/restart": s.restartContainer,
		"POST /containers/{name}/kill":    s.killContainer,
		"POST /containers/{name}/pause":   s.pauseContainer,
		"POST /containers/{name}/unpause": s.unpauseContainer,
		"POST /containers/{name}/wait":    s.waitContainer,
		"POST /containers/{name}/resize":  s.resizeContainer,
		"POST /containers/{name}/attach":  s.attachContainer,
		"POST /containers/{name}/rename":  s.renameContainer,
		"POST /containers/{name}/update":  s.updateContainer,
		"POST /containers/{name}/exec":    s.createExec,
		"DELETE /containers/{name}":       s.removeContainer,
		"GET /exec/{id}/json":             s.inspectExec,
		"POST /exec/{id}/start":           s.startExec,
		"POST /exec/{id}/resize":          s.resizeExec,

		"GET /images/json":    s.listImages,
		"GET /images/get":     s.saveImages,
		"POST /images/load":   s.loadImages,
		"POST /images/create": s.createImage,
		"POST /images/prune":  s.pruneImages,
		"POST /commit":        s.commit,

		"GET /networks":           s.listNetworks,
		"GET /networks/{name}":    s.inspectNetwork,
		"POST /networks/create":   s.createNetwork,
		"POST /networks/prune":    s.pruneNetworks,
		"DELETE /networks/{name}": s.removeNetwork,

		"POST /networks/{name}/connect":    s.connectNetwork,
		"POST /networks/{name}/disconnect": s.disconnectNetwork,

		"GET /volumes":           s.listVolumes,
		"GET /volumes/{name}":    s.inspectVolume,
		"POST /volumes/create":   s.createVolume,
		"POST /volumes/prune":    s.pruneVolumes,
		"DELETE /volumes/{name}": s.removeVolume,
	} {
		s.routes.HandleFunc(pattern, s.handle(h))
	}
}

// imageRoute finds the endpoints below /images/NAME: NAME may be registry/path:tag@digest.
func (s *server) imageRoute(method, path string) (handler, bool) {
	rest, ok := strings.CutPrefix(path, "/images/")
	if !ok || rest == "" {
		return nil, false
	}
	named := func(suffix string, h func(http.ResponseWriter, *request, string) error) (handler, bool) {
		name, ok := strings.CutSuffix(rest, suffix)
		if !ok || name == "" {
			return nil, false
		}
		return func(w http.ResponseWriter, r *request) error { return h(w, r, name) }, true
	}
	switch method {
	case http.MethodGet:
		if h, ok := named("/json", s.inspectImage); ok {
			return h, true
		}
		if h, ok := named("/history", s.history); ok {
			return h, true
		}
		if strings.HasSuffix(rest, "/attestations") {
			return nil, false // of the API, but not served; no name of an image to save
		}
		return named("/get", s.saveImage)
	case http.MethodPost:
		if h, ok := named("/push", s.pushImage); ok {
			return h, true
		}
		return named("/tag", s.tagImage)
	case http.MethodDelete:
		return named("", s.removeImage)
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

// swarm are those which a node outside of a swarm answers in a way that clients know.
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

// slashedName recognises paths to an object whose name has a slash in it, which no container,
// network or volume has. Clients that look a name up among one kind after the other ask for them.
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

// unknown answers what no route matches: 501 for endpoints of the API, 404 for everything else.
func (s *server) unknown(w http.ResponseWriter, r *http.Request) {
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	kind, name, slashed := slashedName(r.URL.Path)
	switch {
	case swarm[first]:
		s.fail(
			w,
			plainError{
				errdefs.ErrUnavailable,
				`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`,
			},
		)
	case first == "plugins" && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/json"):
		// There are none; inspect looks here last.
		name := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/plugins/"), "/json")
		s.fail(w, plainError{errdefs.ErrNotFound, fmt.Sprintf("plugin %q not found", name)})
	case slashed:
		s.fail(w, plainError{errdefs.ErrNotFound, fmt.Sprintf("No such %s: %s", kind, name)})
	case notServed[first]:
		s.fail(
			w,
			plainError{
				errdefs.ErrNotImplemented,
				fmt.Sprintf("strake does not serve %s %s", r.Method, r.URL.Path),
			},
		)
	default:
		s.fail(w, plainError{errdefs.ErrNotFound, "page not found"})
	}
}
