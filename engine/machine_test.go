package engine

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
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
	names := map[string]happening{
		"started": hStarted, "start-failed": hStartFailed, "exited": hExited,
		"stop-asked": hStopAsked, "paused": hPaused,
		"unpaused": hUnpaused, "removing": hRemoving, "remove-failed": hRemoveFailed,
		"recovered": hRecovered,
	}
	var s State
	var opt event
	now, scenario, line, steps := time.Duration(0), "", 0, 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line++
		text := strings.TrimSpace(sc.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if rest, ok := strings.CutPrefix(text, "scenario "); ok {
			scenario, s, opt, now = rest, State{Status: Created}, event{}, 0
			continue
		}
		left, want, _ := strings.Cut(text, "->")
		words := strings.Fields(left)
		if words[0] == "with" {
			for _, w := range words[1:] {
				k, v, _ := strings.Cut(w, "=")
				switch k {
				case "policy":
					opt.policy.Name = v
				case "retries":
					opt.policy.MaxRetries, _ = strconv.Atoi(v)
				case "autoremove":
					opt.autoRemove = true
				case "health":
					opt.health = true
				default:
					t.Fatalf("line %d: %q", line, w)
				}
			}
			continue
		}
		e := opt
		e.what = names[words[0]]
		if _, ok := names[words[0]]; !ok {
			t.Fatalf("line %d: unknown happening %q", line, words[0])
		}
		for _, w := range words[1:] {
			k, v, _ := strings.Cut(w, "=")
			n, _ := strconv.Atoi(v)
			switch k {
			case "user":
				e.byUser = true
			case "code":
				e.code = n
			case "pid":
				e.pid = n
			case "oom":
				e.oom = true
			case "after":
				d, err := time.ParseDuration(v)
				if err != nil {
					t.Fatal(err)
				}
				now += d
			case "reason":
				e.reason = v
			default:
				t.Fatalf("line %d: %q", line, w)
			}
		}
		e.at = base.Add(now)
		next, acts, err := step(s, e)
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
				switch a.do {
				case doRestart:
					got = append(got, fmt.Sprintf("restart(%s)", a.delay))
					opt.delay = a.delay
				case doCancelRestart:
					got = append(got, "cancel")
				case doRemove:
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
		state  State
		lost   bool
		want   bool
	}{
		{"no policy", "no", State{Status: Exited}, true, false},
		{"always", policyAlways, State{Status: Exited}, false, true},
		{
			"always, stopped by the user", policyAlways, State{Status: Exited, StoppedByUser: true},
			false, true,
		},
		{"always, never started", policyAlways, State{Status: Created}, false, false},
		{"unless-stopped", policyUnless, State{Status: Exited}, false, true},
		{
			"unless-stopped, stopped", policyUnless, State{Status: Exited, StoppedByUser: true},
			false, false,
		},
		{"on-failure, lost", policyOnFailure, State{Status: Exited, ExitCode: 255}, true, true},
		{
			"on-failure, ended long ago", policyOnFailure, State{Status: Exited, ExitCode: 1},
			false, false,
		},
		{
			"on-failure, was waiting", policyOnFailure, State{Status: Restarting, ExitCode: 1},
			false, true,
		},
		{"running already", policyAlways, State{Status: Running}, false, false},
		{"being removed", policyAlways, State{Status: Removing}, false, false},
	} {
		if got := startAtBoot(RestartPolicy{Name: tt.policy}, tt.state, tt.lost); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := &HealthConfig{
		Test: []string{"CMD", "true"}, StartPeriod: 10 * time.Second, StartInterval: time.Second,
		Retries: 2,
	}
	s := State{Status: Running, StartedAt: start, Health: healthStarting}
	for _, tt := range []struct {
		name   string
		after  time.Duration
		code   int
		want   string
		streak int
		pause  time.Duration
	}{
		{"fails in the start period", time.Second, 1, healthStarting, 0, time.Second},
		{"fails after it", 11 * time.Second, 1, healthStarting, 1, healthInterval},
		{"fails again", 12 * time.Second, -1, healthUnhealthy, 2, healthInterval},
		{"keeps failing", 13 * time.Second, 1, healthUnhealthy, 3, healthInterval},
		{"succeeds", 14 * time.Second, 0, healthHealthy, 0, healthInterval},
		{"fails once", 15 * time.Second, 1, healthHealthy, 1, healthInterval},
		{"fails twice", 16 * time.Second, 1, healthUnhealthy, 2, healthInterval},
	} {
		s.Health, s.FailingStreak = judge(
			h, s, HealthResult{Start: start.Add(tt.after), ExitCode: tt.code},
		)
		if s.Health != tt.want || s.FailingStreak != tt.streak {
			t.Errorf(
				"%s: got %s, streak %d; want %s, %d", tt.name, s.Health, s.FailingStreak, tt.want,
				tt.streak,
			)
		}
		if got := nextProbe(h, s, start.Add(tt.after)); got != tt.pause {
			t.Errorf("%s: next probe after %s, want %s", tt.name, got, tt.pause)
		}
	}
}
