package userland

import (
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	gosync "sync"
	"time"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/interp"
)

// traps are the signal traps of a shell (trap(1p)); EXIT and ERR are the interpreter's. A trapped
// signal is served before the next simple command, or at the end: like every shell, not while a
// program runs.
type traps struct {
	signals chan os.Signal

	mu   gosync.Mutex
	text map[unix.Signal]string // "" ignores; guarded by mu
	exit bool                   // an EXIT or ERR trap was set; guarded by mu
	come []unix.Signal          // taken from signals, not yet served; guarded by mu
}

// trapDelivery bounds the wait for a signal that the shell has sent itself: the kernel delivers it
// before kill returns, the Go runtime soon after.
const trapDelivery = 100 * time.Millisecond

// ExitOnSignals makes the signals that end a process end this one, with the status that a shell
// shows for them, unless handled says that a signal is taken care of. It does nothing for a call
// without Exit.
func ExitOnSignals(c *Call, handled func(os.Signal) bool) {
	if c.Exit == nil {
		return
	}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	go func() { // as long as the process
		for sig := range ch {
			if s, ok := sig.(unix.Signal); ok && !handled(sig) {
				c.Exit(exitSignal + int(s))
			}
		}
	}()
}

// has tells whether a trap is set for a signal.
func (t *traps) has(sig os.Signal) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.text[sig.(unix.Signal)]
	return ok
}

// settle waits, after kill with these arguments, for a trapped signal to itself, so that the trap
// is served before the next command.
func (t *traps) settle(args []string) {
	self := strconv.Itoa(os.Getpid())
	t.mu.Lock()
	trapped := slices.ContainsFunc(slices.Collect(maps.Values(t.text)), func(text string) bool {
		return text != ""
	})
	t.mu.Unlock()
	if !trapped || !slices.Contains(args, self) {
		return
	}
	timer := time.NewTimer(trapDelivery)
	defer timer.Stop()
	select {
	case sig := <-t.signals:
		t.mu.Lock()
		t.come = append(t.come, sig.(unix.Signal))
		t.mu.Unlock()
	case <-timer.C:
	}
}

// take is the next signal that came.
func (t *traps) take() (unix.Signal, bool) {
	t.mu.Lock()
	if len(t.come) > 0 {
		sig := t.come[0]
		t.come = t.come[1:]
		t.mu.Unlock()
		return sig, true
	}
	t.mu.Unlock()
	select {
	case sig := <-t.signals:
		return sig.(unix.Signal), true
	default:
		return 0, false
	}
}

func newTraps() *traps {
	return &traps{signals: make(chan os.Signal, 16), text: map[unix.Signal]string{}}
}

// stop gives the signals their meaning back.
func (t *traps) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	signal.Stop(t.signals)
	for sig := range t.text {
		signal.Reset(sig)
	}
}

// any tells whether a trap is set.
func (t *traps) any() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.exit || len(t.text) > 0
}

// next takes the text of a trap whose signal has come.
func (t *traps) next() (string, bool) {
	for {
		sig, ok := t.take()
		if !ok {
			return "", false
		}
		t.mu.Lock()
		text := t.text[sig]
		t.mu.Unlock()
		if text != "" {
			return text, true
		}
	}
}

// set serves the built-in trap. It returns what is left for the interpreter, nil when nothing is.
func (t *traps) set(hc interp.HandlerContext, args []string) (rest []string, status int) {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(args) == 0 || len(args) == 1 && args[0] == "-p":
		for _, sig := range slices.Sorted(maps.Keys(t.text)) {
			fmt.Fprintf(
				hc.Stdout, "trap -- %s %s\n", quoteWord(t.text[sig]),
				strings.TrimPrefix(unix.SignalName(sig), "SIG"),
			)
		}
		return []string{}, exitOK
	case len(args) == 1 && args[0] == "-l":
		(&Call{Name: "trap", Stdout: hc.Stdout}).listSignals(nil)
		return nil, exitOK
	}
	text, names := args[0], args[1:]
	if len(args) == 1 || strings.Trim(text, "0123456789") == "" && text != "" {
		text, names = "-", args
	}
	type change struct {
		sig  unix.Signal
		text string
	}
	var changes []change
	for _, n := range names {
		switch strings.TrimPrefix(strings.ToUpper(n), "SIG") {
		case "0", "EXIT":
			rest = append(rest, "EXIT")
			continue
		case "ERR":
			rest = append(rest, "ERR")
			continue
		}
		sig, err := parseSignal(n)
		if err == nil && (sig == unix.SIGKILL || sig == unix.SIGSTOP) {
			err = fmt.Errorf("signal %q cannot be trapped", n)
		}
		if err != nil {
			fmt.Fprintf(hc.Stderr, "trap: %v\n", err)
			return nil, exitFault
		}
		changes = append(changes, change{sig, text})
	}
	for _, ch := range changes {
		switch ch.text {
		case "-":
			delete(t.text, ch.sig)
			signal.Reset(ch.sig)
		case "":
			t.text[ch.sig] = ""
			signal.Ignore(ch.sig)
		default:
			t.text[ch.sig] = ch.text
			signal.Notify(t.signals, ch.sig)
		}
	}
	if rest != nil {
		t.exit = text != "-"
		rest = append([]string{text}, rest...)
	}
	return rest, exitOK
}
