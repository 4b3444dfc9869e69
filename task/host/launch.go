package host

import (
	"context"
	"errors"

	"strake/container/launch"
	"strake/keeper"
)

// preparation compiles a program and opens what it needs. It is called again when a keeper dies
// while it starts the program: a part of what was opened can be used once only, such as a tree of
// mounts that is attached.
type preparation struct {
	make func() (*launch.Launch, *keeper.StartRequest, error)
	// held is called when the process waits after its mounts are made; nil: it does not wait.
	held func(ctx context.Context, p *keeper.Process) error
}

// start registers a process and has the keeper start it.
func (h *Host) start(ctx context.Context, p *process, prepare *preparation) error {
	if err := h.register(p); err != nil {
		return err
	}
	if err := h.fault("start: process"); err != nil {
		h.unregister(p)
		return err
	}
	kp, err := h.launch(ctx, p.id, prepare)
	if err != nil {
		if lost(err) || ctx.Err() != nil {
			h.mu.Lock()
			h.doubtful[p.id] = true
			h.mu.Unlock()
		}
		h.unregister(p)
		return err
	}
	p.running(kp)
	return nil
}

// launch has the keeper start a process. When the keeper dies before it has answered, the next one
// may have what the dead one has started; that is it then, also if it has ended. Otherwise the next
// one is asked once more, and what may have come of the first time is ended before.
func (h *Host) launch(
	ctx context.Context, id string, prepare *preparation,
) (*keeper.Process, error) {
	h.mu.Lock()
	k, fresh := h.keeper, h.fresh
	h.mu.Unlock()
	p, err := startBy(ctx, k, prepare)
	if !lost(err) {
		return p, err
	}
	if k, err = h.next(ctx, fresh, err); err != nil {
		return nil, err
	}
	if p, err := takeOver(ctx, k, id, prepare); p != nil || err != nil {
		return p, err
	}
	if err := k.Abort(ctx, id); err != nil {
		return nil, err
	}
	return startBy(ctx, k, prepare)
}

// takeOver takes a process from the keeper that has recovered it, with its subscribers; nil if the
// keeper has none of the ID.
func takeOver(
	ctx context.Context, k Keeper, id string, prepare *preparation,
) (p *keeper.Process, err error) {
	list, err := k.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, found := range list {
		defer found.Close()
		if found.ID != id || found.Bare ||
			found.State != keeper.Running && found.State != keeper.Exited {
			continue
		}
		l, req, err := prepare.make()
		if err != nil {
			return nil, err
		}
		defer l.Close()
		if p, err = k.Adopt(ctx, found, req.Attach...); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// startBy has one keeper start a process.
func startBy(ctx context.Context, k Keeper, prepare *preparation) (*keeper.Process, error) {
	l, req, err := prepare.make()
	if err != nil {
		return nil, err
	}
	defer l.Close()
	p, err := k.Start(ctx, req)
	for err == nil && p.State == keeper.Held {
		waiting := p
		if err := prepare.held(ctx, waiting); err != nil {
			waiting.Close()
			return nil, errors.Join(err, k.Abort(context.WithoutCancel(ctx), waiting.ID))
		}
		p, err = k.Continue(ctx, waiting.ID)
		waiting.Close()
	}
	return p, explain(l, err)
}
