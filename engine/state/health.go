package state

import (
	"time"

	"strake/engine"
)

const (
	HealthStarting  = "starting"
	HealthHealthy   = "healthy"
	HealthUnhealthy = "unhealthy"

	// Dockerfile reference, HEALTHCHECK.
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3

	HealthLogEntries = 5
	HealthOutputMax  = 4096 // bytes kept of a probe's output
)

// HasProbe says whether there is anything to run.
func HasProbe(h *engine.HealthConfig) bool {
	return h != nil && len(h.Test) > 0 && h.Test[0] != "NONE"
}

// MergeHealth fills what the user left open from the image's health check.
func MergeHealth(h, image *engine.HealthConfig) *engine.HealthConfig {
	switch {
	case h == nil:
		return image
	case image == nil:
		return h
	}
	m := *h
	if len(m.Test) == 0 {
		m.Test = image.Test
	}
	if m.Interval == 0 {
		m.Interval = image.Interval
	}
	if m.Timeout == 0 {
		m.Timeout = image.Timeout
	}
	if m.StartPeriod == 0 {
		m.StartPeriod = image.StartPeriod
	}
	if m.StartInterval == 0 {
		m.StartInterval = image.StartInterval
	}
	if m.Retries == 0 {
		m.Retries = image.Retries
	}
	return &m
}

// Judge returns the health after a probe: the state machine of the Dockerfile reference. Failures
// during the start period do not count until the first success.
func Judge(h *engine.HealthConfig, s engine.State, r engine.HealthResult) (health string, streak int) {
	if r.ExitCode == 0 {
		return HealthHealthy, 0
	}
	if s.Health == HealthStarting && r.Start.Sub(s.StartedAt) < h.StartPeriod {
		return HealthStarting, s.FailingStreak
	}
	retries := h.Retries
	if retries <= 0 {
		retries = healthRetries
	}
	streak = s.FailingStreak + 1
	if streak >= retries {
		return HealthUnhealthy, streak
	}
	return s.Health, streak
}

// NextProbe is the pause until the next probe, counted from the end of the last one.
func NextProbe(h *engine.HealthConfig, s engine.State, now time.Time) time.Duration {
	if s.Health == HealthStarting && now.Sub(s.StartedAt) < h.StartPeriod {
		if h.StartInterval > 0 {
			return h.StartInterval
		}
		return healthStartInterval
	}
	if h.Interval > 0 {
		return h.Interval
	}
	return healthInterval
}

// ProbeTimeout is how long a probe may take.
func ProbeTimeout(h *engine.HealthConfig) time.Duration {
	if h.Timeout > 0 {
		return h.Timeout
	}
	return healthTimeout
}

// ProbeArgs is the command of a probe; shell is the image's SHELL or nil.
func ProbeArgs(h *engine.HealthConfig, shell []string) []string {
	if h.Test[0] == "CMD-SHELL" {
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(append([]string(nil), shell...), h.Test[1:]...)
	}
	return h.Test[1:]
}
