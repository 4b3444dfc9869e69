package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"strake/engine"
)

func conflict(format string, args ...any) error {
	return plainError{errdefs.ErrConflict, fmt.Sprintf(format, args...)}
}

func (s *server) startContainer(w http.ResponseWriter, r *request) error {
	info, err := s.Engine.Inspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	switch info.State.Status {
	case engine.Running, engine.Restarting:
		w.WriteHeader(http.StatusNotModified)
		return nil
	case engine.Paused:
		return conflict("cannot start a paused container, try unpause instead")
	}
	// What the client has attached to it stays when the client goes, so its going must not undo the
	// start half way.
	if err := s.Engine.Start(context.WithoutCancel(r.Context()), info.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// timeout reads t, in seconds; absent means the container's own.
func timeout(r *request) (*int, error) {
	text := r.form("t")
	if text == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, invalid("parameter t %q: want a number of seconds", text)
	}
	return &n, nil
}

func (s *server) stopContainer(w http.ResponseWriter, r *request) error {
	t, err := timeout(r)
	if err != nil {
		return err
	}
	info, err := s.Engine.Inspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	switch info.State.Status {
	case engine.Created, engine.Exited, engine.Dead:
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if err := s.Engine.Stop(r.Context(), info.ID, r.form("signal"), t); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) restartContainer(w http.ResponseWriter, r *request) error {
	t, err := timeout(r)
	if err != nil {
		return err
	}
	return s.done(w, s.Engine.Restart(r.Context(), r.PathValue("name"), r.form("signal"), t))
}

// done answers 204 where there is nothing to say.
func (s *server) done(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) killContainer(w http.ResponseWriter, r *request) error {
	sig := r.form("signal")
	if sig == "" {
		sig = "KILL"
	}
	return s.done(w, s.Engine.Kill(r.Context(), r.PathValue("name"), sig))
}

func (s *server) pauseContainer(w http.ResponseWriter, r *request) error {
	return s.done(w, s.Engine.Pause(r.Context(), r.PathValue("name")))
}

func (s *server) unpauseContainer(w http.ResponseWriter, r *request) error {
	return s.done(w, s.Engine.Unpause(r.Context(), r.PathValue("name")))
}

func (s *server) renameContainer(w http.ResponseWriter, r *request) error {
	return s.done(
		w,
		s.Engine.Rename(r.Context(), r.PathValue("name"), strings.TrimPrefix(r.form("name"), "/")),
	)
}

func (s *server) removeContainer(w http.ResponseWriter, r *request) error {
	if r.flag("link") {
		return notImplemented("link=1")
	}
	opt := engine.RemoveOptions{Force: r.flag("force"), Volumes: r.flag("v")}
	return s.done(w, s.Engine.Remove(r.Context(), r.PathValue("name"), opt))
}

// waitContainer sends its header at once: clients wait for it before they start the container.
func (s *server) waitContainer(w http.ResponseWriter, r *request) error {
	cond := engine.WaitCondition(r.form("condition"))
	switch cond {
	case "":
		cond = engine.WaitNotRunning
	case engine.WaitNotRunning, engine.WaitNextExit, engine.WaitRemoved:
	default:
		return invalid("invalid condition: %q", cond)
	}
	answered := false
	status, err := s.Engine.Wait(r.Context(), r.PathValue("name"), cond, func() {
		if r.version >= 30 {
			answered = true
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
		}
	})
	if err != nil {
		if answered {
			return errAnswered
		}
		return err
	}
	out := container.WaitResponse{StatusCode: int64(status.Code)}
	// A container that did not start has a status and its own error; the wait has not failed.
	if status.Error != "" && status.Code == 0 {
		out.Error = &container.WaitExitError{Message: status.Error}
	}
	if !answered {
		return writeJSON(w, http.StatusOK, out)
	}
	json.NewEncoder(w).Encode(out)
	return nil
}

func sizeOf(r *request) (width, height uint16, err error) {
	h, herr := strconv.ParseUint(r.form("h"), 10, 16)
	wd, werr := strconv.ParseUint(r.form("w"), 10, 16)
	if herr != nil || werr != nil {
		return 0, 0, invalid(
			"invalid resize height and width %q and %q: want numbers up to 65535", r.form("h"),
			r.form("w"),
		)
	}
	return uint16(wd), uint16(h), nil
}

func (s *server) resizeContainer(w http.ResponseWriter, r *request) error {
	width, height, err := sizeOf(r)
	if err != nil {
		return err
	}
	return s.Engine.Resize(r.Context(), r.PathValue("name"), width, height)
}

func (s *server) changes(w http.ResponseWriter, r *request) error {
	list, err := s.Engine.Changes(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	out := make([]container.FilesystemChange, len(list))
	for i, c := range list {
		out[i] = container.FilesystemChange{Path: c.Path, Kind: container.ChangeType(c.Kind)}
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *server) top(w http.ResponseWriter, r *request) error {
	args := r.form("ps_args")
	if args != "" && args != "-ef" {
		return invalid("ps_args %q: the one form is -ef", args)
	}
	list, err := s.Engine.Top(r.Context(), r.PathValue("name"))
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

// logs streams a container's log in the form of its terminal setting.
func (s *server) logs(w http.ResponseWriter, r *request) error {
	info, err := s.Engine.Inspect(r.Context(), r.PathValue("name"))
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
	stamps := r.flag("timestamps")
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
	err = s.Engine.Logs(r.Context(), info.ID, opt, func(l engine.LogLine) error {
		begin()
		line := l.Line
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
		s.Log.Debug("log stream ended", "container", info.ID, "error", err)
		return errAnswered
	}
	return nil
}

// timestamp reads seconds with a fraction, as clients send them; empty and 0 mean none.
func timestamp(text string) (time.Time, error) {
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	sec, frac, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		t, terr := time.Parse(time.RFC3339Nano, text)
		if terr != nil {
			return time.Time{}, fmt.Errorf("%q is no time", text)
		}
		return t, nil
	}
	var nanos int64
	if frac != "" {
		frac = (frac + "000000000")[:9]
		if nanos, err = strconv.ParseInt(frac, 10, 64); err != nil {
			return time.Time{}, fmt.Errorf("%q is no time", text)
		}
	}
	return time.Unix(n, nanos), nil
}

func (s *server) pruneContainers(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	until, err := f.until()
	if err != nil {
		return err
	}
	list, err := s.Engine.List(r.Context())
	if err != nil {
		return err
	}
	out := container.PruneReport{ContainersDeleted: []string{}}
	for i := range list {
		c := &list[i]
		if st := c.State.Status; st != engine.Created && st != engine.Exited && st != engine.Dead {
			continue
		}
		if !f.labels(c.Spec.Labels) || !until.IsZero() && c.Created.After(until) {
			continue
		}
		rw, _, err := s.Engine.Usage(r.Context(), c.ID)
		if err != nil {
			rw = 0
		}
		err = s.Engine.Remove(r.Context(), c.ID, engine.RemoveOptions{})
		if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		out.ContainersDeleted = append(out.ContainersDeleted, c.ID)
		out.SpaceReclaimed += uint64(rw)
	}
	return writeJSON(w, http.StatusOK, out)
}
