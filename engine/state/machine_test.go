package state

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"strake/engine"
)

// TestLife plays testdata/life.txt: lines of a happening with particulars, then what state and
// actions it must lead to.
func TestLife(t *testing.T) {
	t.Parallel()
	f, err := os.Open("testdata/life.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	names := map[string]Kind{
		"started": Started, "start-failed": StartFailed, "exited": HasExited,
		"stop-asked": StopAsked, "paused": HasPaused,
		"unpaused": HasUnpaused, "removing": RemoveBegun, "remove-failed": RemoveFailed,
		"recovered": Recovered,
	}
	var s engine.State
	var opt Event
	now, scenario, line, steps := time.Duration(0), "", 0, 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line++
		text := strings.TrimSpace(sc.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if rest, ok := strings.CutPrefix(text, "scenario "); ok {
			scenario, s, opt, now = rest, engine.State{Status: engine.Created}, Event{}, 0
			continue
		}
		left, want, _ := strings.Cut(text, "->")
		words := strings.Fields(left)
		if words[0] == "with" {
			for _, w := range words[1:] {
				k, v, _ := strings.Cut(w, "=")
				switch k {
				case "policy":
					opt.Policy.Name = v
				case "retries":
					opt.Policy.MaxRetries, _ = strconv.Atoi(v)
				case "autoremove":
					opt.AutoRemove = true
				case "health":
					opt.Health = true
				default:
					t.Fatalf("line %d: %q", line, w)
				}
			}
			continue
		}
		e := opt
		e.Kind = names[words[0]]
		if _, ok := names[words[0]]; !ok {
			t.Fatalf("line %d: unknown happening %q", line, words[0])
		}
		for _, w := range words[1:] {
			k, v, _ := strings.Cut(w, "=")
			n, _ := strconv.Atoi(v)
			switch k {
			case "user":
				e.ByUser = true
			case "code":
				e.Code = n
			case "pid":
				e.Pid = n
			case "oom":
				e.OOM = true
			case "after":
				d, err := time.ParseDuration(v)
				if err != nil {
					t.Fatal(err)
				}
				now += d
			case "reason":
				e.Reason = v
			default:
				t.Fatalf("line %d: %q", line, w)
			}
		}
		e.At = base.Add(now)
		next, acts, err := Step(s, e)
		var got []string
		if err != nil {
			if !errdefs.IsFailedPrecondition(err) || next != s {
				t.Errorf("%s, line %d: error %v, state %+v", scenario, line, err, next)
			}
			got = append(got, "refused")
		} else {
			got = append(
				got, string(next.Status), "code="+strconv.Itoa(next.ExitCode),
				"restarts="+strconv.Itoa(next.RestartCount),
			)
			if next.Health != "" {
				got = append(got, next.Health)
			}
			if next.OOMKilled {
				got = append(got, "oom")
			}
			for _, a := range acts {
				switch a.Do {
				case DoRestart:
					got = append(got, fmt.Sprintf("restart(%s)", a.Delay))
					opt.Delay = a.Delay
				case DoCancelRestart:
					got = append(got, "cancel")
				case DoRemove:
					got = append(got, "remove")
				}
			}
		}
		s = next
		steps++
		if g, w := strings.Join(got, " "), strings.TrimSpace(want); g != w {
			t.Errorf(
				"%s, line %d: %s\n got %s\nwant %s", scenario, line, strings.TrimSpace(left), g, w,
			)
		}
	}
	if steps < 40 {
		t.Errorf("only %d steps were played", steps)
	}
}

func TestStartAtBoot(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy string
		state  engine.State
		lost   bool
		want   bool
	}{
		{"no policy", "no", engine.State{Status: engine.Exited}, true, false},
		{"always", PolicyAlways, engine.State{Status: engine.Exited}, false, true},
		{
			"always, stopped by the user", PolicyAlways, engine.State{Status: engine.Exited, StoppedByUser: true},
			false, true,
		},
		{"always, never started", PolicyAlways, engine.State{Status: engine.Created}, false, false},
		{"unless-stopped", PolicyUnlessStopped, engine.State{Status: engine.Exited}, false, true},
		{
			"unless-stopped, stopped", PolicyUnlessStopped, engine.State{Status: engine.Exited, StoppedByUser: true},
			false, false,
		},
		{"on-failure, lost", PolicyOnFailure, engine.State{Status: engine.Exited, ExitCode: 255}, true, true},
		{
			"on-failure, ended long ago", PolicyOnFailure, engine.State{Status: engine.Exited, ExitCode: 1},
			false, false,
		},
		{
			"on-failure, was waiting", PolicyOnFailure, engine.State{Status: engine.Restarting, ExitCode: 1},
			false, true,
		},
		{"running already", PolicyAlways, engine.State{Status: engine.Running}, false, false},
		{"being removed", PolicyAlways, engine.State{Status: engine.Removing}, false, false},
	} {
		tt.state.Lost = tt.lost
		if got := StartAtBoot(engine.RestartPolicy{Name: tt.policy}, tt.state); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := &engine.HealthConfig{
		Test: []string{"CMD", "true"}, StartPeriod: 10 * time.Second, StartInterval: time.Second,
		Retries: 2,
	}
	s := engine.State{Status: engine.Running, StartedAt: start, Health: HealthStarting}
	for _, tt := range []struct {
		name   string
		after  time.Duration
		code   int
		want   string
		streak int
		pause  time.Duration
	}{
		{"fails in the start period", time.Second, 1, HealthStarting, 0, time.Second},
		{"fails after it", 11 * time.Second, 1, HealthStarting, 1, healthInterval},
		{"fails again", 12 * time.Second, -1, HealthUnhealthy, 2, healthInterval},
		{"keeps failing", 13 * time.Second, 1, HealthUnhealthy, 3, healthInterval},
		{"succeeds", 14 * time.Second, 0, HealthHealthy, 0, healthInterval},
		{"fails once", 15 * time.Second, 1, HealthHealthy, 1, healthInterval},
		{"fails twice", 16 * time.Second, 1, HealthUnhealthy, 2, healthInterval},
	} {
		s.Health, s.FailingStreak = Judge(
			h, s, engine.HealthResult{Start: start.Add(tt.after), ExitCode: tt.code},
		)
		if s.Health != tt.want || s.FailingStreak != tt.streak {
			t.Errorf(
				"%s: got %s, streak %d; want %s, %d", tt.name, s.Health, s.FailingStreak, tt.want,
				tt.streak,
			)
		}
		if got := NextProbe(h, s, start.Add(tt.after)); got != tt.pause {
			t.Errorf("%s: next probe after %s, want %s", tt.name, got, tt.pause)
		}
	}
}
