package docker

import (
	"context"
	"log/slog"
	"net/http"
	"strake/engine"
	"strake/image"
	"time"

	"github.com/moby/moby/api/types/container"
)

// viewAPI serves the endpoints that show containers and change nothing.
type viewAPI struct {
	engine viewEngine
	images viewImages
	// networks are looked at for the IDs of those that a container is not in yet, or no more.
	networks interface {
		List(ctx context.Context) ([]NetworkInfo, error)
	}
	log *slog.Logger
	// logDriver is the default, shown for containers that were created without a driver.
	logDriver string
	host      host
}

// viewEngine is what viewAPI needs of Engine.
type viewEngine interface {
	inspector
	lister
	sizer
	Changes(ctx context.Context, name string) ([]engine.Change, error)
	Top(ctx context.Context, name string) ([]engine.Process, error)
	Logs(
		ctx context.Context, name string, opt engine.LogOptions, emit func(engine.LogLine) error,
	) error
	Stats(ctx context.Context, name string) (engine.Stats, error)
}

// viewImages is what viewAPI needs of Images.
type viewImages interface {
	imageResolver
	imageInspector
}

// imageInspector is a part of Images.
type imageInspector interface {
	Inspect(ctx context.Context, ref string) (image.Detail, error)
}

func (a *viewAPI) routes() map[string]handler {
	return map[string]handler{
		"GET /containers/json":           a.list,
		"GET /containers/{name}/json":    a.inspect,
		"GET /containers/{name}/top":     a.top,
		"GET /containers/{name}/logs":    a.logs,
		"GET /containers/{name}/changes": a.changes,
		"GET /containers/{name}/stats":   a.stats,
	}
}

func (a *viewAPI) changes(w http.ResponseWriter, r *request) error {
	list, err := a.engine.Changes(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	out := make([]container.FilesystemChange, len(list))
	for i, c := range list {
		out[i] = container.FilesystemChange{Path: c.Path, Kind: container.ChangeType(c.Kind)}
	}
	return writeJSON(w, http.StatusOK, out)
}

func (a *viewAPI) top(w http.ResponseWriter, r *request) error {
	columns, err := psArguments(r.form("ps_args"))
	if err != nil {
		return err
	}
	list, err := a.engine.Top(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	out := container.TopResponse{Processes: [][]string{}}
	for _, c := range columns {
		out.Titles = append(out.Titles, c.title)
	}
	on := psHost{time.Now(), a.host.memoryBytes, a.host.userName, a.host.groupName}
	for i := range list {
		var line []string
		for _, c := range columns {
			line = append(line, c.text(&list[i], &on))
		}
		out.Processes = append(out.Processes, line)
	}
	return writeJSON(w, http.StatusOK, out)
}
