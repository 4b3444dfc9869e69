package docker

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"

	"strake/engine"
)

// attachAPI connects clients with the streams of containers.
type attachAPI struct {
	engine interface {
		inspector
		Attach(ctx context.Context, name string, opt engine.AttachOptions) error
	}
}

func (a *attachAPI) routes() map[string]handler {
	return map[string]handler{
		"POST /containers/{name}/attach": a.attach,
	}
}

func (a *attachAPI) attach(w http.ResponseWriter, r *request) error {
	name := r.PathValue("name")
	info, err := a.engine.Inspect(r.Context(), name)
	if err != nil {
		return err
	}
	keys, err := detachKeys(r.form("detachKeys"), info.Spec.TTY)
	if err != nil {
		return err
	}
	if st := info.State.Status; st == engine.Paused {
		return conflict("Container %s is paused, unpause the container before attach", name)
	} else if st == engine.Restarting {
		return conflict("Container %s is restarting, wait until the container is running", name)
	}
	stream, stdin := r.flag("stream"), r.flag("stdin")
	tty := info.Spec.TTY
	h, err := hijack(w, r, tty)
	if err != nil {
		return err
	}
	defer h.Close()
	opt := engine.AttachOptions{
		Streams: h.streams(tty, stdin && stream, r.flag("stdout"), r.flag("stderr")),
		Logs:    r.flag("logs"), Stream: stream,
		Attached: h.answer,
	}
	opt.DetachKeys = keys
	err = a.engine.Attach(r.Context(), name, opt)
	// The client reads the reason why a container did not start in the answer to the start.
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, engine.ErrNotStarted) {
		tell(h, tty, err)
	}
	return errAnswered
}

// detachKeys are the keys by which a user leaves the streams of a process: text names a sequence
// such as "ctrl-p,ctrl-q" or "a,b" (docker attach, --detach-keys). As with dockerd an empty one
// means the default, and a process without a terminal receives all input as it is.
func detachKeys(text string, tty bool) ([]byte, error) {
	keys, err := parseKeys(text)
	switch {
	case err != nil || !tty:
		return nil, err
	case len(keys) == 0:
		return []byte{'p' - 'a' + 1, 'q' - 'a' + 1}, nil
	}
	return keys, nil
}

// parseKeys parses a sequence of keys; empty gives none.
func parseKeys(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	var keys []byte
	for _, k := range strings.Split(text, ",") {
		if len(k) == 1 {
			keys = append(keys, k[0])
			continue
		}
		c, ok := strings.CutPrefix(k, "ctrl-")
		if !ok || len(c) != 1 {
			return nil, invalid("Invalid detach keys (%s) provided", text)
		}
		switch {
		case c[0] >= 'a' && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case strings.Contains("@[\\]^_", c):
			keys = append(keys, c[0]-'@')
		default:
			return nil, invalid("Invalid detach keys (%s) provided", text)
		}
	}
	return keys, nil
}
