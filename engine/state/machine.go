// Package state is the life of a container as pure functions: what an event makes of its state and
// what has to be done about it, whether it is restarted and when, and what its health checks mean.
//
// Nothing here reads a clock or touches the system; package supervisor carries the actions out.
//
// Not for: I/O of any kind.
//
// Tested by scripts (testdata) and tables.
package state

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/internal/message"
)

// Kind is a kind of event in the life of a container.
type Kind int

const (
	// Started: the process executes.
	Started Kind = iota
	// StartFailed: it could not be started; everything made for it is gone again.
	StartFailed
	// HasExited: the process ended.
	HasExited
	// StopAsked: the user wants it to end and stay ended.
	StopAsked
	// HasPaused and HasUnpaused: its processes are frozen, or run again.
	HasPaused
	HasUnpaused
	// RemoveBegun: it is being removed; RemoveFailed: and could not be.
	RemoveBegun
	RemoveFailed
	// Recovered: a new engine has found the process gone without knowing how it ended.
	Recovered
)

// Event carries a kind of event and its particulars. Fields that a kind of event does not need are zero.
type Event struct {
	Kind   Kind
	At     time.Time
	Pid    int
	Code   int
	Reason string
	OOM    bool
	// ByUser tells a start the user asked for from one of a restart policy.
	ByUser bool
	// Health says whether the container has a health check (Started).
	Health bool
	Policy engine.RestartPolicy
	// AutoRemove is Spec.AutoRemove; delay is the pause before the previous automatic restart.
	AutoRemove bool
	Delay      time.Duration
	// Finished is when the process ended, if that is earlier than at.
	Finished time.Time
}

// Action is what the driver has to do after a step, in order.
type Action struct {
	Do    Do
	Delay time.Duration
}

// Do is what an Action asks for.
type Do int

const (
	// DoRestart starts the container again after a delay.
	DoRestart Do = iota
	// DoCancelRestart stops the timer of a restart.
	DoCancelRestart
	// DoRemove removes the container with its anonymous volumes.
	DoRemove
)

// Step is the transition function. A kind of event that does not fit the state is
// errdefs.ErrFailedPrecondition and leaves the state as it was.
func Step(s engine.State, e Event) (engine.State, []Action, error) {
	refuse := func(what string) (engine.State, []Action, error) {
		return s, nil, message.New(
			errdefs.ErrFailedPrecondition, "a container that is %s cannot %s", s.Status, what,
		)
	}
	alive := s.Status == engine.Running || s.Status == engine.Paused
	switch e.Kind {
	case Started:
		if alive || s.Status == engine.Removing || s.Status == engine.Dead {
			return refuse("start")
		}
		s.Status, s.Pid, s.StartedAt = engine.Running, e.Pid, e.At
		s.ExitCode, s.Error, s.OOMKilled, s.StoppedByUser, s.Lost = 0, "", false, false, false
		if e.ByUser {
			s.RestartCount = 0
		} else {
			s.RestartCount++
		}
		s.Health, s.FailingStreak = "", 0
		if e.Health {
			s.Health = HealthStarting
		}
		return s, nil, nil

	case StartFailed:
		if alive {
			return refuse("fail to start")
		}
		s.ExitCode, s.Error, s.Pid = e.Code, e.Reason, 0
		if s.Status != engine.Created {
			s.Status, s.FinishedAt = engine.Exited, e.At
		}
		if e.AutoRemove {
			return s, []Action{{Do: DoRemove}}, nil
		}
		return s, nil, nil

	case HasExited, Recovered:
		if !alive {
			return refuse("end")
		}
		s.Status, s.Pid, s.ExitCode, s.OOMKilled = engine.Exited, 0, e.Code, e.OOM
		s.FinishedAt, s.Lost = e.At, e.Kind == Recovered
		if !e.Finished.IsZero() {
			s.FinishedAt = e.Finished
		}
		if e.Reason != "" {
			s.Error = e.Reason
		}
		if s.Health == HealthStarting || s.Health == HealthHealthy {
			s.Health = HealthUnhealthy
		}
		if ShouldRestart(e.Policy, s) {
			s.Status = engine.Restarting
			return s, []Action{
				{Do: DoRestart, Delay: RestartDelay(e.Delay, s.FinishedAt.Sub(s.StartedAt))},
			}, nil
		}
		if e.AutoRemove {
			return s, []Action{{Do: DoRemove}}, nil
		}
		return s, nil, nil

	case StopAsked:
		s.StoppedByUser = true
		if s.Status == engine.Restarting {
			s.Status = engine.Exited
			return s, []Action{{Do: DoCancelRestart}}, nil
		}
		return s, nil, nil

	case HasPaused:
		if s.Status != engine.Running {
			return refuse("be paused")
		}
		s.Status = engine.Paused
		return s, nil, nil

	case HasUnpaused:
		if s.Status != engine.Paused {
			return refuse("be unpaused")
		}
		s.Status = engine.Running
		return s, nil, nil

	case RemoveBegun:
		if alive {
			return refuse("be removed")
		}
		restarting := s.Status == engine.Restarting
		s.Status = engine.Removing
		if restarting {
			return s, []Action{{Do: DoCancelRestart}}, nil
		}
		return s, nil, nil

	case RemoveFailed:
		s.Status, s.Error = engine.Dead, e.Reason
		return s, nil, nil
	}
	return refuse(fmt.Sprintf("have kind of event %d", e.Kind))
}
