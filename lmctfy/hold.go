package lmctfy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lmctfy/spec"
)

// Hold are limits that a policy puts on a container for a while, in place of those of its
// specification. 0 leaves a limit at what the specification says.
type Hold struct {
	// CPUMilli is a quota in thousandths of a processor; it takes nothing from a smaller one of the
	// specification.
	CPUMilli int64
	// MemoryHigh is the use of memory, in bytes, above which the container has to reclaim. Version 1
	// has nothing of the kind, and leaves it out.
	MemoryHigh int64
	// CPUWeight is 1 to 10000, as cpu.weight is (cgroup-v2.rst).
	CPUWeight int
}

// Hold holds the container to h until the next Hold or Update; the zero Hold gives back what the
// specification says. The specification that is kept with the container does not change. Of a
// container that does not isolate a resource, its limits are left out. Errors: errdefs.ErrNotFound;
// errdefs.ErrInvalidArgument for the root; errdefs.ErrFailedPrecondition for a container that
// another program made, whose limits are that program's.
func (c *Container) Hold(ctx context.Context, h Hold) error {
	if err := c.notRoot("limited"); err != nil {
		return err
	}
	release, err := c.m.lock(ctx, c.name.Parent())
	if err != nil {
		return err
	}
	defer release()
	if _, err := c.m.Get(c.name); err != nil {
		return err
	}
	record, err := c.Recorded()
	if err != nil {
		return err
	}
	if record == nil {
		return fmt.Errorf(
			"container %q: another program made it: %w", c.name, errdefs.ErrFailedPrecondition,
		)
	}
	if record.Cpu != nil {
		if _, err := c.m.apply(c.name, held(record, h), record); err != nil {
			return fmt.Errorf("container %q: %w", c.name, err)
		}
	}
	if record.Memory == nil || c.m.host.Version() == 1 {
		return nil
	}
	high := "max"
	if h.MemoryHigh > 0 {
		high = strconv.FormatInt(h.MemoryHigh, 10)
	}
	g, err := c.m.group(c.name)
	if err == nil {
		err = g.SetFile("memory.high", high)
	}
	if err != nil {
		return fmt.Errorf("container %q: memory.high: %w", c.name, err)
	}
	return nil
}

// held is a specification of the processors alone with what a policy puts in its place.
func held(record *spec.ContainerSpec, h Hold) *spec.ContainerSpec {
	s := spec.Only(record, []spec.Resource{spec.CPU})
	if h.CPUMilli > 0 && (s.Cpu.MaxLimit == nil || *s.Cpu.MaxLimit > uint64(h.CPUMilli)) {
		s.Cpu.MaxLimit = ptr(uint64(h.CPUMilli))
	}
	if h.CPUWeight > 0 {
		// As the kernel's own programs turn one into the other: 1 to 10000 is 2 to 262144.
		const least, most, weights = minShares, maxShares, 10000
		n := least + uint64(h.CPUWeight-1)*(most-least)/(weights-1)
		s.Cpu.Limit = ptr(n * 1000 / sharesPerCPU)
	}
	return s
}

// Recorded is the specification that the container was given, also while it is held to something
// else; nil for one that another program made.
func (c *Container) Recorded() (*spec.ContainerSpec, error) {
	g, err := c.m.group(c.name)
	if err != nil {
		return nil, err
	}
	s, err := readRecord(g.Dir())
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", c.name, err)
	}
	return s, nil
}

// PressureDir is the directory of the container's group in the version 2 tree, where the kernel says
// what pressure its processes feel; "" if it has none.
func (c *Container) PressureDir() string {
	if c.m.host.Version() != 2 {
		return ""
	}
	g, err := c.m.group(c.name)
	if err != nil {
		return ""
	}
	if _, err := os.Stat(filepath.Join(g.Dir(), "memory.pressure")); err != nil {
		return ""
	}
	return g.Dir()
}

// Number tells a container from a later one of its name, and which of two was made later: the kernel
// gives a greater one to every group.
func (c *Container) Number() (uint64, error) {
	g, err := c.m.group(c.name)
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Stat(g.Dir(), &st); errors.Is(err, unix.ENOENT) {
		return 0, fmt.Errorf("container %q: %w", c.name, errdefs.ErrNotFound)
	} else if err != nil {
		return 0, fmt.Errorf("container %q: %w", c.name, err)
	}
	return st.Ino, nil
}
