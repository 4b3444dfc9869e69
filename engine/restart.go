package engine

import "time"

const (
	// A container that ran this long starts with the shortest pause again.
	restartSettled  = 10 * time.Second
	restartFirst    = 100 * time.Millisecond
	restartLongest  = time.Minute
	policyAlways    = "always"
	policyUnless    = "unless-stopped"
	policyOnFailure = "on-failure"
)

// shouldRestart decides after an exit (docs.docker.com, "Start containers automatically").
func shouldRestart(p RestartPolicy, s State) bool {
	if s.StoppedByUser {
		return false
	}
	switch p.Name {
	case policyAlways, policyUnless:
		return true
	case policyOnFailure:
		return s.ExitCode != 0 && (p.MaxRetries == 0 || s.RestartCount < p.MaxRetries)
	}
	return false
}

// restartDelay is the pause before an automatic restart: 100 ms, doubled for every container that
// did not last ten seconds, at most a minute.
func restartDelay(previous, ran time.Duration) time.Duration {
	if previous <= 0 || ran >= restartSettled {
		return restartFirst
	}
	return min(2*previous, restartLongest)
}

// startAtBoot decides whether a new engine starts a container that is not running. lost says that
// it was running when the machine (or the keeper) went down.
func startAtBoot(p RestartPolicy, s State, lost bool) bool {
	switch s.Status {
	case Removing, Dead, Running, Paused:
		return false
	}
	switch p.Name {
	case policyAlways:
		return s.Status != Created
	case policyUnless:
		return s.Status != Created && !s.StoppedByUser
	case policyOnFailure:
		return s.Status == Restarting || lost && shouldRestart(p, s)
	}
	return false
}
