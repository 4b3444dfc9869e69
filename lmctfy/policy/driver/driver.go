// Package driver is the process that carries out the policy of package policy: it observes
// containers and the pressure that they feel, lets policy.Step decide and does what it says.
//
// It promises:
//   - While nothing is wrong it sleeps until the kernel reports pressure (a trigger of PSI by
//     poll(2), or an eventfd of version 1) or Config.Idle is over.
//   - Each decision is one line of the log with the numbers that led to it.
//   - When it ends, and when it starts, nothing is held back: what a driver that was killed had set
//     is given back by the next.
//
// Not for: reaching containers, which callers do through Source and Actuator.
//
// Tested with a fake machine in fake time, by triggers and notifications of the running kernel,
// and by a fuzz test of the parser of PSI.
package driver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"strake/internal/message"
	"strake/lmctfy/policy"
	"strake/lmctfy/policy/simulate"
)

// Sample is what a container used at one moment.
type Sample struct {
	// CPU is the CPU time that it and those below it used since they were made.
	CPU time.Duration
	// MemoryBytes is what they use now, without cache that is idle.
	MemoryBytes int64
	// Dir is the directory of its version 2 group, in which *.pressure is read; "" if it has none.
	Dir string
}

// Source shows containers. Its methods are called by one goroutine.
type Source interface {
	// List returns all containers with what their specifications say, without usage and pressure.
	// The driver may change the slice.
	List(ctx context.Context) ([]policy.Container, error)
	// Observe measures one. A container that is gone is errdefs.ErrNotFound.
	Observe(ctx context.Context, name string) (Sample, error)
}

// Actuator acts on containers. A container that is gone is errdefs.ErrNotFound, which the driver
// takes for success. A 0 in a Hold is what the container's specification says. What a host cannot
// set (a memory.high on version 1) is left out by the implementation.
type Actuator interface {
	// Throttle sets CPUMilli and MemoryHighBytes.
	Throttle(ctx context.Context, name string, h policy.Hold) error
	// Unthrottle gives both back to what the specification says.
	Unthrottle(ctx context.Context, name string) error
	// SetWeight sets CPUWeight and IOWeight.
	SetWeight(ctx context.Context, name string, h policy.Hold) error
	// Evict ends the container and those below it, and returns when they are gone.
	Evict(ctx context.Context, name string) error
}

// DryRun is the Actuator that does nothing, to see what the policy would do.
type DryRun struct{}

func (DryRun) Throttle(context.Context, string, policy.Hold) error  { return nil }
func (DryRun) Unthrottle(context.Context, string) error             { return nil }
func (DryRun) SetWeight(context.Context, string, policy.Hold) error { return nil }
func (DryRun) Evict(context.Context, string) error                  { return nil }

// Watch shows the pressure on the machine. PSI and Levels are those of kernels.
type Watch interface {
	Read() (policy.Pressure, error)
	// Wait waits for pressure in groups (see PSI.Wait), at most for a time, or until the context
	// ends. An error comes at once; the driver then observes every Config.Poll.
	Wait(ctx context.Context, dirs []string, d time.Duration) (woken bool, err error)
}

// Config is what Run needs.
type Config struct {
	Policy   policy.Config
	Machine  policy.Machine // for Record alone
	Source   Source
	Actuator Actuator
	Watch    Watch
	// Memory, if set, says how much is left, so that pressure that comes from limits is told from
	// shortage (policy.Config.PlentyPercent).
	Memory Memory
	// Poll is the time between observations while there is pressure or something is held back.
	// Default 500 ms; more than Policy.RaiseAfter makes the policy slower than it says.
	Poll time.Duration
	// Idle is the longest time without an observation. A protected container that is made has no
	// trigger of its own before the next one. Default 10 s.
	Idle time.Duration
	// Timeout bounds each action. Default 10 s.
	Timeout time.Duration
	// Log, if set, is called with each line. Record, if set, is written a trace that package
	// simulate replays.
	Log    func(at time.Time, line string)
	Record io.Writer
}

// Validate returns errdefs.ErrInvalidArgument naming the field, its value and what is allowed.
func (c Config) Validate() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"poll", c.Poll}, {"idle", c.Idle}, {"timeout", c.Timeout}} {
		if d.value < 0 || d.value > 24*time.Hour {
			return message.New(
				errdefs.ErrInvalidArgument, "policy: %s %s: 0 to 24h is allowed", d.name, d.value,
			)
		}
	}
	if c.Record != nil {
		if err := c.Machine.Validate(); err != nil {
			return err
		}
	}
	return c.Policy.Validate()
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// loop is one Run.
type loop struct {
	Config
	state   policy.State
	cause   policy.Cause
	problem string // the last error of observing, which is logged once
	deaf    string // the last error of waiting, likewise
	used    map[string]used
	begun   time.Time
}

// used is the last sample of a container.
type used struct {
	cpu time.Duration
	at  time.Time
}

// Run carries out the policy until the context ends, and then gives everything back. It returns
// errors of the configuration and of Record only: what cannot be observed or done is logged and
// tried again.
func Run(ctx context.Context, c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	c.Poll, c.Idle = or(c.Poll, 500*time.Millisecond), or(c.Idle, 10*time.Second)
	c.Timeout = or(c.Timeout, 10*time.Second)
	if c.Log == nil {
		c.Log = func(time.Time, string) {}
	}
	l := &loop{
		Config: c, state: policy.New(c.Policy), used: map[string]used{}, begun: time.Now(),
	}
	if err := l.record(simulate.Line{Machine: &c.Machine, Config: &c.Policy}); err != nil {
		return err
	}
	l.reset(ctx)
	defer l.release(context.WithoutCancel(ctx))
	woken := false
	for ctx.Err() == nil {
		o, dirs, err := l.observe(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			if text := err.Error(); text != l.problem {
				l.problem = text
				l.Log(time.Now(), "error: "+text)
			}
			pause(ctx, c.Poll)
			continue
		}
		l.problem = ""
		if err := l.record(simulate.Line{
			AtMillis: o.At.Sub(l.begun).Milliseconds(), Observe: &o,
		}); err != nil {
			return err
		}
		var actions []policy.Action
		l.state, actions = policy.Step(l.state, o)
		for _, a := range actions {
			l.do(ctx, o.At, a)
		}
		woken = l.wait(ctx, dirs, woken)
	}
	return nil
}

// wait sleeps until the next observation. After a trigger fired there is one more soon, since the
// time before it was calm.
func (l *loop) wait(ctx context.Context, dirs []string, woken bool) bool {
	if woken || !l.state.Quiet() {
		pause(ctx, l.Poll)
		return false
	}
	woken, err := l.Watch.Wait(ctx, dirs, l.Idle)
	if err != nil {
		if text := err.Error(); text != l.deaf {
			l.deaf = text
			l.Log(time.Now(), "error: no notification of pressure: "+text)
		}
		pause(ctx, l.Poll)
	}
	return woken
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// observe measures all containers. It returns where their pressure is to be waited for: in the
// groups of the protected, and on the machine, "", if one of them has none or none exists.
func (l *loop) observe(ctx context.Context) (policy.Observation, []string, error) {
	all, err := l.Source.List(ctx)
	if err != nil {
		return policy.Observation{}, nil, fmt.Errorf("list containers: %w", err)
	}
	o, seen, machine, protected := policy.Observation{}, map[string]used{}, false, false
	var dirs []string
	for _, c := range all {
		s, err := l.Source.Observe(ctx, c.Name)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return o, nil, fmt.Errorf("observe %q: %w", c.Name, err)
		}
		now := used{s.CPU, time.Now()}
		c.Usage.MemoryBytes, c.Measured = s.MemoryBytes, false
		if old, ok := l.used[c.Name]; ok && now.at.After(old.at) && now.cpu >= old.cpu {
			c.Usage.CPUMilli = int64(1000 * float64(now.cpu-old.cpu) / float64(now.at.Sub(old.at)))
			c.Measured = true
		}
		seen[c.Name] = now
		if !c.Class.Batch() {
			protected = true
			if s.Dir != "" {
				p, err := ReadPSI(s.Dir)
				if err == nil {
					c.Pressure = &p
					dirs = append(dirs, s.Dir)
				} else if !errdefs.IsNotFound(err) {
					return o, nil, fmt.Errorf("pressure of %q: %w", c.Name, err)
				}
			}
			machine = machine || c.Pressure == nil
		}
		o.Containers = append(o.Containers, c)
	}
	if o.Machine, err = l.Watch.Read(); err != nil {
		return o, nil, fmt.Errorf("pressure of the machine: %w", err)
	}
	if l.Memory != nil {
		if o.AvailableBytes, o.TotalBytes, err = l.Memory(); err != nil {
			return o, nil, fmt.Errorf("memory: %w", err)
		}
	}
	if machine || !protected {
		dirs = append(dirs, "")
	}
	dirs = topmost(dirs)
	o.At, l.used = time.Now(), seen
	return o, dirs, nil
}

// topmost returns directories without those below others, since the pressure on a group is that of
// those below it as well.
func topmost(dirs []string) (top []string) {
	slices.Sort(dirs)
	for _, dir := range dirs {
		if !slices.ContainsFunc(top, func(above string) bool {
			return above == dir || above != "" && strings.HasPrefix(dir, above+"/")
		}) {
			top = append(top, dir)
		}
	}
	return top
}

// do carries out an action and logs it. A DoNothing is logged when its cause changes.
func (l *loop) do(ctx context.Context, at time.Time, a policy.Action) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	var err error
	switch a.Do {
	case policy.DoNothing:
		if l.cause != a.Cause {
			l.cause = a.Cause
			l.Log(at, a.String())
		}
		return
	case policy.DoThrottle:
		err = l.Actuator.Throttle(ctx, a.Container, a.Hold)
	case policy.DoUnthrottle:
		err = l.Actuator.Unthrottle(ctx, a.Container)
	case policy.DoSetWeight:
		err = l.Actuator.SetWeight(ctx, a.Container, a.Hold)
	case policy.DoEvict:
		err = l.Actuator.Evict(ctx, a.Container)
	}
	line := a.String()
	l.cause = ""
	if err != nil && !errdefs.IsNotFound(err) {
		l.state = l.state.Failed(a)
		line += "; error: " + err.Error()
	}
	l.Log(at, line)
}

// reset gives back what a driver that was killed may have taken.
func (l *loop) reset(ctx context.Context) {
	all, err := l.Source.List(ctx)
	if err != nil {
		return // observe meets the same error and logs it
	}
	for _, c := range all {
		if !c.Class.Batch() {
			continue
		}
		for _, giveBack := range []func(context.Context) error{
			func(ctx context.Context) error { return l.Actuator.Unthrottle(ctx, c.Name) },
			func(ctx context.Context) error {
				return l.Actuator.SetWeight(ctx, c.Name, policy.Hold{})
			},
		} {
			ctx, cancel := context.WithTimeout(ctx, l.Timeout)
			if err := giveBack(ctx); err != nil && !errdefs.IsNotFound(err) {
				l.Log(time.Now(), fmt.Sprintf("reset %s; error: %s", c.Name, err))
			}
			cancel()
		}
	}
}

// none is the Watch of a machine whose pressure does not matter.
type none struct{}

func (none) Read() (p policy.Pressure, err error) { return p, nil }

func (none) Wait(context.Context, []string, time.Duration) (bool, error) { return false, nil }

// Measure returns the containers of a source with what they use, for which it observes them twice,
// a time apart.
func Measure(ctx context.Context, s Source, apart time.Duration) ([]policy.Container, error) {
	l := &loop{Config: Config{Source: s, Watch: none{}}}
	if _, _, err := l.observe(ctx); err != nil {
		return nil, err
	}
	pause(ctx, apart)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o, _, err := l.observe(ctx)
	return o.Containers, err
}

// release gives everything back.
func (l *loop) release(ctx context.Context) {
	state, actions := l.state.Release()
	l.state = state
	for _, a := range actions {
		l.do(ctx, time.Now(), a)
	}
}

func (l *loop) record(line simulate.Line) error {
	if l.Record == nil {
		return nil
	}
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if _, err := l.Record.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}
