package docker

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strake/engine"
	"strake/image"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
)

// viewAPI serves the endpoints that show containers and change nothing.
type viewAPI struct {
	engine viewEngine
	images viewImages
	log    *slog.Logger
	// logDriver is the default, shown for containers that were created without a driver.
	logDriver string
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
	args := r.form("ps_args")
	if args != "" && args != "-ef" {
		return invalid("ps_args %q: the one form is -ef", args)
	}
	list, err := a.engine.Top(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	out := container.TopResponse{
		Titles:    []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"},
		Processes: [][]string{},
	}
	for _, p := range list {
		tty := p.TTY
		if tty == "" {
			tty = "?"
		}
		cpu := p.CPUTime.Truncate(time.Second)
		out.Processes = append(out.Processes, []string{
			strconv.Itoa(p.UID), strconv.Itoa(p.PID), strconv.Itoa(p.PPID),
			strconv.Itoa(p.CPUPercent), p.StartedAt.Local().Format("15:04"), tty,
			fmt.Sprintf(
				"%02d:%02d:%02d", int(cpu.Hours()), int(cpu.Minutes())%60, int(cpu.Seconds())%60,
			),
			p.Command,
		})
	}
	return writeJSON(w, http.StatusOK, out)
}
