package engine

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"strake/internal/message"
)

// The life of a container as a pure function: step takes the state and what happened, and returns
// the new state and what has to be done about it. Nothing here reads a clock or touches the system;
// the driver (lifecycle.go) carries the actions out.

// happening is what can befall a container.
type happening int

const (
	// hStarted: the process executes.
	hStarted happening = iota
	// hStartFailed: it could not be started; everything made for it is gone again.
	hStartFailed
	// hExited: the process ended.
	hExited
	// hStopAsked: the user wants it to end and stay ended.
	hStopAsked
	hPaused
	hUnpaused
	// hRemoving: it is being removed; hRemoveFailed: and could not be.
	hRemoving
	hRemoveFailed
	// hRecovered: a new engine has found the process gone without knowing how it ended.
	hRecovered
)

// event carries a happening and its particulars. Fields that a happening does not need are zero.
type event struct {
	what   happening
	at     time.Time
	pid    int
	code   int
	reason string
	oom    bool
	// byUser tells a start the user asked for from one of a restart policy.
	byUser bool
	// health says whether the container has a health check (hStarted).
	health bool
	policy RestartPolicy
	// autoRemove is Spec.AutoRemove; delay is the pause before the previous automatic restart.
	autoRemove bool
	delay      time.Duration
	// finished is when the process ended, if that is earlier than at.
	finished time.Time
}

// action is what the driver has to do after a step, in order.
type action struct {
	do    deed
	delay time.Duration
}

type deed int

const (
	// doRestart starts the container again after a delay.
	doRestart deed = iota
	// doCancelRestart stops the timer of a restart.
	doCancelRestart
	// doRemove removes the container with its anonymous volumes.
	doRemove
)

// step is the transition function. A happening that does not fit the state is
// errdefs.ErrFailedPrecondition and leaves the state as it was.
func step(s State, e event) (State, []action, error) {
	refuse := func(what string) (State, []action, error) {
		return s, nil, message.New(
			errdefs.ErrFailedPrecondition, "a container that is %s cannot %s", s.Status, what,
		)
	}
	alive := s.Status == Running || s.Status == Paused
	switch e.what {
	case hStarted:
		if alive || s.Status == Removing || s.Status == Dead {
			return refuse("start")
		}
		s.Status, s.Pid, s.StartedAt = Running, e.pid, e.at
		s.ExitCode, s.Error, s.OOMKilled, s.StoppedByUser = 0, "", false, false
		if e.byUser {
			s.RestartCount = 0
		} else {
			s.RestartCount++
		}
		s.Health, s.FailingStreak = "", 0
		if e.health {
			s.Health = healthStarting
		}
		return s, nil, nil

	case hStartFailed:
		if alive {
			return refuse("fail to start")
		}
		s.ExitCode, s.Error, s.Pid = e.code, e.reason, 0
		if s.Status != Created {
			s.Status, s.FinishedAt = Exited, e.at
		}
		if e.autoRemove {
			return s, []action{{do: doRemove}}, nil
		}
		return s, nil, nil

	case hExited, hRecovered:
		if !alive {
			return refuse("end")
		}
		s.Status, s.Pid, s.ExitCode, s.OOMKilled = Exited, 0, e.code, e.oom
		s.FinishedAt = e.at
		if !e.finished.IsZero() {
			s.FinishedAt = e.finished
		}
		if e.reason != "" {
			s.Error = e.reason
		}
		if s.Health == healthStarting || s.Health == healthHealthy {
			s.Health = healthUnhealthy
		}
		if shouldRestart(e.policy, s) {
			s.Status = Restarting
			return s, []action{
				{do: doRestart, delay: restartDelay(e.delay, s.FinishedAt.Sub(s.StartedAt))},
			}, nil
		}
		if e.autoRemove {
			return s, []action{{do: doRemove}}, nil
		}
		return s, nil, nil

	case hStopAsked:
		s.StoppedByUser = true
		if s.Status == Restarting {
			s.Status = Exited
			return s, []action{{do: doCancelRestart}}, nil
		}
		return s, nil, nil

	case hPaused:
		if s.Status != Running {
			return refuse("be paused")
		}
		s.Status = Paused
		return s, nil, nil

	case hUnpaused:
		if s.Status != Paused {
			return refuse("be unpaused")
		}
		s.Status = Running
		return s, nil, nil

	case hRemoving:
		if alive {
			return refuse("be removed")
		}
		restarting := s.Status == Restarting
		s.Status = Removing
		if restarting {
			return s, []action{{do: doCancelRestart}}, nil
		}
		return s, nil, nil

	case hRemoveFailed:
		s.Status, s.Error = Dead, e.reason
		return s, nil, nil
	}
	return refuse(fmt.Sprintf("have happening %d", e.what))
}
