package docker

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"strake/engine"
)

// TestListFilters names the containers that each filter lets through.
func TestListFilters(t *testing.T) {
	t.Parallel()
	f := newFake(then)
	for _, c := range []struct{ query, want string }{
		{"", "running paused restarting tty"},
		{"all=1", "running created paused exited restarting dead removing tty"},
		{"limit=2", "running created"},
		{"limit=0", "running paused restarting tty"},
		{"limit=-1", "running paused restarting tty"},
		{`filters={"status":["exited","dead"]}`, "exited dead"},
		{`filters={"exited":["3"]}`, "exited"},
		{`filters={"exited":["0"]}`, ""},
		{`all=1&filters={"name":["^/?(dead|tty)$"]}`, "dead tty"},
		{`all=1&filters={"name":["ed"]}`, "created paused exited"},
		{`all=1&filters={"id":["444","a"]}`, "exited tty"},
		{`all=1&filters={"label":["state=dead"]}`, "dead"},
		{`all=1&filters={"health":["none"]}`, "created paused exited restarting dead removing"},
		{`filters={"health":["unhealthy"]}`, "running tty"},
		{`all=1&filters={"before":["running"]}`, "created paused exited restarting dead removing"},
		{`all=1&filters={"since":["created"]}`, "running tty"},
		{`filters={"ancestor":["one"]}`, "running paused restarting tty"},
		{`filters={"ancestor":["` + danglingID + `"]}`, ""},
		{`filters={"ancestor":["nosuch"]}`, ""},
		{`filters={"network":["net"]}`, "running"},
		{`filters={"network":["` + strings.Repeat("d", 64) + `"]}`, "running"},
		{`filters={"network":["other"]}`, ""},
		{`filters={"volume":["data"]}`, "running"},
		{`filters={"volume":["/data"]}`, "running"},
		{`filters={"volume":["other"]}`, ""},
		{`filters={"publish":["80"]}`, "running"},
		{`filters={"publish":["80/tcp"]}`, "running"},
		{`filters={"publish":["81/udp"]}`, ""},
		{`filters={"expose":["81/udp"]}`, "running tty"},
		{`filters={"expose":["81"]}`, "running tty"},
		{`filters={"expose":["82"]}`, ""},
		{`filters={"name":{"running":true,"tty":false}}`, "running"},
	} {
		w := get(t.Context(), f.h, "/v1.56/containers/json?"+c.query)
		var list []struct{ Names []string }
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
			t.Fatalf("%s: %v: %s", c.query, err, w.Body)
		}
		var names []string
		for _, one := range list {
			names = append(names, strings.TrimPrefix(one.Names[0], "/"))
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.query, got, c.want)
		}
	}
}

func TestStatusText(t *testing.T) {
	t.Parallel()
	ago := func(d time.Duration) time.Time { return then.Add(-d) }
	const day = 24 * time.Hour
	for _, c := range []struct {
		state engine.State
		want  string
	}{
		{engine.State{Status: engine.Created}, "Created"},
		{engine.State{Status: engine.Removing}, "Removal In Progress"},
		{engine.State{Status: engine.Dead}, "Dead"},
		{
			engine.State{Status: engine.Restarting, ExitCode: 1, FinishedAt: ago(time.Second)},
			"Restarting (1) 1 second ago",
		},
		{
			engine.State{Status: engine.Exited, ExitCode: 137, FinishedAt: ago(30 * time.Second)},
			"Exited (137) 30 seconds ago",
		},
		{engine.State{Status: engine.Running, StartedAt: then}, "Up Less than a second"},
		{
			engine.State{Status: engine.Running, StartedAt: ago(time.Minute)},
			"Up About a minute",
		},
		{
			engine.State{Status: engine.Running, StartedAt: ago(5 * time.Minute), Health: "none"},
			"Up 5 minutes",
		},
		{
			engine.State{Status: engine.Running, StartedAt: ago(time.Hour), Health: "healthy"},
			"Up About an hour (healthy)",
		},
		{
			engine.State{Status: engine.Running, StartedAt: ago(9 * time.Hour), Health: "starting"},
			"Up 9 hours (health: starting)",
		},
		{
			engine.State{Status: engine.Paused, StartedAt: ago(3 * day), Health: "healthy"},
			"Up 3 days (Paused)",
		},
		{engine.State{Status: engine.Running, StartedAt: ago(21 * day)}, "Up 3 weeks"},
		{engine.State{Status: engine.Running, StartedAt: ago(90 * day)}, "Up 3 months"},
		{engine.State{Status: engine.Running, StartedAt: ago(3 * 365 * day)}, "Up 3 years"},
	} {
		if got := statusText(&c.state, then); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.state, got, c.want)
		}
	}
}

func TestProgressText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		current, total int64
		want           string
	}{
		{7, 0, "7B"},
		{9, 7, "9B"},
		{0, 10, "[>" + strings.Repeat(" ", 49) + "]        0B/10B"},
		{1500, 3000, "[" + strings.Repeat("=", 25) + ">" + strings.Repeat(" ", 24) +
			"]     1.5kB/3kB"},
		{2e9, 2e9, "[" + strings.Repeat("=", 50) + "]       2GB/2GB"},
	} {
		if got := bar(c.current, c.total); got != c.want {
			t.Errorf("%d of %d: got %q, want %q", c.current, c.total, got, c.want)
		}
	}
}
