package host

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/hook"
	"strake/container/spawn"
	"strake/keeper"
	"strake/task"
)

// hasHooks says whether a configuration has hooks that a task executes.
func hasHooks(c *specs.Spec) bool { return c.Hooks != nil && len(c.Hooks.CreateContainer) > 0 }

// hooks is what is done when a task's mounts are made and its root is not changed yet: its
// createContainer hooks run, in its namespaces, with the programs of the host (runtime-spec
// config.md, POSIX-platform Hooks). It is nil without hooks. Those of other kinds are refused: what
// runs on the host the front end runs itself.
func (h *Host) hooks(s *task.Spec) (func(context.Context, *keeper.Process) error, error) {
	c := s.Config
	if c.Hooks == nil {
		return nil, nil
	}
	for kind, list := range map[string][]specs.Hook{
		//lint:ignore SA1019 prestart is deprecated in the runtime-spec and refused like the others
		"prestart": c.Hooks.Prestart, "createRuntime": c.Hooks.CreateRuntime,
		"startContainer": c.Hooks.StartContainer, "poststart": c.Hooks.Poststart,
		"poststop": c.Hooks.Poststop,
	} {
		if len(list) > 0 {
			return nil, fmt.Errorf(
				"start %q: hooks.%s: a task has createContainer hooks only: %w", s.ID, kind,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	if !hasHooks(c) {
		return nil, nil
	}
	dir := "/"
	if c.Root != nil && c.Root.Path != "" && s.Overlay == nil {
		dir = c.Root.Path
	}
	flags := namespaceFlags(c)
	return func(ctx context.Context, p *keeper.Process) error {
		m, err := spawn.New()
		if err != nil {
			return err
		}
		defer m.Close()
		state, err := json.Marshal(&specs.State{
			Version: specs.Version, ID: s.ID, Status: specs.StateCreating, Pid: p.Pid,
			Annotations: c.Annotations,
		})
		if err != nil {
			return err
		}
		for i := range c.Hooks.CreateContainer {
			one := &c.Hooks.CreateContainer[i]
			err := p.WithPidFD(func(fd int) error {
				limited, cancel := hook.Limit(ctx, one.Timeout)
				defer cancel()
				err := hook.Inside(limited, m, one, dir, flags, state, fd)
				if err != nil && limited.Err() != nil && ctx.Err() == nil {
					err = fmt.Errorf("no end within %d s", *one.Timeout)
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("hooks.createContainer[%d] (%s): %w", i, one.Path, err)
			}
		}
		return nil
	}, nil
}
