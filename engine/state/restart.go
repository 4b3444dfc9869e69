package state

import (
	"time"

	"strake/engine"
)

const (
	// A container that ran this long starts with the shortest pause again.
	restartSettled      = 10 * time.Second
	restartFirst        = 100 * time.Millisecond
	restartLongest      = time.Minute
	PolicyAlways        = "always"
	PolicyUnlessStopped = "unless-stopped"
	PolicyOnFailure     = "on-failure"
)

// ShouldRestart decides after an exit (docs.docker.com, "Start containers automatically").
func ShouldRestart(p engine.RestartPolicy, s engine.State) bool {
	if s.StoppedByUser {
		return false
	}
	switch p.Name {
	case PolicyAlways, PolicyUnlessStopped:
		return true
	case PolicyOnFailure:
		return s.ExitCode != 0 && (p.MaxRetries == 0 || s.RestartCount < p.MaxRetries)
	}
	return false
}

// RestartDelay is the pause before an automatic restart: 100 ms, doubled for every container that
// did not last ten seconds, at most a minute.
func RestartDelay(previous, ran time.Duration) time.Duration {
	if previous <= 0 || ran >= restartSettled {
		return restartFirst
	}
	return min(2*previous, restartLongest)
}

// StartAtBoot decides whether a new engine starts a container that is not running.
func StartAtBoot(p engine.RestartPolicy, s engine.State) bool {
	switch s.Status {
	case engine.Removing, engine.Dead, engine.Running, engine.Paused:
		return false
	}
	switch p.Name {
	case PolicyAlways:
		return s.Status != engine.Created
	case PolicyUnlessStopped:
		return s.Status != engine.Created && !s.StoppedByUser
	case PolicyOnFailure:
		return s.Status == engine.Restarting || s.Lost && ShouldRestart(p, s)
	}
	return false
}
