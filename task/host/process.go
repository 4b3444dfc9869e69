package host

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"strake/keeper"
	"strake/task"
)

// process implements task.Process by a process of the keeper.
type process struct {
	h         *Host
	id, owner string
	exited    func(task.Exit)
	done      chan struct{} // closed when exit is set
	drained   chan struct{}

	mu      sync.Mutex
	kp      *keeper.Process // guarded by mu; nil until it runs
	pid     int             // guarded by mu
	started time.Time       // guarded by mu
	exit    *task.Exit      // guarded by mu; may come before running
	ended   bool            // guarded by mu: done is closed
	dry     bool            // guarded by mu: drained is closed
}

func newProcess(h *Host, id, owner string, exited func(task.Exit)) *process {
	return &process{
		h: h, id: id, owner: owner, exited: exited, done: make(chan struct{}),
		drained: make(chan struct{}),
	}
}

// running makes p the keeper's process kp. An exit that came first is told now.
func (p *process) running(kp *keeper.Process) {
	p.mu.Lock()
	p.kp, p.pid, p.started = kp, kp.Pid, kp.Started
	p.announce()
	p.mu.Unlock()
}

// end records an exit, once.
func (p *process) end(e keeper.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit == nil {
		p.exit = &task.Exit{Code: e.Code(), Time: e.Time.UTC(), Unknown: e.Unknown}
	}
	if p.kp != nil {
		p.announce()
	}
}

// announce tells of the exit if there is one. Precondition: p.mu is held.
func (p *process) announce() {
	if p.exit == nil || p.ended {
		return
	}
	p.ended = true
	close(p.done)
	if p.exited != nil {
		exit := *p.exit
		p.h.spawn(func() { p.exited(exit) })
	}
}

// aborted records that the process was ended and forgotten without its exit being told.
func (p *process) aborted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit == nil {
		p.exit = &task.Exit{Code: 128 + int(syscall.SIGKILL), Time: time.Now().UTC(), Unknown: true}
	}
	p.exited = nil
	if !p.ended {
		p.ended = true
		close(p.done)
	}
	p.closeDescriptors()
}

// drain records that all output has been written.
func (p *process) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drainLocked()
}

func (p *process) drainLocked() {
	if !p.dry {
		p.dry = true
		close(p.drained)
	}
}

// release closes the descriptors; the process goes on.
func (p *process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kp != nil {
		p.kp.Close()
	}
}

// closeDescriptors ends what an ended process holds here. Precondition: p.mu is held.
func (p *process) closeDescriptors() {
	p.drainLocked()
	if p.kp != nil {
		p.kp.Close()
	}
}

// handOver gives a process of a dead keeper to the next one.
func (p *process) handOver(ctx context.Context, k Keeper) {
	p.mu.Lock()
	kp, ended := p.kp, p.ended
	p.mu.Unlock()
	if kp == nil || ended {
		return
	}
	np, err := k.Adopt(ctx, kp)
	if err == nil {
		np.Close() // what kp holds is the same
		return
	}
	p.h.cfg.Log.Warn("hand a task to the new keeper", "task", p.id, "error", err)
	if exit, known, err := kp.Ended(); err == nil && known {
		p.end(exit)
	} else if kp.Signal(0) != nil {
		p.end(keeper.Exit{Unknown: true, Time: time.Now()})
	}
}

// current returns the keeper's process, or errdefs.ErrFailedPrecondition before it runs.
func (p *process) current() (*keeper.Process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kp == nil {
		return nil, fmt.Errorf("process %q does not run: %w", p.id, errdefs.ErrFailedPrecondition)
	}
	return p.kp, nil
}

func (p *process) ID() string    { return p.id }
func (p *process) Owner() string { return p.owner }

func (p *process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

func (p *process) Started() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}

func (p *process) Done() <-chan struct{}    { return p.done }
func (p *process) Drained() <-chan struct{} { return p.drained }

func (p *process) Exit() task.Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit == nil {
		return task.Exit{}
	}
	return *p.exit
}

// Signal implements task.Process.
func (p *process) Signal(sig syscall.Signal) error {
	kp, err := p.current()
	if err != nil {
		return err
	}
	return kp.Signal(sig)
}

// Attach implements task.Process.
func (p *process) Attach(ctx context.Context, out task.Output) (task.Subscription, error) {
	at := attachment(out)
	got, err := p.h.connection().Attach(ctx, p.id, at)
	if err != nil {
		return task.Subscription{}, err
	}
	return task.Subscription{ID: got.Subscription, LogOffset: got.LogOffset}, nil
}

// Detach implements task.Process.
func (p *process) Detach(ctx context.Context, subscription uint64) error {
	return p.h.connection().Detach(ctx, p.id, subscription)
}

// Input implements task.Process.
func (p *process) Input() (*os.File, error) {
	kp, err := p.current()
	if err != nil {
		return nil, err
	}
	return kp.Input()
}

// CloseInput implements task.Process.
func (p *process) CloseInput(ctx context.Context) error {
	kp, err := p.current()
	if err != nil {
		return err
	}
	kp.CloseStdin()
	return p.h.ask(ctx, func(k Keeper) error { return k.CloseStdin(ctx, p.id) })
}

// Resize implements task.Process.
func (p *process) Resize(ctx context.Context, width, height uint16) error {
	return p.h.ask(ctx, func(k Keeper) error { return k.Resize(ctx, p.id, width, height) })
}

// Delete implements task.Process.
func (p *process) Delete(ctx context.Context) error {
	err := p.h.ask(ctx, func(k Keeper) error { return k.Forget(ctx, p.id) })
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	p.h.unregister(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeDescriptors()
	return nil
}

func attachment(o task.Output) keeper.Attachment {
	at := keeper.Attachment{
		Stdout: o.Stdout, Stderr: o.Stderr, Framed: o.Framed, Pending: o.Pending,
		Overflow: keeper.OverflowSpill,
	}
	if o.Block {
		at.Overflow = keeper.OverflowBlock
	}
	return at
}
