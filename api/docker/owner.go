package docker

import (
	"context"
	"encoding/json"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
)

// owner is the owner of the containers that this API creates. Their engine.Spec.Front is this API's
// to read; that of a container of another owner is in a form that only its owner knows.
const owner = "docker"

// ownerOf is the owner of a container: owner for those that the API created, "" for those that
// were created before containers had owners.
func ownerOf(*engine.Info) string { return owner }

// ownContainers is an engine without the containers of other front ends: they are not listed, and
// their names are not found. An exec is found by its ID, which only the API that created it knows.
type ownContainers struct {
	Engine
	ownerOf func(*engine.Info) string
}

// visible says whether a container is one of this API's.
func (o ownContainers) visible(c *engine.Info) bool {
	name := o.ownerOf(c)
	return name == owner || name == ""
}

// Inspect returns errdefs.ErrNotFound for a container of another owner.
func (o ownContainers) Inspect(ctx context.Context, name string) (engine.Info, error) {
	info, err := o.Engine.Inspect(ctx, name)
	if err == nil && !o.visible(&info) {
		return engine.Info{}, plainError{errdefs.ErrNotFound, "No such container: " + name}
	}
	return info, err
}

// check returns the error of Inspect, which reads the engine's memory only.
func (o ownContainers) check(ctx context.Context, name string) error {
	_, err := o.Inspect(ctx, name)
	return err
}

func (o ownContainers) List(ctx context.Context) ([]engine.Info, error) {
	list, err := o.Engine.List(ctx)
	if err != nil {
		return nil, err
	}
	own := list[:0]
	for i := range list {
		if o.visible(&list[i]) {
			own = append(own, list[i])
		}
	}
	return own, nil
}

func (o ownContainers) Start(ctx context.Context, name string) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.Start(ctx, name)
}

func (o ownContainers) Stop(ctx context.Context, name, signal string, timeout *int) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.Stop(ctx, name, signal, timeout)
}

func (o ownContainers) Kill(ctx context.Context, name, signal string) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.Kill(ctx, name, signal)
}

func (o ownContainers) Restart(ctx context.Context, name, signal string, timeout *int) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.Restart(ctx, name, signal, timeout)
}

func (o ownContainers) Pause(ctx context.Context, name string) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.Pause(ctx, name)
}

func (o ownContainers) Unpause(ctx context.Context, name string) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.Unpause(ctx, name)
}

func (o ownContainers) Remove(
	ctx context.Context, name string, opt engine.RemoveOptions,
) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.Remove(ctx, name, opt)
}

func (o ownContainers) Rename(ctx context.Context, name, to string) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.Rename(ctx, name, to)
}

func (o ownContainers) Resize(ctx context.Context, name string, width, height uint16) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.Resize(ctx, name, width, height)
}

func (o ownContainers) Attach(
	ctx context.Context, name string, opt engine.AttachOptions,
) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.Attach(ctx, name, opt)
}

func (o ownContainers) ConnectNetwork(
	ctx context.Context, name, network string, ep engine.EndpointSpec,
) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.ConnectNetwork(ctx, name, network, ep)
}

func (o ownContainers) DisconnectNetwork(ctx context.Context, name, network string) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.DisconnectNetwork(ctx, name, network)
}

func (o ownContainers) Logs(
	ctx context.Context, name string, opt engine.LogOptions, emit func(engine.LogLine) error,
) error {
	if err := o.check(ctx, name); err != nil {
		return err
	}
	return o.Engine.Logs(ctx, name, opt, emit)
}

func (o ownContainers) Update(
	ctx context.Context, name string, res specs.LinuxResources, restart *engine.RestartPolicy,
	front func(json.RawMessage) (json.RawMessage, error),
) ([]string, error) {
	if err := o.check(ctx, name); err != nil {
		return nil, err
	}
	return o.Engine.Update(ctx, name, res, restart, front)
}

func (o ownContainers) Wait(
	ctx context.Context, name string, cond engine.WaitCondition, registered func(),
) (engine.ExitStatus, error) {
	if err := o.check(ctx, name); err != nil {
		return engine.ExitStatus{}, err
	}
	return o.Engine.Wait(ctx, name, cond, registered)
}

func (o ownContainers) Usage(ctx context.Context, name string) (rw, root int64, err error) {
	if err := o.check(ctx, name); err != nil {
		return 0, 0, err
	}
	return o.Engine.Usage(ctx, name)
}

func (o ownContainers) Changes(ctx context.Context, name string) ([]engine.Change, error) {
	if err := o.check(ctx, name); err != nil {
		return nil, err
	}
	return o.Engine.Changes(ctx, name)
}

func (o ownContainers) Stats(ctx context.Context, name string) (engine.Stats, error) {
	if err := o.check(ctx, name); err != nil {
		return engine.Stats{}, err
	}
	return o.Engine.Stats(ctx, name)
}

func (o ownContainers) Top(ctx context.Context, name string) ([]engine.Process, error) {
	if err := o.check(ctx, name); err != nil {
		return nil, err
	}
	return o.Engine.Top(ctx, name)
}

func (o ownContainers) ExecCreate(
	ctx context.Context, name string, spec engine.ExecSpec,
) (string, error) {
	if err := o.check(ctx, name); err != nil {
		return "", err
	}
	return o.Engine.ExecCreate(ctx, name, spec)
}
