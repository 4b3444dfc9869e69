package docker

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"strake/engine"
)

// logs streams a container's log: raw if the container has a terminal, else multiplexed.
func (a *viewAPI) logs(w http.ResponseWriter, r *request) error {
	info, err := a.engine.Inspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	opt := engine.LogOptions{
		Stdout: r.flag("stdout"), Stderr: r.flag("stderr"), Follow: r.flag("follow"), Tail: -1,
	}
	if !opt.Stdout && !opt.Stderr {
		return invalid("Bad parameters: you must choose at least one stream")
	}
	if t := r.form("tail"); t != "" && t != "all" {
		// dockerd takes what is not a number for "all".
		if n, err := strconv.Atoi(t); err == nil && n >= 0 {
			opt.Tail = n
		}
	}
	if opt.Since, err = timestamp(r.form("since")); err != nil {
		return invalid("since: %v", err)
	}
	if opt.Until, err = timestamp(r.form("until")); err != nil {
		return invalid("until: %v", err)
	}
	stamps, details := r.flag("timestamps"), r.flag("details")
	tty := info.Spec.TTY
	out := newFlusher(w)
	streams := writersFor(out, tty)
	begun := false
	begin := func() {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", contentType(tty, r.version))
			w.WriteHeader(http.StatusOK)
			out.flush()
		}
	}
	if opt.Follow {
		begin()
	}
	err = a.engine.Logs(r.Context(), info.ID, opt, func(l engine.LogLine) error {
		begin()
		line := l.Line
		if details {
			line = append(append(attributes(l.Attributes), ' '), line...)
		}
		if stamps {
			line = append(
				[]byte(l.Time.UTC().Format("2006-01-02T15:04:05.000000000Z07:00")+" "), line...,
			)
		}
		to := streams.Stdout
		if l.Stream == "stderr" && streams.Stderr != nil {
			to = streams.Stderr
		}
		_, err := to.Write(line)
		return err
	})
	if err != nil && !begun {
		return err
	}
	begin()
	if err != nil && !errors.Is(err, context.Canceled) {
		a.log.Debug("log stream ended", "container", info.ID, "error", err)
		return errAnswered
	}
	return nil
}

// attributes is what the parameter details puts in front of a line: names and values, escaped as in
// the query of a URL, in the order of the names.
func attributes(attrs map[string]string) (out []byte) {
	for i, name := range sortedKeys(attrs) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, url.QueryEscape(name)+"="+url.QueryEscape(attrs[name])...)
	}
	return out
}
