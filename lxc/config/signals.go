package config

import (
	"strings"

	"golang.org/x/sys/unix"
)

var (
	signal = kind{set: setSignal}
	pdeath = kind{set: setPdeath, get: getPdeath, clear: clearPdeath}
)

// glibc keeps two real-time signals for itself; LXC counts from what it calls SIGRTMIN.
const (
	firstRealTime = 34
	lastSignal    = 64
)

const signalForm = "a signal by number from 0 to 64 or name, as in SIGPWR, SIGRTMIN+3 or SIGRTMAX-2"

// signalNumber reads a signal by number or name, with or without SIG in any case. 0 is LXC's
// default for the three signals of a container.
func signalNumber(value string) (int, error) {
	if n, err := number(value, 0, lastSignal); err == nil {
		return int(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(value), "SIG")
	if n, ok := realTime(name); ok {
		return n, nil
	}
	switch name {
	case "CLD":
		name = "CHLD"
	case "IOT":
		name = "ABRT"
	case "POLL":
		name = "IO"
	case "UNUSED":
		name = "SYS"
	}
	if n := int(unix.SignalNum("SIG" + name)); n != 0 && n < firstRealTime {
		return n, nil
	}
	return 0, want("%s%s", signalForm, didYouMean("SIG"+name, signalNames()))
}

// realTime reads RTMIN, RTMIN+N, RTMAX and RTMAX-N.
func realTime(name string) (int, bool) {
	base, sign := firstRealTime, "+"
	rest, ok := strings.CutPrefix(name, "RTMIN")
	if !ok {
		if rest, ok = strings.CutPrefix(name, "RTMAX"); !ok {
			return 0, false
		}
		base, sign = lastSignal, "-"
	}
	if rest == "" {
		return base, true
	}
	digits, ok := strings.CutPrefix(rest, sign)
	n, err := number(digits, 0, lastSignal-firstRealTime)
	if !ok || err != nil || digits[0] == '-' {
		return 0, false
	}
	if sign == "-" {
		n = -n
	}
	return base + int(n), true
}

// signalNames are for suggestions.
func signalNames() []string {
	var names []string
	for n := unix.Signal(1); n < firstRealTime; n++ {
		if name := unix.SignalName(n); name != "" {
			names = append(names, name)
		}
	}
	return append(names, "SIGRTMIN", "SIGRTMAX")
}

func setSignal(at any, _, value string) error {
	n, err := signalNumber(value)
	if err == nil {
		*at.(*int) = n
	}
	return err
}

func setPdeath(at any, _, value string) error {
	n, err := signalNumber(value)
	if err == nil {
		*at.(**int) = &n
	}
	return err
}

// getPdeath prints the signal's number, 0 if the configuration says nothing, as LXC does.
func getPdeath(at any, _ string) []string {
	n := 0
	if p := *at.(**int); p != nil {
		n = *p
	}
	return show(&n)
}

func clearPdeath(at any, _ string) { *at.(**int) = nil }
