// Package containers joins the policy's driver with lmctfy's containers: it shows them to the policy
// and carries out what the policy decides.
//
// Not for: deciding (package policy), when to look (package driver).
//
// Tested with containers of the running kernel.
package containers

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/errdefs"

	"strake/lmctfy"
	"strake/lmctfy/name"
	"strake/lmctfy/policy"
	"strake/lmctfy/policy/driver"
	"strake/lmctfy/spec"
)

// Containers are those of a machine that lmctfy has made. It implements driver.Source and
// driver.Actuator, for one goroutine.
type Containers struct {
	machine *lmctfy.Machine
	// holds is what the containers are held to at present, by their names.
	holds map[string]lmctfy.Hold
}

// New returns the containers of a machine.
func New(m *lmctfy.Machine) *Containers {
	return &Containers{machine: m, holds: map[string]lmctfy.Hold{}}
}

// get finds a container by the policy's name for it.
func (c *Containers) get(called string) (*lmctfy.Container, error) {
	n, err := name.Resolve(called, name.Root)
	if err != nil {
		return nil, err
	}
	return c.machine.Get(n)
}

// List implements driver.Source. What another program has made is not the policy's.
func (c *Containers) List(context.Context) (list []policy.Container, err error) {
	root, err := c.machine.Get(name.Root)
	if err != nil {
		return nil, err
	}
	names, err := root.Children(lmctfy.Recursive)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		p, err := c.describe(n)
		switch {
		case errdefs.IsNotFound(err):
		case err != nil:
			return nil, err
		case p != nil:
			list = append(list, *p)
		}
	}
	return list, nil
}

// describe is a container by its specification; nil for one without.
func (c *Containers) describe(n name.Name) (*policy.Container, error) {
	x, err := c.machine.Get(n)
	if err != nil {
		return nil, err
	}
	s, err := x.Recorded()
	if err != nil || s == nil {
		return nil, err
	}
	number, err := x.Number()
	if err != nil {
		return nil, err
	}
	p := &policy.Container{
		Name: string(n), CPULimitMilli: int64(s.Cpu.GetLimit()),
		CPUMaxMilli:            int64(s.Cpu.GetMaxLimit()),
		MemoryLimitBytes:       max(s.Memory.GetLimit(), 0),
		MemoryReservationBytes: max(s.Memory.GetReservation(), 0), EvictionPriority: 5000,
		// No time, but in the order of the times at which they were made.
		Started: time.Unix(0, int64(number)),
	}
	if s.Cpu != nil && s.Cpu.SchedulingLatency != nil {
		p.Class = policy.Class(spec.Latency(s))
	}
	if s.Memory != nil && s.Memory.EvictionPriority != nil {
		p.EvictionPriority = int(*s.Memory.EvictionPriority)
	}
	return p, nil
}

// Observe implements driver.Source.
func (c *Containers) Observe(_ context.Context, called string) (driver.Sample, error) {
	x, err := c.get(called)
	if err != nil {
		return driver.Sample{}, err
	}
	stats, err := x.Stats(lmctfy.Summary)
	if stats == nil {
		return driver.Sample{}, err
	}
	return driver.Sample{
		CPU:         time.Duration(stats.Cpu.GetUsage().GetTotal()),
		MemoryBytes: stats.Memory.GetWorkingSet(), Dir: x.PressureDir(),
	}, nil
}

// Throttle implements driver.Actuator.
func (c *Containers) Throttle(ctx context.Context, called string, h policy.Hold) error {
	return c.hold(ctx, called, func(held *lmctfy.Hold) {
		held.CPUMilli, held.MemoryHigh = h.CPUMilli, h.MemoryHighBytes
	})
}

// Unthrottle implements driver.Actuator.
func (c *Containers) Unthrottle(ctx context.Context, called string) error {
	return c.hold(ctx, called, func(held *lmctfy.Hold) { held.CPUMilli, held.MemoryHigh = 0, 0 })
}

// SetWeight implements driver.Actuator. The weight of I/O is left out: few schedulers of disks have
// one.
func (c *Containers) SetWeight(ctx context.Context, called string, h policy.Hold) error {
	return c.hold(ctx, called, func(held *lmctfy.Hold) { held.CPUWeight = h.CPUWeight })
}

// hold changes what a container is held to.
func (c *Containers) hold(
	ctx context.Context, called string, change func(*lmctfy.Hold),
) error {
	x, err := c.get(called)
	if err != nil {
		delete(c.holds, called)
		return err
	}
	held := c.holds[called]
	change(&held)
	if err := x.Hold(ctx, held); err != nil {
		return err
	}
	c.holds[called] = held
	if held == (lmctfy.Hold{}) {
		delete(c.holds, called)
	}
	return nil
}

// Evict implements driver.Actuator.
func (c *Containers) Evict(ctx context.Context, called string) error {
	x, err := c.get(called)
	if err != nil {
		return err
	}
	delete(c.holds, called)
	err = c.machine.Destroy(ctx, x.Name(), lmctfy.Everything)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}
