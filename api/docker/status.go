package docker

import (
	"fmt"
	"time"

	"strake/engine"
)

// statusText is the column STATUS of ps: "Up 5 minutes (healthy)".
func statusText(st *engine.State, now time.Time) string {
	switch st.Status {
	case engine.Created:
		return "Created"
	case engine.Removing:
		return "Removal In Progress"
	case engine.Dead:
		return "Dead"
	case engine.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", st.ExitCode, age(now.Sub(st.FinishedAt)))
	case engine.Exited:
		return fmt.Sprintf("Exited (%d) %s ago", st.ExitCode, age(now.Sub(st.FinishedAt)))
	}
	text := "Up " + age(now.Sub(st.StartedAt))
	switch {
	case st.Status == engine.Paused:
		text += " (Paused)"
	case st.Health == "starting":
		text += " (health: starting)"
	case st.Health != "" && st.Health != "none":
		text += " (" + st.Health + ")"
	}
	return text
}

// age is a duration as docker words it.
func age(d time.Duration) string {
	switch seconds := int(d.Seconds()); {
	case seconds < 1:
		return "Less than a second"
	case seconds == 1:
		return "1 second"
	case seconds < 60:
		return fmt.Sprintf("%d seconds", seconds)
	}
	switch minutes := int(d.Minutes()); {
	case minutes == 1:
		return "About a minute"
	case minutes < 60:
		return fmt.Sprintf("%d minutes", minutes)
	}
	switch hours := int(d.Hours() + 0.5); {
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return fmt.Sprintf("%d hours", hours)
	case hours < 24*7*2:
		return fmt.Sprintf("%d days", hours/24)
	case hours < 24*30*2:
		return fmt.Sprintf("%d weeks", hours/24/7)
	case hours < 24*365*2:
		return fmt.Sprintf("%d months", hours/24/30)
	}
	return fmt.Sprintf("%d years", int(d.Hours())/24/365)
}
