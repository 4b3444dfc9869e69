package docker

import (
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"strake/engine"
)

// eventAPI serves GET /events.
type eventAPI struct {
	engine interface {
		Events(engine.EventQuery) (past []engine.Event, live <-chan engine.Event, cancel func())
	}
}

func (a *eventAPI) routes() map[string]handler {
	return map[string]handler{
		"GET /events": a.events,
	}
}

// events streams events: first those since a time that the engine remembers, then new ones until a
// time or until the client disconnects.
func (a *eventAPI) events(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(
		r, "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin",
		"scope", "secret", "service", "type", "volume",
	)
	if err != nil {
		return err
	}
	var q engine.EventQuery
	if q.Since, err = timestamp(r.form("since")); err != nil {
		return invalid("since: %v", err)
	}
	if q.Until, err = timestamp(r.form("until")); err != nil {
		return invalid("until: %v", err)
	}
	q.Match = func(e engine.Event) bool { return eventMatches(f, &e) }
	past, live, cancel := a.engine.Events(q)
	defer cancel()
	kind := eventStream(r)
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	out := newFlusher(w)
	out.flush()
	send := func(e *engine.Event) error {
		if r.version < 46 && e.Type == "image" && e.Action == "create" {
			return nil
		}
		raw, err := json.Marshal(messageOf(e, r.version))
		if err != nil {
			return err
		}
		if kind == jsonSequence {
			raw = append([]byte{0x1e}, raw...)
		}
		_, err = out.Write(append(raw, '\n'))
		return err
	}
	for i := range past {
		if send(&past[i]) != nil {
			return nil
		}
	}
	var end <-chan time.Time
	if !q.Until.IsZero() {
		t := time.NewTimer(time.Until(q.Until))
		defer t.Stop()
		end = t.C
	}
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-end:
			return nil
		case e, ok := <-live:
			if !ok || send(&e) != nil {
				return nil
			}
		}
	}
}

func eventMatches(f filters, e *engine.Event) bool {
	action, _, _ := strings.Cut(e.Action, ":")
	object := func(key string) bool {
		return !f.has(key) || e.Type == key &&
			(f.exact(key, e.ID, e.Attributes["name"]) || prefixed(f[key], e.ID))
	}
	return f.exact("type", e.Type) && f.exact("event", e.Action, action) &&
		f.labels(e.Attributes) && f.exact("scope", "local") &&
		(object("container") ||
			e.Type != "container" && f.exact("container", e.Attributes["container"])) &&
		(!f.has("image") || f.exact("image", e.Attributes["image"], e.ID, e.Attributes["name"])) &&
		object("volume") && object("network") && object("daemon") &&
		!f.has("plugin") && !f.has("service") && !f.has("node") && !f.has("secret") &&
		!f.has("config")
}

// jsonSequence is the form of a stream with a record separator in front of each object (RFC 7464).
// In the other forms each object is a line.
const jsonSequence = "application/json-seq"

// eventStream chooses the media type of a stream of events: of the types that the version has, the
// one with the highest quality value in the header Accept (RFC 9110, section 12.5.1), or the first
// one if the header names none of them.
func eventStream(r *request) string {
	offers := []string{"application/jsonl", "application/x-ndjson", jsonSequence}
	switch {
	case r.version < 52:
		return "application/json"
	case r.version < 53:
		offers = offers[1:]
	}
	best, liking := offers[0], 0.0
	for _, accepted := range strings.Split(strings.Join(r.Header.Values("Accept"), ","), ",") {
		name, params, err := mime.ParseMediaType(accepted)
		if err != nil || !slices.Contains(offers, name) {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		if q > liking {
			best, liking = name, q
		}
	}
	return best
}

// messageOf is the JSON object of an event. The fields status, id and from ended with 1.51.
func messageOf(e *engine.Event, v version) map[string]any {
	attributes := e.Attributes
	if attributes == nil {
		attributes = map[string]string{}
	}
	m := map[string]any{
		"Type": e.Type, "Action": e.Action,
		"Actor": map[string]any{"ID": e.ID, "Attributes": attributes}, "scope": "local",
		"time": e.Time.Unix(), "timeNano": e.Time.UnixNano(),
	}
	if v < 52 && (e.Type == "container" || e.Type == "image") {
		m["status"], m["id"] = e.Action, e.ID
		if from := attributes["image"]; from != "" {
			m["from"] = from
		}
	}
	return m
}
